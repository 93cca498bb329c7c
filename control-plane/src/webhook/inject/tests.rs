use std::sync::LazyLock;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Config, has_sidecar, inject};
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

fn injected(pod: &Value) -> Pod {
    let typed: Pod = serde_json::from_value(pod.clone()).expect("pod");
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &inject(&typed, &config())).expect("applies");
    serde_json::from_value(patched).expect("still a pod")
}

#[test]
fn the_sidecar_comes_first_and_nothing_else_changes() {
    for pod in [
        json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "app", "image": "i"}]}}),
        json!({"metadata": {"generateName": "a-"}, "spec": {
            "containers": [{"name": "app", "image": "i"}],
            "initContainers": [{"name": "migrate", "image": "m"}],
            "volumes": [{"name": "data", "emptyDir": {}}],
        }}),
    ] {
        let before: Pod = serde_json::from_value(pod.clone()).expect("pod");
        assert!(!has_sidecar(&before));
        let after = injected(&pod);
        assert!(has_sidecar(&after));
        let (before, after) = (before.spec.expect("spec"), after.spec.expect("spec"));
        assert_eq!(after.containers, before.containers);
        let init = after.init_containers.expect("init containers");
        assert_eq!(init[0].name, "trefoil-sidecar");
        assert_eq!(init[1..], before.init_containers.unwrap_or_default());
        let volumes = after.volumes.expect("volumes");
        let known = before.volumes.unwrap_or_default();
        assert_eq!(volumes[..known.len()], known);
        assert_eq!(volumes.len(), known.len() + 4);
    }
}

#[test]
fn the_sidecar_is_native_and_has_no_privilege() {
    let pod = injected(&json!({"spec": {"containers": []}}));
    let sidecar = pod
        .spec
        .expect("spec")
        .init_containers
        .expect("init containers")
        .remove(0);
    assert_eq!(sidecar.restart_policy.as_deref(), Some("Always"));
    assert_eq!(sidecar.image.as_deref(), Some("registry/sidecar:1"));
    let security = sidecar.security_context.expect("security context");
    assert_eq!(security.run_as_user, Some(15008));
    assert_eq!(security.allow_privilege_escalation, Some(false));
    assert_eq!(
        security.capabilities.expect("capabilities").drop,
        Some(vec!["ALL".into()])
    );
    for probe in [sidecar.startup_probe, sidecar.readiness_probe] {
        let get = probe.expect("probe").http_get.expect("httpGet");
        assert_eq!(serde_json::to_value(get.port).expect("port"), json!(15021));
    }
}

#[test]
fn what_is_remembered_outlives_the_container() {
    let pod = injected(&json!({"spec": {"containers": []}}));
    let spec = pod.spec.expect("spec");
    let sidecar = &spec.init_containers.expect("init containers")[0];
    let mounts = sidecar.volume_mounts.as_ref().expect("mounts");
    let state = mounts.iter().find(|mount| mount.name == "trefoil-state");
    let state = state.expect("mounted");
    assert_ne!(state.read_only, Some(true));
    let flag = format!("--state-dir={}", state.mount_path);
    assert!(sidecar.args.as_ref().expect("args").contains(&flag));
    let volumes = spec.volumes.expect("volumes");
    let volume = volumes.iter().find(|volume| volume.name == "trefoil-state");
    assert!(volume.expect("a volume").empty_dir.is_some());
}

#[test]
fn what_a_pod_says_of_its_sidecar_is_the_sidecar_that_is_recognised() {
    let annotations = [
        ("trefoil.dev/sidecar-memory-limit", "1Gi"),
        ("trefoil.dev/sidecar-concurrency", "3"),
    ];
    let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let overrides = Overrides::read(Some(&annotations.into())).expect("understood");
    let own = Config {
        overrides: &overrides,
        ..config()
    };
    let mut pod = json!({"spec": {"containers": []}});
    let typed: Pod = serde_json::from_value(pod.clone()).expect("pod");
    json_patch::patch(&mut pod, &inject(&typed, &own)).expect("applies");
    let sidecar = &pod["spec"]["initContainers"][0];
    assert_eq!(sidecar["resources"]["limits"]["memory"], "1Gi");
    let arguments = sidecar["args"].as_array().expect("arguments");
    assert!(arguments.contains(&json!("--worker-threads=3")));
    let pod: Pod = serde_json::from_value(pod).expect("still a pod");
    super::super::reserved::check(&pod, &own).expect("ours");
    // With other arguments than the annotations give it, it is not.
    assert!(super::super::reserved::check(&pod, &config()).is_err());
    // The API server writes quantities its own way.
    let mut canonical = pod;
    let spec = canonical.spec.as_mut().expect("spec");
    let sidecar = &mut spec.init_containers.as_mut().expect("init containers")[0];
    let limits = sidecar.resources.as_mut().and_then(|all| all.limits.as_mut());
    limits.expect("limits").insert(
        "memory".into(),
        k8s_openapi::apimachinery::pkg::api::resource::Quantity("1024Mi".into()),
    );
    super::super::reserved::check(&canonical, &own).expect("still ours");
}
