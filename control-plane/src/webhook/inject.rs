//! The sidecar of a pod, as a native sidecar: an init container that stays. Pure.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use trefoil_api::names::{SIDECAR_CONTAINER, uid};

use super::overrides::Overrides;
use crate::plane_pod;

#[cfg(test)]
mod tests;

/// What a sidecar is made by.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// Its image.
    pub image: &'a str,
    /// The trust domain.
    pub trust_domain: &'a str,
    /// The pod's namespace: the object of an admission request may not say.
    pub namespace: &'a str,
    /// What the pod says of it.
    pub overrides: &'a Overrides,
}

/// Whether a pod has a sidecar already.
#[must_use]
pub fn has_sidecar(pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let init = spec
        .and_then(|spec| spec.init_containers.as_ref())
        .into_iter()
        .flatten();
    let containers = spec.into_iter().flat_map(|spec| &spec.containers);
    init.chain(containers).any(|one| one.name == SIDECAR_CONTAINER)
}

/// The patch that gives a pod its sidecar, first of its init containers, so that those after it are in the
/// mesh already.
#[must_use]
pub fn inject(pod: &Pod, config: &Config<'_>) -> Patch {
    let spec = pod.spec.as_ref();
    let mut operations = Vec::new();
    let init = spec.and_then(|spec| spec.init_containers.as_ref());
    operations.push(match init {
        Some(_) => add(&["spec", "initContainers", "0"], container(config)),
        None => add(&["spec", "initContainers"], json!([container(config)])),
    });
    let known = spec.and_then(|spec| spec.volumes.as_ref());
    if known.is_none() {
        operations.push(add(&["spec", "volumes"], json!([])));
    }
    operations.extend(
        plane_pod::volumes()
            .into_iter()
            .map(|volume| add(&["spec", "volumes", "-"], volume)),
    );
    Patch(operations)
}

fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation {
        path: PointerBuf::from_tokens(path.iter().copied()),
        value,
    })
}

/// The sidecar.
pub(super) fn container(config: &Config<'_>) -> Value {
    let mut arguments = plane_pod::arguments(config.trust_domain);
    arguments.extend(config.overrides.arguments());
    json!({
        "name": SIDECAR_CONTAINER,
        "image": config.image,
        "restartPolicy": "Always",
        "args": arguments,
        "env": plane_pod::environment(),
        "ports": plane_pod::ports(),
        "startupProbe": plane_pod::probe(600, 1),
        "readinessProbe": plane_pod::probe(3, 5),
        "securityContext": plane_pod::security(uid::SIDECAR),
        "resources": config.overrides.resources("20m", "32Mi"),
        "volumeMounts": plane_pod::mounts(),
    })
}
