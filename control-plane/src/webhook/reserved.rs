//! What pods may not bring along: the uid of sidecars, whose traffic is not redirected, and a sidecar that is
//! not the mesh's. Pure. Of a container whose image names the uid, the pod object does not tell.

#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{Container, Pod};
use serde_json::Value;
use trefoil_api::names::{SIDECAR_CONTAINER, uid};

use super::inject::{self, Config};

/// What the API server fills in of a container by itself.
const FILLED_IN: [&str; 3] = [
    "imagePullPolicy",
    "terminationMessagePath",
    "terminationMessagePolicy",
];
/// Where it mounts the account's token.
const ACCOUNT_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Why a pod is refused, if it is.
pub(super) fn check(pod: &Pod, config: &Config<'_>) -> Result<(), String> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let of_pod = spec.security_context.as_ref().and_then(|one| one.run_as_user);
    if of_pod == Some(i64::from(uid::SIDECAR)) {
        return Err(reserved("spec.securityContext.runAsUser"));
    }
    let init = spec.init_containers.iter().flatten();
    let lists = [
        ("initContainers", init.collect::<Vec<_>>()),
        ("containers", spec.containers.iter().collect()),
    ];
    for (list, containers) in lists {
        for (index, container) in containers.into_iter().enumerate() {
            let field = format!("spec.{list}[{index}]");
            if container.name == SIDECAR_CONTAINER {
                if list != "initContainers" || !is_ours(container, config) {
                    return Err(format!(
                        "{field}: {SIDECAR_CONTAINER} is the name of the mesh's own sidecar, and this is not it: take it out, the mesh adds its own where the mode label asks for one"
                    ));
                }
            } else if user(container) == Some(i64::from(uid::SIDECAR)) {
                return Err(reserved(&format!("{field}.securityContext.runAsUser")));
            }
        }
    }
    Ok(())
}

fn reserved(field: &str) -> String {
    format!(
        "{field}: {} is reserved for sidecars, whose traffic is not redirected: choose another",
        uid::SIDECAR
    )
}

fn user(container: &Container) -> Option<i64> {
    container.security_context.as_ref()?.run_as_user
}

/// Whether it is what is injected, but for what the API server adds.
fn is_ours(container: &Container, config: &Config<'_>) -> bool {
    let Ok(Value::Object(theirs)) = serde_json::to_value(container) else {
        return false;
    };
    let ours = inject::container(config);
    let known = |name: &String| ours.get(name).is_some() || FILLED_IN.contains(&name.as_str());
    theirs.keys().all(known)
        && ours.as_object().is_some_and(|ours| {
            ours.iter().all(|(name, ours)| match theirs.get(name) {
                Some(theirs) if name == "volumeMounts" => same_mounts(ours, theirs),
                // Of no consequence to anybody else, and rewritten by the API server: 0.5 is 500m.
                Some(_) if name == "resources" => true,
                Some(theirs) => contains(theirs, ours),
                None => false,
            })
        })
}

/// The mounts, and the account's token at most.
fn same_mounts(ours: &Value, theirs: &Value) -> bool {
    let list = |mounts: &Value| mounts.as_array().cloned().unwrap_or_default();
    let added = |mount: &&Value| mount["mountPath"] != ACCOUNT_FOLDER;
    let theirs = list(theirs);
    let theirs: Vec<&Value> = theirs.iter().filter(added).collect();
    let ours = list(ours);
    ours.len() == theirs.len()
        && ours
            .iter()
            .zip(theirs)
            .all(|(ours, theirs)| contains(theirs, ours))
}

/// Whether all of a value is in another, which may say more in its objects: defaults are filled in there.
fn contains(theirs: &Value, ours: &Value) -> bool {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => ours
            .iter()
            .all(|(name, ours)| theirs.get(name).is_some_and(|theirs| contains(theirs, ours))),
        (Value::Array(theirs), Value::Array(ours)) => {
            theirs.len() == ours.len()
                && theirs
                    .iter()
                    .zip(ours)
                    .all(|(theirs, ours)| contains(theirs, ours))
        }
        _ => theirs == ours,
    }
}
