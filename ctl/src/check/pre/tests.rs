use serde_json::{Value, json};
use trefoil_local::machine::Facts;

use super::Verdict::{self, Bad, Good, Odd, Unknown};
use super::{Looked, cluster, machine, nodes, render, rights};
use crate::uninstall::Objects;

fn node(name: &str, info: Value, ready: Value) -> (&'static str, Value) {
    let conditions = json!([{ "type": "Ready", "status": ready[0], "message": ready[1] }]);
    let mut full = json!({
        "operatingSystem": "linux", "architecture": "amd64", "kernelVersion": "6.1.0-18",
        "kubeletVersion": "v1.33.1", "containerRuntimeVersion": "containerd://2.0.0",
    });
    json_patch::merge(&mut full, &info);
    let status = json!({ "nodeInfo": full, "conditions": conditions });
    ("nodes", json!({ "metadata": { "name": name }, "status": status }))
}

fn verdict_of(looked: &[Looked], at: &str) -> Option<Verdict> {
    looked
        .iter()
        .filter(|one| one.at.starts_with(at))
        .map(|one| one.verdict)
        .max()
}

#[test]
fn nodes_are_judged_by_what_they_say_of_themselves() {
    let well = json!(["True", ""]);
    for (info, ready, at, expected) in [
        (json!({}), &well, "kernel of", Good),
        (json!({ "kernelVersion": "4.19.0" }), &well, "kernel of", Bad),
        (json!({ "kernelVersion": "strange" }), &well, "kernel of", Unknown),
        (json!({ "architecture": "arm64" }), &well, "architecture", Bad),
        (
            json!({ "operatingSystem": "windows" }),
            &well,
            "operating system",
            Odd,
        ),
        (json!({ "kubeletVersion": "v1.28.9" }), &well, "kubelet", Bad),
        (
            json!({ "containerRuntimeVersion": "cri-o://1.30" }),
            &well,
            "container runtime",
            Good,
        ),
        (
            json!({ "containerRuntimeVersion": "docker://20" }),
            &well,
            "container runtime",
            Odd,
        ),
        (
            json!({}),
            &json!(["False", "cni config uninitialized"]),
            "CNI",
            Bad,
        ),
        (json!({}), &json!(["False", "disk"]), "CNI", Unknown),
        (json!({}), &well, "kernel features", Unknown),
    ] {
        let looked = nodes::judged(&Objects::holding(vec![node("n1", info.clone(), ready.clone())]));
        assert_eq!(
            verdict_of(&looked, at),
            Some(expected),
            "{info} {ready}: {looked:?}"
        );
    }
}

#[test]
fn nodes_that_are_alike_are_said_together() {
    let well = json!(["True", ""]);
    let all = (1..=3).map(|number| node(&format!("n{number}"), json!({}), well.clone()));
    let looked = nodes::judged(&Objects::holding(all.collect()));
    let kernels: Vec<_> = looked
        .iter()
        .filter(|one| one.at.starts_with("kernel of"))
        .collect();
    assert_eq!(kernels.len(), 1, "{looked:?}");
    assert_eq!(kernels[0].at, "kernel of 3 nodes such as n1");
}

fn object(kind: &'static str, name: &str, more: Value) -> (&'static str, Value) {
    let mut object = json!({ "metadata": { "name": name } });
    json_patch::merge(&mut object, &more);
    (kind, object)
}

