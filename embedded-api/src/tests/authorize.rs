use serde_json::json;

use crate::authorize::*;
use crate::kinds;

fn account(namespace: &str, name: &str, node: Option<&str>) -> Subject {
    Subject::ServiceAccount(Account {
        namespace: namespace.into(),
        name: name.into(),
        uid: "u".into(),
        pod: None,
        node: node.map(Into::into),
    })
}

fn objects<'a>(
    verb: &'a str,
    resource: &str,
    namespace: Option<&'a str>,
    part: Option<&'a str>,
) -> Action<'a> {
    let kind = kinds::ALL.iter().find(|kind| kind.resource == resource).unwrap();
    Action::Objects {
        verb,
        kind,
        namespace,
        subresource: part,
    }
}

fn allowed(subject: &Subject, action: Action<'_>) -> bool {
    authorize(subject, action) == Verdict::Allow
}

#[test]
fn anybody_may_ask_for_health_and_nothing_else() {
    assert!(allowed(&Subject::Anonymous, Action::Public));
    assert!(!allowed(&Subject::Anonymous, Action::Discover));
    assert!(!allowed(&Subject::Anonymous, Action::AskAboutSelf));
    assert!(!allowed(&Subject::Anonymous, Action::ReviewToken));
    for kind in kinds::ALL {
        for verb in [
            "get",
            "list",
            "watch",
            "create",
            "update",
            "patch",
            "delete",
            "deletecollection",
        ] {
            let action = Action::Objects {
                verb,
                kind,
                namespace: None,
                subresource: None,
            };
            assert!(!allowed(&Subject::Anonymous, action));
            assert!(allowed(&Subject::Admin, action));
        }
    }
}

#[test]
fn accounts_without_a_role_may_ask_about_themselves_only() {
    let strangers = [
        account("shop", "web", Some("n1")),
        account("trefoil-system", "trefoil-node", Some("n1")),
        account("trefoil-system", "default", None),
        account("shop", "trefoil-control-plane", None),
        account("shop", "trefoil-cni", Some("n1")),
    ];
    for subject in &strangers {
        assert!(allowed(subject, Action::AskAboutSelf));
        assert!(allowed(subject, Action::Discover));
        assert!(!allowed(subject, Action::ReviewToken));
        for kind in kinds::ALL {
            for verb in ["get", "list", "watch", "create", "update", "patch", "delete"] {
                let action = Action::Objects {
                    verb,
                    kind,
                    namespace: Some("shop"),
                    subresource: None,
                };
                assert_eq!(
                    authorize(subject, action),
                    Verdict::Deny,
                    "{subject:?} {verb} {}",
                    kind.kind
                );
            }
        }
    }
}

#[test]
fn the_control_plane_reads_all_but_secrets_and_writes_what_it_keeps() {
    let subject = account("trefoil-system", "trefoil-control-plane", None);
    let own = Some("trefoil-system");
    let table = [
        ("watch", "pods", None, None, true),
        ("list", "gateways.gateway.networking.k8s.io", None, None, true),
        ("create", "pods", Some("shop"), None, false),
        ("delete", "pods", Some("shop"), None, false),
        ("patch", "pods", Some("shop"), Some("status"), false),
        ("get", "secrets", own, None, true),
        ("create", "secrets", own, None, true),
        ("get", "secrets", Some("shop"), None, false),
        ("list", "secrets", None, None, false),
        ("create", "configmaps", Some("shop"), None, true),
        ("patch", "configmaps", Some("shop"), None, true),
        ("delete", "configmaps", Some("shop"), None, false),
        ("update", "leases.coordination.k8s.io", own, None, true),
        ("update", "leases.coordination.k8s.io", Some("shop"), None, false),
        (
            "patch",
            "authorizationpolicies.trefoil.dev",
            Some("shop"),
            Some("status"),
            true,
        ),
        (
            "patch",
            "authorizationpolicies.trefoil.dev",
            Some("shop"),
            None,
            false,
        ),
        ("create", "events", Some("shop"), None, true),
        ("create", "serviceaccounts", Some("shop"), Some("token"), false),
    ];
    for (verb, resource, namespace, part, expected) in table {
        let action = objects(verb, resource, namespace, part);
        assert_eq!(
            allowed(&subject, action),
            expected,
            "{verb} {resource} {namespace:?} {part:?}"
        );
    }
    assert!(allowed(&subject, Action::ReviewToken));
}

#[test]
fn an_agent_reads_pods_and_writes_its_own_nodes() {
    let subject = account("trefoil-system", "trefoil-cni", Some("n1"));
    for resource in ["pods", "namespaces", "configmaps"] {
        assert!(allowed(&subject, objects("watch", resource, None, None)));
    }
    let on_node = Verdict::OnNode("n1".into());
    assert_eq!(
        authorize(&subject, objects("patch", "pods", Some("shop"), None)),
        on_node
    );
    assert_eq!(
        authorize(&subject, objects("patch", "pods", Some("shop"), Some("status"))),
        on_node
    );
    assert!(allowed(&subject, objects("create", "events", Some("shop"), None)));
    for action in [
        objects("get", "secrets", Some("trefoil-system"), None),
        objects("create", "pods", Some("shop"), None),
        objects("delete", "pods", Some("shop"), None),
        objects("patch", "namespaces", None, None),
        objects("create", "serviceaccounts", Some("shop"), Some("token")),
        Action::ReviewToken,
    ] {
        assert_eq!(authorize(&subject, action), Verdict::Deny, "{action:?}");
    }
    let homeless = account("trefoil-system", "trefoil-cni", None);
    assert_eq!(
        authorize(&homeless, objects("patch", "pods", Some("shop"), None)),
        Verdict::Deny
    );
}

#[test]
fn an_agents_change_is_annotations_and_status_of_its_own_node() {
    let pod = json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "n1" } });
    let mut annotated = pod.clone();
    annotated["metadata"]["annotations"] = json!({ "a": "b" });
    annotated["status"] = json!({ "phase": "Running" });
    assert!(within_node("n1", &pod, &annotated));
    assert!(!within_node("n2", &pod, &annotated));
    for pointer in [
        "/metadata/labels",
        "/spec/serviceAccountName",
        "/metadata/ownerReferences",
    ] {
        let mut other = pod.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        other.pointer_mut(parent).unwrap()[field] = json!({});
        assert!(!within_node("n1", &pod, &other), "{pointer}");
    }
}
