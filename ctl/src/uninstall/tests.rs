use serde_json::{Value, json};

use super::Objects;

fn object(namespace: &str, name: &str, more: Value) -> Value {
    let mut object = json!({ "metadata": { "name": name, "namespace": namespace } });
    json_patch::merge(&mut object, &more);
    object
}

fn webhook(policy: &str, group: &str, resource: &str) -> Value {
    json!({ "webhooks": [{
        "failurePolicy": policy, "rules": [{ "apiGroups": [group], "resources": [resource] }],
        "clientConfig": { "service": { "namespace": "trefoil-system", "name": "c" } },
    }] })
}

/// An object, whether it hinders, and the command that removes it: none if it is not a trace of the mesh.
type Case = (&'static str, Value, Option<(bool, &'static str)>);

fn cases() -> Vec<Case> {
    [admission(), pods(), hindering(), harmless()].concat()
}

fn admission() -> Vec<Case> {
    let mutating = "mutatingwebhookconfigurations";
    let validating = "validatingwebhookconfigurations";
    let inject = "kubectl delete mutatingwebhookconfigurations trefoil-x";
    let elsewhere = json!({ "webhooks": [{ "clientConfig": { "service": { "namespace": "x" } } }] });
    let of_policies = webhook("Fail", "trefoil.dev", "*");
    let policy = object("", "trefoil-a", json!({}));
    let remove_policy = "kubectl delete validatingadmissionpolicies trefoil-a";
    let remove_validating = "kubectl delete validatingwebhookconfigurations v";
    let (fail, ignore) = (webhook("Fail", "", "pods"), webhook("Ignore", "", "pods"));
    vec![
        (mutating, object("", "trefoil-x", fail), Some((true, inject))),
        (mutating, object("", "trefoil-x", ignore), Some((false, inject))),
        (
            validating,
            object("", "v", of_policies),
            Some((false, remove_validating)),
        ),
        (mutating, object("", "other", elsewhere), None),
        ("validatingadmissionpolicies", policy, Some((true, remove_policy))),
    ]
}

fn pods() -> Vec<Case> {
    let pod = |plane: &str, phase: &str| {
        let annotations = json!({ "trefoil.dev/redirection": plane });
        object(
            "a",
            "p",
            json!({ "metadata": { "annotations": annotations }, "status": { "phase": phase } }),
        )
    };
    let sidecar = json!({ "spec": { "initContainers": [{ "name": "trefoil-sidecar" }] } });
    let restart = "kubectl -n a delete pod p";
    let annotation = "kubectl -n a annotate pod p trefoil.dev/redirection-";
    vec![
        ("pods", pod("node", "Running"), Some((true, restart))),
        ("pods", pod("none", "Running"), Some((false, annotation))),
        ("pods", pod("node", "Succeeded"), None),
        ("pods", object("a", "p", sidecar), Some((true, restart))),
        ("pods", object("a", "p", json!({})), None),
    ]
}

fn hindering() -> Vec<Case> {
    let taint = |key: &str| json!({ "spec": { "taints": [{ "key": key }] } });
    let ours = taint("trefoil.dev/agent-not-ready");
    let untaint = "kubectl taint node n1 trefoil.dev/agent-not-ready-";
    let finalizer = json!({ "metadata": { "finalizers": ["trefoil.dev/x"] } });
    let unfinalize =
        "kubectl -n a patch peerauthentications x --type=merge -p '{\"metadata\":{\"finalizers\":null}}'";
    vec![
        ("nodes", object("", "n1", ours), Some((true, untaint))),
        ("nodes", object("", "n1", taint("example.com/x")), None),
        (
            "peerauthentications",
            object("a", "x", finalizer),
            Some((true, unfinalize)),
        ),
    ]
}

fn harmless() -> Vec<Case> {
    let definition = |name, group: &str| object("", name, json!({ "spec": { "group": group } }));
    let gateway = |class: &str| object("a", "w", json!({ "spec": { "gatewayClassName": class } }));
    let labelled = json!({ "metadata": { "labels": { "trefoil.dev/dataplane-mode": "ambient" } } });
    let harmless = |command| Some((false, command));
    let definitions = "customresourcedefinitions";
    vec![
        (
            definitions,
            definition("x", "trefoil.dev"),
            harmless("kubectl delete customresourcedefinitions x"),
        ),
        (definitions, definition("x", "example.com"), None),
        (
            "priorityclasses",
            object("", "trefoil-a", json!({})),
            harmless("kubectl delete priorityclasses trefoil-a"),
        ),
        (
            "configmaps",
            object("a", "trefoil-ca-root", json!({})),
            harmless("kubectl -n a delete configmap trefoil-ca-root"),
        ),
        ("configmaps", object("a", "other", json!({})), None),
        (
            "namespaces",
            object("", "a", labelled),
            harmless("kubectl label namespace a trefoil.dev/dataplane-mode-"),
        ),
        (
            "gateways",
            gateway("trefoil-waypoint"),
            harmless("kubectl -n a delete gateway w"),
        ),
        ("gateways", gateway("other"), None),
    ]
}

#[test]
fn every_trace_is_found_and_named_with_what_removes_it() {
    for (plural, object, expected) in cases() {
        let left = Objects::holding(vec![(plural, object.clone())]).left();
        match expected {
            None => assert!(left.is_empty(), "{plural} {object}: {left:?}"),
            Some((hinders, remove)) => {
                assert_eq!(left.len(), 1, "{plural} {object}: {left:?}");
                assert_eq!(
                    (left[0].hinders, left[0].remove.as_str()),
                    (hinders, remove),
                    "{object}"
                );
            }
        }
    }
}

#[test]
fn a_pod_that_waits_for_what_is_gone_is_found_and_one_that_waited_is_not() {
    let sandbox = json!({
        "reason": "FailedCreatePodSandBox", "message": "plugin type=\"trefoil-cni\" failed",
        "involvedObject": { "name": "p" }, "source": { "host": "n1" },
    });
    for (phase, found) in [("Pending", 1), ("Running", 0)] {
        let pod = object("a", "p", json!({ "status": { "phase": phase } }));
        let event = object("a", "e", sandbox.clone());
        let left = Objects::holding(vec![("pods", pod), ("events", event)]).left();
        assert_eq!(left.len(), found, "{phase}: {left:?}");
        assert!(
            left.iter()
                .all(|one| one.hinders && one.remove.starts_with("on n1:")),
            "{left:?}"
        );
    }
}

#[test]
fn what_hinders_pods_comes_first() {
    let all = cases().into_iter().map(|(plural, object, _)| (plural, object));
    let left = Objects::holding(all.collect()).left();
    let first_harmless = left.iter().position(|one| !one.hinders).unwrap();
    assert!(left[first_harmless..].iter().all(|one| !one.hinders), "{left:?}");
    assert!(first_harmless > 0);
}

#[test]
fn a_mesh_that_is_there_is_said_to_be() {
    let control_plane = object("trefoil-system", "trefoil-control-plane", json!({}));
    assert!(Objects::holding(vec![("deployments", control_plane)]).is_installed());
    let elsewhere = object("shop", "trefoil-control-plane", json!({}));
    assert!(!Objects::holding(vec![("deployments", elsewhere)]).is_installed());
}
