//! The sidecar of a pod, as a native sidecar: an init container that stays. Pure.

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch, PatchOperation};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use trefoil_api::names::{ROOT_CONFIG_MAP, ROOT_KEY, SIDECAR_CONTAINER, TOKEN_AUDIENCE, port, uid};

#[cfg(test)]
mod tests;

/// Where the token is mounted.
const TOKEN_FOLDER: &str = "/var/run/secrets/trefoil";
/// Where the root is mounted.
const ROOT_FOLDER: &str = "/var/run/secrets/trefoil-ca";
/// The admin socket's folder.
const RUN_FOLDER: &str = "/run/trefoil";

/// Where the last configuration that was good is remembered: it outlives the container, not the pod.
const STATE_FOLDER: &str = "/var/lib/trefoil";

/// What a sidecar is made by.
#[derive(Clone, Copy, Debug)]
pub struct Config<'a> {
    /// Its image.
    pub image: &'a str,
    /// The trust domain.
    pub trust_domain: &'a str,
    /// The pod's namespace: the object of an admission request may not say.
    pub namespace: &'a str,
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
        volumes()
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
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let probe = |threshold: u32, period: u32| {
        json!({
            "httpGet": {"path": "/healthz/ready", "port": port::READINESS},
            "periodSeconds": period,
            "timeoutSeconds": 3,
            "failureThreshold": threshold,
        })
    };
    json!({
        "name": SIDECAR_CONTAINER,
        "image": config.image,
        "restartPolicy": "Always",
        "args": [
            "run",
            "--pod=$(POD_NAME)",
            "--namespace=$(POD_NAMESPACE)",
            "--service-account=$(POD_SERVICE_ACCOUNT)",
            "--pod-uid=$(POD_UID)",
            "--node=$(NODE_NAME)",
            format!("--control-plane=https://trefoil-control-plane.trefoil-system.svc:{}", port::CONTROL_PLANE),
            format!("--token={TOKEN_FOLDER}/token"),
            format!("--root-cert={ROOT_FOLDER}/{ROOT_KEY}"),
            format!("--admin-socket={RUN_FOLDER}/admin.sock"),
            format!("--state-dir={STATE_FOLDER}"),
            format!("--trust-domain={}", config.trust_domain),
        ],
        "env": [
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_UID", "metadata.uid"),
            field("POD_SERVICE_ACCOUNT", "spec.serviceAccountName"),
            field("NODE_NAME", "spec.nodeName"),
        ],
        "ports": [
            {"name": "trefoil-metrics", "containerPort": port::METRICS, "protocol": "TCP"},
            {"name": "trefoil-ready", "containerPort": port::READINESS, "protocol": "TCP"},
        ],
        "startupProbe": probe(600, 1),
        "readinessProbe": probe(3, 5),
        "securityContext": {
            "runAsUser": uid::SIDECAR,
            "runAsGroup": uid::SIDECAR,
            "runAsNonRoot": true,
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": {"requests": {"cpu": "20m", "memory": "32Mi"}},
        "volumeMounts": [
            {"name": "trefoil-token", "mountPath": TOKEN_FOLDER, "readOnly": true},
            {"name": "trefoil-root", "mountPath": ROOT_FOLDER, "readOnly": true},
            {"name": "trefoil-run", "mountPath": RUN_FOLDER},
            {"name": "trefoil-state", "mountPath": STATE_FOLDER},
        ],
    })
}

fn volumes() -> [Value; 4] {
    [
        json!({
            "name": "trefoil-token",
            "projected": {"defaultMode": 0o444, "sources": [
                {"serviceAccountToken": {"path": "token", "audience": TOKEN_AUDIENCE, "expirationSeconds": 43200}},
            ]},
        }),
        json!({"name": "trefoil-root", "configMap": {"name": ROOT_CONFIG_MAP}}),
        json!({"name": "trefoil-run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}),
        json!({"name": "trefoil-state", "emptyDir": {"sizeLimit": "256Mi"}}),
    ]
}
