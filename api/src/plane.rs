//! The decision which plane a pod gets: the same pure function at CNI ADD, in the agent and in the control
//! plane.

use std::collections::BTreeMap;

use crate::names::{MESH_NAMESPACE, label};
use crate::proto::trefoil::v1::Plane;

#[cfg(test)]
mod tests;

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// What the mode label asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Served by the node proxy.
    Ambient,
    /// Served by its own sidecar.
    Sidecar,
    /// Not in the mesh.
    None,
}

/// A mode label with a value that is none of the three.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "label {}: {value:?} is none of ambient, sidecar, none",
    label::DATAPLANE_MODE
)]
pub struct UnknownMode {
    value: String,
}

/// A label about DNS capture with a value that is neither.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("label {}: {value:?} is none of enabled, disabled", label::DNS_CAPTURE)]
pub struct UnknownCapture {
    value: String,
}

/// What of a pod the decision looks at.
#[derive(Clone, Debug, Default)]
pub struct PodFacts<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Labels of the namespace.
    pub namespace_labels: Option<&'a Labels>,
    /// Labels of the pod.
    pub labels: Option<&'a Labels>,
    /// It runs in the host's network namespace.
    pub host_network: bool,
    /// It was created with a sidecar.
    pub has_sidecar: bool,
}

/// What a pod gets, and what is to be said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The plane that its traffic enters.
    pub plane: Plane,
    /// Why it is not what its label asks for, and what to do about it.
    pub remark: Option<String>,
}

impl Mode {
    /// The mode that labels ask for, if they say.
    pub fn of(labels: Option<&Labels>) -> Result<Option<Self>, UnknownMode> {
        match labels
            .and_then(|labels| labels.get(label::DATAPLANE_MODE))
            .map(String::as_str)
        {
            None => Ok(None),
            Some("ambient") => Ok(Some(Self::Ambient)),
            Some("sidecar") => Ok(Some(Self::Sidecar)),
            Some("none") => Ok(Some(Self::None)),
            Some(value) => Err(UnknownMode { value: value.into() }),
        }
    }
}

/// The mode asked for a pod: its own label, where the mesh allows it, else its namespace's, else none.
pub fn mode(pod: &PodFacts<'_>, pod_overrides: bool) -> Result<Mode, UnknownMode> {
    let own = if pod_overrides {
        Mode::of(pod.labels)?
    } else {
        None
    };
    let inherited = Mode::of(pod.namespace_labels)?;
    Ok(own.or(inherited).unwrap_or(Mode::None))
}

/// Whether a pod's plane answers its DNS queries: as its own label says, where the mesh allows it, else its namespace's,
/// else the mesh.
pub fn captures_dns(pod: &PodFacts<'_>, pod_overrides: bool, mesh: bool) -> Result<bool, UnknownCapture> {
    let said = |labels: Option<&Labels>| match labels
        .and_then(|labels| labels.get(label::DNS_CAPTURE))
        .map(String::as_str)
    {
        None => Ok(None),
        Some("enabled") => Ok(Some(true)),
        Some("disabled") => Ok(Some(false)),
        Some(value) => Err(UnknownCapture { value: value.into() }),
    };
    let own = if pod_overrides { said(pod.labels)? } else { None };
    let inherited = said(pod.namespace_labels)?;
    Ok(own.or(inherited).unwrap_or(mesh))
}

/// Whether a pod is to be created with a sidecar.
pub fn wants_sidecar(pod: &PodFacts<'_>, pod_overrides: bool) -> Result<bool, UnknownMode> {
    Ok(never_enrolled(pod).is_none() && !is_of_gateway(pod) && mode(pod, pod_overrides)? == Mode::Sidecar)
}

/// Which plane a pod gets. An unknown mode is refused: the pod keeps what it had, or is held up.
pub fn decide(pod: &PodFacts<'_>, pod_overrides: bool) -> Result<Decision, UnknownMode> {
    let mode = mode(pod, pod_overrides)?;
    if is_of_gateway(pod) {
        return Ok(Decision {
            plane: Plane::None,
            remark: None,
        });
    }
    if let Some(reason) = never_enrolled(pod) {
        let remark = (mode != Mode::None).then(|| reason.into());
        return Ok(Decision {
            plane: Plane::None,
            remark,
        });
    }
    Ok(match mode {
        Mode::None => Decision {
            plane: Plane::None,
            remark: None,
        },
        Mode::Ambient => Decision {
            plane: Plane::Node,
            remark: None,
        },
        Mode::Sidecar if pod.has_sidecar => Decision {
            plane: Plane::Sidecar,
            remark: None,
        },
        Mode::Sidecar => Decision {
            plane: Plane::Node,
            remark: Some("created without a sidecar: served by the node proxy until it is restarted".into()),
        },
    })
}

/// Whether a pod is a Gateway's own: a proxy that takes part in the mesh by itself, and whose traffic another
/// plane must not take.
fn is_of_gateway(pod: &PodFacts<'_>) -> bool {
    pod.labels
        .is_some_and(|labels| labels.contains_key(label::GATEWAY_NAME))
}

/// Why a pod is never enrolled, whatever its labels say.
fn never_enrolled(pod: &PodFacts<'_>) -> Option<&'static str> {
    if pod.host_network {
        return Some("pods in the host's network namespace are never enrolled");
    }
    if pod.namespace == MESH_NAMESPACE {
        return Some("the mesh's own pods are never enrolled");
    }
    let asked =
        |labels: Option<&Labels>| labels.is_some_and(|labels| labels.contains_key(label::DATAPLANE_MODE));
    if pod.namespace == "kube-system" && !asked(pod.namespace_labels) && !asked(pod.labels) {
        return Some("kube-system is not enrolled unless asked");
    }
    None
}
