//! What a ConfigMap says of the waypoint whose Gateway names it: the settings of sidecars, under the names of their
//! annotations, and how many pods there are. What cannot be understood refuses it whole. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use trefoil_api::exclusions::AnnotationError;
use trefoil_control_plane_index::ObjectKey;

use crate::webhook::overrides::Overrides;

#[cfg(test)]
mod tests;

/// What annotations of a sidecar have before the names that are keys here.
const ANNOTATIONS: &str = "trefoil.dev/sidecar-";
const OF_THE_CONTAINER: [&str; 6] = [
    "cpu-request",
    "cpu-limit",
    "memory-request",
    "memory-limit",
    "log-level",
    "concurrency",
];
const REPLICAS: &str = "replicas";
const LEAST: &str = "autoscaling-min";
const MOST: &str = "autoscaling-max";
const CPU: &str = "autoscaling-cpu-percent";
/// More pods than one waypoint is made for.
const MOST_PODS: u32 = 1_000;
/// Of what its pods ask for, how much of the CPU an autoscaler has them use, unless it is said.
const USUAL_CPU: u32 = 80;

/// Of a waypoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters {
    /// Of its container.
    pub(super) container: Overrides,
    /// How many pods.
    pub(super) replicas: Option<u32>,
    /// By whose means that is decided otherwise.
    pub(super) autoscaling: Option<Autoscaling>,
}

/// An autoscaler's bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Autoscaling {
    pub(super) least: u32,
    pub(super) most: u32,
    /// Percent of what the pods ask for.
    pub(super) cpu: u32,
}

/// Why parameters are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not what the Gateway may name.
    #[error(
        "spec.infrastructure.parametersRef: {0} is none of the kinds that are read: name a ConfigMap of this namespace"
    )]
    Kind(String),
    /// It is not there.
    #[error("spec.infrastructure.parametersRef: there is no ConfigMap {0}")]
    Absent(ObjectKey),
    /// A key that means nothing.
    #[error("parameter {0} is not known")]
    Unknown(String),
    /// A value that means nothing.
    #[error("parameter {key}: {value:?} is not {expected}")]
    Value {
        /// Of which.
        key: &'static str,
        /// What it says.
        value: String,
        /// What it may say.
        expected: &'static str,
    },
    /// Bounds of nothing, or none between them.
    #[error("parameters {LEAST} and {CPU} need {MOST}, which is not below {LEAST}")]
    Bounds,
    /// Two say how many pods there are.
    #[error("an autoscaler decides how many pods there are: remove {0}, or parameter {MOST}")]
    Contradiction(&'static str),
}

impl Parameters {
    /// Of a waypoint whose Gateway says `replicas` itself.
    pub fn read(map: &ConfigMap, replicas: Option<u32>) -> Result<Self, Refused> {
        let data = map.data.clone().unwrap_or_default();
        let known = |key: &&String| {
            let counts = [REPLICAS, LEAST, MOST, CPU];
            counts.contains(&key.as_str()) || OF_THE_CONTAINER.contains(&key.as_str())
        };
        let keys = data
            .keys()
            .chain(map.binary_data.iter().flatten().map(|(key, _)| key));
        if let Some(key) = keys.into_iter().find(|key| !known(key)) {
            return Err(Refused::Unknown(key.clone()));
        }
        let annotations: BTreeMap<String, String> = data
            .iter()
            .map(|(key, value)| (format!("{ANNOTATIONS}{key}"), value.clone()))
            .collect();
        let number = |key, expected, least| number(&data, key, expected, least);
        let said = number(REPLICAS, "a number of pods (0 to 1000)", 0)?;
        let autoscaling = Autoscaling::of(
            number(LEAST, "a number of pods (1 to 1000)", 1)?,
            number(MOST, "a number of pods (1 to 1000)", 1)?,
            number(CPU, "percent of the CPU request (1 to 1000)", 1)?,
        )?;
        match autoscaling {
            Some(_) if replicas.is_some() => {
                return Err(Refused::Contradiction(
                    "annotation trefoil.dev/replicas of the Gateway",
                ));
            }
            Some(_) if said.is_some() => return Err(Refused::Contradiction("parameter replicas")),
            _ => {}
        }
        Ok(Self {
            container: Overrides::read(Some(&annotations))?,
            replicas: said,
            autoscaling,
        })
    }
}

impl Autoscaling {
    fn of(least: Option<u32>, most: Option<u32>, cpu: Option<u32>) -> Result<Option<Self>, Refused> {
        match (least, most, cpu) {
            (None, None, None) => Ok(None),
            (least, Some(most), cpu) if least.unwrap_or(1) <= most => Ok(Some(Self {
                least: least.unwrap_or(1),
                most,
                cpu: cpu.unwrap_or(USUAL_CPU),
            })),
            _ => Err(Refused::Bounds),
        }
    }
}

fn number(
    data: &BTreeMap<String, String>,
    key: &'static str,
    expected: &'static str,
    least: u32,
) -> Result<Option<u32>, Refused> {
    let Some(value) = data.get(key) else {
        return Ok(None);
    };
    let number = value.trim().parse().ok();
    let sane = number.filter(|number| (least..=MOST_PODS).contains(number));
    sane.map(Some).ok_or_else(|| Refused::Value {
        key,
        value: value.clone(),
        expected,
    })
}

impl From<AnnotationError> for Refused {
    fn from(error: AnnotationError) -> Self {
        Self::Value {
            key: error
                .annotation
                .strip_prefix(ANNOTATIONS)
                .unwrap_or(error.annotation),
            value: error.value,
            expected: error.expected,
        }
    }
}
