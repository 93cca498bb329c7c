use std::sync::LazyLock;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Config, check};
use crate::webhook::inject;
use crate::webhook::overrides::Overrides;

static OVERRIDES: LazyLock<Overrides> = LazyLock::new(Overrides::default);
fn config() -> Config<'static> {
    Config {
        image: "registry/sidecar:1",
        trust_domain: "cluster.local",
        namespace: "shop",
        overrides: &OVERRIDES,
    }
}

fn checked(spec: Value) -> Result<(), String> {
    let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("pod");
    check(&pod, &config())
}

/// What a pod's spec is after injection and with what the API server fills in.
fn injected() -> Value {
    let mut pod = json!({"spec": {"containers": [{"name": "app"}]}});
    let typed: Pod = serde_json::from_value(pod.clone()).expect("pod");
    json_patch::patch(&mut pod, &inject::inject(&typed, &config())).expect("applies");
    let sidecar = &mut pod["spec"]["initContainers"][0];
    sidecar["imagePullPolicy"] = "IfNotPresent".into();
    sidecar["terminationMessagePath"] = "/dev/termination-log".into();
    sidecar["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] = "v1".into();
    sidecar["startupProbe"]["successThreshold"] = 1.into();
    let account = json!({"name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true});
    if let Some(mounts) = sidecar["volumeMounts"].as_array_mut() {
        mounts.push(account);
    }
    pod["spec"].take()
}

#[test]
fn the_uid_of_sidecars_is_refused_wherever_it_is_asked_for() {
    let user = json!({"runAsUser": 15008});
    let cases = [
        (
            "spec.securityContext.runAsUser",
            json!({"securityContext": user, "containers": []}),
        ),
        (
            "spec.containers[1].securityContext.runAsUser",
            json!({"containers": [{"name": "a"}, {"name": "b", "securityContext": user}]}),
        ),
        (
            "spec.initContainers[0].securityContext.runAsUser",
            json!({"initContainers": [{"name": "a", "securityContext": user}], "containers": []}),
        ),
    ];
    for (field, spec) in cases {
        let refusal = checked(spec).expect_err(field);
        assert!(refusal.starts_with(&format!("{field}: 15008 ")), "{refusal}");
    }
    let other = json!({"runAsUser": 1000});
    let spec = json!({"securityContext": other, "containers": [{"name": "a", "securityContext": other}]});
    assert_eq!(checked(spec), Ok(()));
}

#[test]
fn the_meshs_own_sidecar_passes_and_no_other() {
    assert_eq!(checked(injected()), Ok(()));
    for (name, value) in [
        ("image", json!("other:1")),
        ("args", json!(["run"])),
        ("command", json!(["sh"])),
        ("lifecycle", json!({"postStart": {"exec": {"command": ["sh"]}}})),
        ("restartPolicy", Value::Null),
        ("securityContext", json!({"runAsUser": 15008})),
        ("volumeMounts", json!([{"name": "mine", "mountPath": "/"}])),
    ] {
        let mut spec = injected();
        spec["initContainers"][0][name] = value;
        let refusal = checked(spec).expect_err(name);
        assert!(
            refusal.starts_with("spec.initContainers[0]: trefoil-sidecar"),
            "{refusal}"
        );
    }
    let refusal = checked(json!({"containers": [{"name": "trefoil-sidecar"}]})).expect_err("refused");
    assert!(
        refusal.starts_with("spec.containers[0]: trefoil-sidecar"),
        "{refusal}"
    );
    let mut outside = injected();
    outside["containers"] = outside["initContainers"].take();
    assert!(checked(outside).is_err(), "only an init container starts first");
}