/// An object, what it is about, and the verdict.
type Met = ((&'static str, Value), &'static str, Verdict);

fn met() -> Vec<Met> {
    [clusters(), admission()].concat()
}

fn clusters() -> Vec<Met> {
    let gateway = |version: &str| {
        let annotations = json!({ "gateway.networking.k8s.io/bundle-version": version });
        let metadata = json!({ "metadata": { "annotations": annotations } });
        object(
            "customresourcedefinitions",
            "gateways.gateway.networking.k8s.io",
            metadata,
        )
    };
    let cilium = |exclusive: &str| {
        let data = json!({ "data": { "cni-exclusive": exclusive } });
        object("configmaps", "cilium-config", data)
    };
    let both = json!({ "trefoil.dev/dataplane-mode": "ambient", "istio-injection": "enabled" });
    let both = json!({ "metadata": { "labels": both } });
    let istio = json!({ "spec": { "group": "networking.istio.io" } });
    let taint = json!({ "spec": { "taints": [{ "key": "trefoil.dev/agent-not-ready" }] } });
    vec![
        (gateway("v1.2.0"), "Gateway API", Good),
        (gateway("v1.0.0"), "Gateway API", Odd),
        (object("nodes", "n", json!({})), "Gateway API", Odd),
        (
            object("daemonsets", "calico-node", json!({})),
            "network plugin",
            Good,
        ),
        (object("daemonsets", "mine", json!({})), "network plugin", Unknown),
        (cilium("true"), "network plugin", Bad),
        (cilium("false"), "network plugin", Unknown),
        (
            object("customresourcedefinitions", "x", istio),
            "other meshes",
            Odd,
        ),
        (object("namespaces", "shop", both), "other meshes", Bad),
        (object("nodes", "n", taint), "earlier Trefoil", Bad),
    ]
}

fn admission() -> Vec<Met> {
    let level = |level: &str| {
        let labels = json!({ "pod-security.kubernetes.io/enforce": level });
        object(
            "namespaces",
            "trefoil-system",
            json!({ "metadata": { "labels": labels } }),
        )
    };
    let webhook = |selector: Value| {
        let webhook = json!({ "name": "w", "rules": [{ "apiGroups": [""], "resources": ["pods"] }], "namespaceSelector": selector });
        object(
            "validatingwebhookconfigurations",
            "policies",
            json!({ "webhooks": [webhook] }),
        )
    };
    let named =
        json!({ "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["trefoil-system"] });
    let excluding = json!({ "matchExpressions": [named] });
    let opting_in = json!({ "matchLabels": { "checked": "yes" } });
    let quota = json!({ "metadata": { "namespace": "trefoil-system" }, "spec": { "hard": { "pods": "1" } } });
    let about_pods = json!({ "spec": { "matchConstraints": { "resourceRules": [{ "apiGroups": [""], "resources": ["pods"] }] } } });
    vec![
        (level("privileged"), "Pod Security", Good),
        (level("restricted"), "Pod Security", Bad),
        (
            object("namespaces", "trefoil-system", json!({})),
            "Pod Security",
            Unknown,
        ),
        (object("resourcequotas", "q", quota), "quotas", Odd),
        (webhook(json!({})), "admission", Odd),
        (
            object("validatingadmissionpolicies", "p", about_pods),
            "admission",
            Unknown,
        ),
        (webhook(excluding), "none", Good),
        (webhook(opting_in), "none", Good),
    ]
}

#[test]
fn what_the_mesh_would_meet_is_judged() {
    for (object, at, expected) in met() {
        let looked = cluster::judged(&Objects::holding(vec![object.clone()]));
        if at == "none" {
            assert_eq!(verdict_of(&looked, "admission"), None, "{object:?}: {looked:?}");
            continue;
        }
        assert_eq!(verdict_of(&looked, at), Some(expected), "{object:?}: {looked:?}");
    }
}

#[test]
fn what_is_not_for_us_to_see_is_not_said_to_be_missing() {
    let objects = Objects::holding(Vec::new());
    let looked =
        cluster::judged(&objects.without(&["customresourcedefinitions", "namespaces", "daemonsets"]));
    assert!(looked.iter().all(|one| one.verdict == Unknown), "{looked:?}");
}

#[test]
fn every_verdict_that_asks_for_something_says_what() {
    for (object, ..) in met() {
        let looked = cluster::judged(&Objects::holding(vec![object]));
        let asking = looked.iter().filter(|one| matches!(one.verdict, Odd | Bad));
        assert!(asking.into_iter().all(|one| one.remedy.is_some()), "{looked:?}");
        assert!(render(&looked).contains(&looked[0].found));
    }
}

#[test]
fn rights_that_are_lacking_are_named() {
    let pods = ("apps", "daemonsets");
    let giving = ("*", "*");
    for (outcome, lacking) in [
        (
            vec![(pods, None, "create", true), (giving, None, "*", true)],
            None,
        ),
        (
            vec![
                (pods, Some("trefoil-system"), "create", false),
                (giving, None, "*", true),
            ],
            Some("create daemonsets.apps in trefoil-system"),
        ),
        (
            vec![
                (pods, None, "create", true),
                (giving, None, "escalate", false),
                (giving, None, "*", false),
            ],
            Some("give rights"),
        ),
        (
            vec![
                (pods, None, "create", true),
                (giving, None, "escalate", true),
                (giving, None, "*", false),
            ],
            None,
        ),
    ] {
        let told = rights::told(&outcome);
        match lacking {
            None => assert_eq!(told.verdict, Good, "{told:?}"),
            Some(text) => assert!(told.verdict == Bad && told.found.contains(text), "{told:?}"),
        }
    }
}

#[test]
fn a_machine_is_judged_by_what_it_has() {
    let well = Facts {
        root: true,
        kernel: "6.1.0".into(),
        nftables: Ok(()),
        tracking: true,
        missing: Vec::new(),
    };
    let worst = |facts: &Facts| machine::judged(facts).iter().map(|one| one.verdict).max();
    assert_eq!(worst(&well), Some(Good));
    for (broken, expected) in [
        (
            Facts {
                root: false,
                ..well.clone()
            },
            Bad,
        ),
        (
            Facts {
                kernel: "5.1.0".into(),
                ..well.clone()
            },
            Bad,
        ),
        (
            Facts {
                nftables: Err("no".into()),
                ..well.clone()
            },
            Bad,
        ),
        (
            Facts {
                tracking: false,
                ..well.clone()
            },
            Bad,
        ),
        (
            Facts {
                missing: vec!["trefoil-node"],
                ..well.clone()
            },
            Bad,
        ),
    ] {
        assert_eq!(worst(&broken), Some(expected), "{broken:?}");
    }
}

#[test]
fn versions_of_the_api_server() {
    assert_eq!(cluster::version("v1.33.4").verdict, Good);
    assert_eq!(cluster::version("v1.29.4+k3s1").verdict, Bad);
    assert_eq!(cluster::version("none").verdict, Unknown);
}
