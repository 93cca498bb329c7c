//! What pods have in common that a plane of one workload runs in: how it is told who it is, where it finds its
//! token and the roots, and that it may do nothing else. Pure.

use serde_json::{Value, json};
use trefoil_api::names::{ROOT_CONFIG_MAP, ROOT_KEY, TOKEN_AUDIENCE, port};

/// Where the token is mounted.
const TOKEN_FOLDER: &str = "/var/run/secrets/trefoil";
/// Where the root is mounted.
const ROOT_FOLDER: &str = "/var/run/secrets/trefoil-ca";
/// The admin socket's folder.
const RUN_FOLDER: &str = "/run/trefoil";
/// Where the last configuration that was good is remembered: it outlives the container, not the pod.
const STATE_FOLDER: &str = "/var/lib/trefoil";

/// The arguments of a plane.
pub(crate) fn arguments(trust_domain: &str) -> Vec<String> {
    vec![
        "run".into(),
        "--pod=$(POD_NAME)".into(),
        "--namespace=$(POD_NAMESPACE)".into(),
        "--service-account=$(POD_SERVICE_ACCOUNT)".into(),
        "--pod-uid=$(POD_UID)".into(),
        "--node=$(NODE_NAME)".into(),
        format!(
            "--control-plane=https://trefoil-control-plane.trefoil-system.svc:{}",
            port::CONTROL_PLANE
        ),
        format!("--token={TOKEN_FOLDER}/token"),
        format!("--root-cert={ROOT_FOLDER}/{ROOT_KEY}"),
        format!("--admin-socket={RUN_FOLDER}/admin.sock"),
        format!("--state-dir={STATE_FOLDER}"),
        format!("--trust-domain={trust_domain}"),
    ]
}

/// What the arguments refer to.
pub(crate) fn environment() -> Value {
    let field =
        |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!([
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_UID", "metadata.uid"),
        field("POD_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("NODE_NAME", "spec.nodeName"),
    ])
}

/// The ports for people and for kubelet.
pub(crate) fn ports() -> [Value; 2] {
    [
        json!({"name": "trefoil-metrics", "containerPort": port::METRICS, "protocol": "TCP"}),
        json!({"name": "trefoil-ready", "containerPort": port::READINESS, "protocol": "TCP"}),
    ]
}

/// Whether it is ready; `period` in seconds.
pub(crate) fn probe(threshold: u32, period: u32) -> Value {
    json!({
        "httpGet": {"path": "/healthz/ready", "port": port::READINESS},
        "periodSeconds": period,
        "timeoutSeconds": 3,
        "failureThreshold": threshold,
    })
}

/// A user without any privilege.
pub(crate) fn security(user: u32) -> Value {
    json!({
        "runAsUser": user,
        "runAsGroup": user,
        "runAsNonRoot": true,
        "allowPrivilegeEscalation": false,
        "privileged": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// Where the volumes are.
pub(crate) fn mounts() -> Value {
    json!([
        {"name": "trefoil-token", "mountPath": TOKEN_FOLDER, "readOnly": true},
        {"name": "trefoil-root", "mountPath": ROOT_FOLDER, "readOnly": true},
        {"name": "trefoil-run", "mountPath": RUN_FOLDER},
        {"name": "trefoil-state", "mountPath": STATE_FOLDER},
    ])
}

/// The volumes.
pub(crate) fn volumes() -> [Value; 4] {
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
