//! Which waypoint serves what, whom it guards, and what is said where that cannot be.

use prost::Message;
use serde_json::{Value, json};
use trefoil_api::proto::istio::workload::{Address, Service as ServiceMessage, TunnelProtocol, address};
use trefoil_api::proto::trefoil::v1::Guard;

use super::*;
use crate::ObjectStatus;
use crate::facts::{Allowed, Gateway, GatewayClass, Labels, Listener, Namespace};
use crate::{Hindrance, Statement, StatusKind};

const SERVICE: &str = "shop/web.shop.svc.cluster.local";

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

pub(super) fn gateway(serves: &str) -> Gateway {
    Gateway {
        class: "trefoil-waypoint".into(),
        serves: Some(serves.into()),
        listeners: vec![Listener {
            name: "mesh".into(),
            port: 15008,
            protocol: "HBONE".into(),
            allowed: Allowed::Same,
        }],
        generation: 3,
        status: json!(null),
        ..Gateway::default()
    }
}

pub(super) fn service(name: &str, own: &[(&str, &str)]) -> Change {
    let service = Service {
        labels: labels(own),
        ports: vec![ServicePort {
            name: "http".into(),
            port: 80,
            target: Some(8080),
            ..ServicePort::default()
        }],
        ..Service::default()
    };
    Change::Service(key(name), Some(service))
}

fn slice(service: &str, address: &str, ready: bool) -> Change {
    let slice = Slice {
        service: service.into(),
        ports: vec![("http".into(), 8080)],
        endpoints: vec![Endpoint {
            addresses: vec![address.parse().expect("address")],
            ready,
            ..Endpoint::default()
        }],
    };
    Change::Slice(key(&format!("{service}-1")), Some(slice))
}

/// A waypoint with its own service, and a pod of it.
pub(super) fn waypoint(name: &str, serves: &str, address: &str, ready: bool) -> Vec<Change> {
    let own = [("gateway.networking.k8s.io/gateway-name", name)];
    let pod = Pod {
        labels: labels(&own),
        service_account: name.into(),
        ..pod(address)
    };
    vec![
        Change::Gateway(key(name), Some(gateway(serves))),
        service(name, &own),
        slice(name, address, ready),
        Change::Pod(key(&format!("{name}-1")), Some(pod)),
    ]
}

/// Service shop/web that uses waypoint w, and a pod behind it.
fn shop(mut more: Vec<Change>) -> Index {
    more.extend([
        service("web", &[("trefoil.dev/use-waypoint", "w")]),
        slice("web", "10.0.0.1", true),
        Change::Pod(key("web"), Some(pod("10.0.0.1"))),
        placed(Plane::Node, false),
    ]);
    index(more)
}

fn served(index: &Index, name: &str) -> ServiceMessage {
    let snapshot = index.snapshot();
    let encoded = snapshot.of(ResourceKind::Address).get(name).expect("served");
    match encoded.decode::<Address>().expect("decodes").r#type {
        Some(address::Type::Service(service)) => service,
        other => panic!("{other:?}"),
    }
}

fn guard(index: &Index, name: &str) -> Option<Guard> {
    let extensions = workload(index, name).extensions;
    let guard = extensions
        .into_iter()
        .find(|one| one.name == "trefoil.dev/guard")?;
    Some(Guard::decode(guard.config.expect("config").value.as_slice()).expect("decodes"))
}

#[test]
fn a_service_is_reached_through_its_waypoint_and_its_workloads_believe_it() {
    let index = shop(waypoint("w", "service", "10.0.0.9", true));
    let dialled = served(&index, SERVICE).waypoint.expect("served by a waypoint");
    assert_eq!(dialled.hbone_mtls_port, 15008);
    let guard = guard(&index, WEB).expect("guarded");
    assert_eq!(guard.identity, "spiffe://cluster.local/ns/shop/sa/w");
    assert_eq!(
        (guard.service.as_str(), guard.closed.as_str()),
        ("shop/w.shop.svc.cluster.local", "")
    );
    // Dialled by its own address it is not behind the waypoint: its guard hands over.
    assert_eq!(workload(&index, WEB).waypoint, None);
    let own = workload(&index, "Kubernetes//Pod/shop/w-1");
    assert_eq!(own.tunnel_protocol(), TunnelProtocol::Hbone);
    assert!(own.extensions.iter().all(|one| one.name != "trefoil.dev/guard"));
    assert_eq!(served(&index, "shop/w.shop.svc.cluster.local").waypoint, None);
    assert!(index.snapshot().is_reserved("shop", "w"));
    assert_eq!(index.findings().count(), 0);
}

#[test]
fn what_a_waypoint_is_for_decides_what_goes_through_it() {
    for (serves, of_service, of_workload) in [
        ("service", true, false),
        ("workload", false, true),
        ("all", true, true),
    ] {
        let mut changes = waypoint("w", serves, "10.0.0.9", true);
        changes.push(Change::Namespace(
            "shop".into(),
            Some(Namespace {
                labels: labels(&[("trefoil.dev/use-waypoint", "w")]),
            }),
        ));
        changes.extend([service("web", &[]), slice("web", "10.0.0.1", true)]);
        changes.push(Change::Pod(key("web"), Some(pod("10.0.0.1"))));
        let index = index(changes);
        assert_eq!(served(&index, SERVICE).waypoint.is_some(), of_service, "{serves}");
        assert_eq!(workload(&index, WEB).waypoint.is_some(), of_workload, "{serves}");
        assert!(guard(&index, WEB).is_some(), "{serves}");
    }
}

#[test]
fn an_unknown_waypoint_is_found_and_what_asks_for_http_stays_closed() {
    let reads = policy(json!({"rules": [{"to": [{"methods": ["GET"]}]}]}));
    let mut index = shop(vec![Change::Authorization(key("p"), Some(reads))]);
    assert_eq!(
        (served(&index, SERVICE).waypoint, guard(&index, WEB)),
        (None, None)
    );
    let findings: Vec<_> = index.findings().collect();
    assert!(
        findings
            .iter()
            .any(|one| one.starts_with("service shop/web: waypoint shop/w")),
        "{findings:?}"
    );
    let enforced = |index: &Index| -> Statement {
        let mut statements = index.reports().flat_map(|one| one.statements.clone());
        statements.find(|one| one.kind == "Enforced").expect("said")
    };
    assert!(!enforced(&index).holds && enforced(&index).message.contains("shop/web"));
    assert!(authorization(&index, "shop/p").expect("served").rules.is_empty());
    // A sidecar reads them, for as long as it is what serves the pod.
    for (plane, reads) in [(Plane::Sidecar, true), (Plane::Node, false)] {
        index.apply(placed(plane, false));
        index.flush();
        assert_eq!(enforced(&index).holds, reads, "{plane:?}");
    }
    for change in waypoint("w", "service", "10.0.0.9", true) {
        index.apply(change);
    }
    index.flush();
    assert!(enforced(&index).holds, "{:?}", enforced(&index));
    assert_eq!(index.findings().count(), 0);
    // Planes that do not read HTTP have the closed form still; the others have all of it.
    assert!(authorization(&index, "shop/p").expect("served").rules.is_empty());
    let snapshot = index.snapshot();
    let http = snapshot
        .of(ResourceKind::HttpAuthorization)
        .get("shop/p")
        .expect("served");
    assert_eq!(http.decode::<Authorization>().expect("decodes").rules.len(), 1);
}

#[test]
fn two_waypoints_over_one_pod_close_it_and_say_why() {
    let mut changes = waypoint("w", "service", "10.0.0.9", true);
    changes.extend(waypoint("x", "service", "10.0.0.8", true));
    changes.extend([
        service("api", &[("trefoil.dev/use-waypoint", "x")]),
        slice("api", "10.0.0.1", true),
    ]);
    let index = shop(changes);
    let closed = guard(&index, WEB).expect("guarded").closed;
    assert!(
        closed.contains("shop/w") && closed.contains("service shop/api"),
        "{closed}"
    );
    assert!(index.findings().any(|one| one.contains(&closed)));
    for name in ["web", "api"] {
        let said = bound(&index, name).expect("said");
        assert_eq!(
            (&said["status"], &said["reason"]),
            (&json!("False"), &json!("Contended"))
        );
        assert!(
            said["message"].as_str().expect("text").contains("shop/web"),
            "{said}"
        );
    }
}

/// What is to be said of a service's waypoint.
fn bound(index: &Index, name: &str) -> Option<Value> {
    let is = |one: &&ObjectStatus| one.kind == StatusKind::Service && one.key == key(name);
    let status = index.statuses().find(is)?;
    status.wanted["conditions"].get(0).cloned()
}

#[test]
fn a_service_says_whether_its_waypoint_serves_it_and_leaves_what_others_say() {
    let named = |conditions: Vec<Value>, own: &[(&str, &str)]| {
        let Change::Service(key, Some(facts)) = service("web", own) else {
            panic!("a service");
        };
        Change::Service(key, Some(Service { conditions, ..facts }))
    };
    let other = json!({"type": "example.com/Known", "status": "True", "reason": "R", "message": ""});
    let mut index = index(vec![named(
        vec![other.clone()],
        &[("trefoil.dev/use-waypoint", "w")],
    )]);
    assert_eq!(bound(&index, "web").expect("said")["reason"], "Pending");
    for change in waypoint("w", "service", "10.0.0.9", true) {
        index.apply(change);
    }
    index.flush();
    let status = |index: &Index| {
        let mut all = index.statuses().filter(|one| one.kind == StatusKind::Service);
        all.find(|one| one.key == key("web")).expect("said").clone()
    };
    assert_eq!(status(&index).wanted["conditions"][0]["reason"], "Bound");
    assert!(!status(&index).is_written());
    let written = status(&index).merged(&status(&index).current, "2026-01-01T00:00:00Z");
    assert_eq!(written["conditions"][0], other);
    let conditions: Vec<Value> = written["conditions"].as_array().expect("conditions").clone();
    index.apply(named(conditions.clone(), &[("trefoil.dev/use-waypoint", "w")]));
    index.flush();
    assert!(status(&index).is_written());
    // It names none any more: ours goes, and nothing else.
    index.apply(named(conditions, &[]));
    index.flush();
    let cleared = status(&index);
    assert!(!cleared.is_written());
    assert_eq!(cleared.merged(&cleared.current, "")["conditions"], json!([other]));
    index.apply(named(vec![other], &[]));
    index.flush();
    assert!(bound(&index, "web").is_none());
}

#[test]
fn a_waypoint_is_awaited_until_it_was_ready_once_and_then_kept() {
    let programmed = |index: &Index| {
        let status = index
            .statuses()
            .find(|one| one.kind == StatusKind::Gateway)
            .expect("said")
            .clone();
        let conditions = status.wanted["conditions"]
            .as_array()
            .expect("conditions")
            .clone();
        (conditions[1]["status"] == "True", status)
    };
    let mut index = shop(waypoint("w", "service", "10.0.0.9", false));
    assert!(!programmed(&index).0);
    assert_eq!(served(&index, SERVICE).waypoint, None);
    index.apply(slice("w", "10.0.0.9", true));
    index.flush();
    let (ready, status) = programmed(&index);
    assert!(ready && served(&index, SERVICE).waypoint.is_some());
    assert!(!status.is_written());
    // What was written is what it is remembered by.
    let written = status.merged(&json!(null), "2026-01-01T00:00:00Z");
    index.apply(Change::Gateway(
        key("w"),
        Some(Gateway {
            status: written,
            ..gateway("service")
        }),
    ));
    index.apply(slice("w", "10.0.0.9", false));
    index.flush();
    assert!(programmed(&index).0 && programmed(&index).1.is_written());
    assert!(
        guard(&index, WEB).is_some(),
        "what it guards is not open while its pods are away"
    );
}

#[test]
fn another_namespace_is_admitted_by_the_listener_alone() {
    let elsewhere = ObjectKey::new("other", "web");
    let used = Service {
        labels: labels(&[
            ("trefoil.dev/use-waypoint", "w"),
            ("trefoil.dev/use-waypoint-namespace", "shop"),
        ]),
        ..Service::default()
    };
    let mut changes = waypoint("w", "service", "10.0.0.9", true);
    changes.push(Change::Service(elsewhere, Some(used)));
    let mut index = index(changes);
    let name = "other/web.other.svc.cluster.local";
    assert_eq!(served(&index, name).waypoint, None);
    assert!(
        index
            .findings()
            .any(|one| one.contains("does not admit namespace other"))
    );
    let mut open = gateway("service");
    open.listeners[0].allowed = Allowed::All;
    index.apply(Change::Gateway(key("w"), Some(open)));
    index.flush();
    assert!(served(&index, name).waypoint.is_some());
    assert_eq!(index.findings().count(), 0);
}

#[test]
fn a_policy_for_a_waypoint_is_named_by_all_that_uses_it() {
    let target = json!([{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "w"}]);
    let for_waypoint = policy(json!({"targetRefs": target, "action": "Deny", "rules": [{}]}));
    let mut changes = waypoint("w", "service", "10.0.0.9", true);
    changes.push(Change::Pod(key("other"), Some(pod("10.0.0.2"))));
    changes.push(Change::Authorization(key("p"), Some(for_waypoint)));
    let mut index = shop(changes);
    let names = |index: &Index, name: &str| workload(index, name).authorization_policies;
    assert_eq!(names(&index, WEB), vec!["shop/p"]);
    assert!(names(&index, "Kubernetes//Pod/shop/other").is_empty());
    // Without the waypoint its policy holds for those that name it.
    index.apply(Change::Gateway(key("w"), None));
    index.flush();
    assert_eq!(names(&index, WEB), vec!["shop/p"]);
}

#[test]
fn statuses_keep_what_others_say() {
    let status = crate::ObjectStatus {
        kind: StatusKind::HttpRoute,
        key: key("r"),
        wanted: json!({"parents": [{
            "parentRef": {"name": "web"}, "controllerName": "trefoil.dev/gateway-controller",
            "conditions": [{"type": "Accepted", "status": "True", "reason": "Accepted"}],
        }]}),
        current: json!(null),
    };
    let theirs =
        json!({"parentRef": {"name": "edge"}, "controllerName": "example.org/edge", "conditions": []});
    let live = json!({"parents": [theirs]});
    let merged = status.merged(&live, "2026-01-01T00:00:00Z");
    assert_eq!(merged["parents"][0], theirs);
    assert_eq!(
        merged["parents"][1]["conditions"][0]["lastTransitionTime"],
        "2026-01-01T00:00:00Z"
    );
    // What is said still keeps its time; what is not said any more goes.
    assert_eq!(status.merged(&merged, "2026-02-02T00:00:00Z"), merged);
    let silent = crate::ObjectStatus {
        wanted: json!({"parents": []}),
        ..status
    };
    assert_eq!(silent.merged(&merged, "2026-02-02T00:00:00Z"), live);
}

#[test]
fn waypoints_that_are_understood_are_to_have_pods() {
    let class = |controller: &str| {
        let class = GatewayClass {
            controller: controller.into(),
            ..GatewayClass::default()
        };
        Change::GatewayClass("trefoil-waypoint".into(), Some(class))
    };
    let said = |serves: &str, replicas: Option<&str>| Gateway {
        uid: "u".into(),
        replicas: replicas.map(Into::into),
        ..gateway(serves)
    };
    let mut index = index(vec![
        Change::Gateway(key("w"), Some(said("all", None))),
        Change::Gateway(key("x"), Some(said("service", Some("2")))),
        Change::Gateway(key("y"), Some(said("service", Some("many")))),
        Change::Gateway(key("z"), Some(said("odd", None))),
    ]);
    let deployables = |index: &Index| -> Vec<(String, Option<u32>, bool)> {
        let all = index.deployables();
        all.map(|one| (one.key.name, one.replicas, one.classed)).collect()
    };
    let wanted = |classed| {
        [("w", None), ("x", Some(2)), ("y", None)]
            .map(|(name, replicas)| (name.to_owned(), replicas, classed))
    };
    assert_eq!(deployables(&index), wanted(false));
    let accepted = |name: &str| {
        let mut all = index.statuses().filter(|one| one.kind == StatusKind::Gateway);
        let status = all.find(|one| one.key == key(name)).expect("a status");
        status.wanted["conditions"][0]["message"].to_string()
    };
    assert_eq!(accepted("x"), "\"understood whole\"");
    assert!(
        accepted("y").contains("is not a number of pods"),
        "{}",
        accepted("y")
    );
    index.apply(class("example.org/edge"));
    index.flush();
    assert_eq!(deployables(&index), wanted(false));
    index.apply(class("trefoil.dev/gateway-controller"));
    index.flush();
    assert_eq!(deployables(&index), wanted(true));
}

#[test]
fn what_hinders_a_waypoint_is_said_until_nothing_does_or_its_pods_are_ready() {
    let programmed = |index: &Index| {
        let status = index.statuses().find(|one| one.kind == StatusKind::Gateway);
        let condition = status.expect("a status").wanted["conditions"][1].clone();
        ["reason", "message"].map(|field| condition[field].as_str().unwrap_or_default().to_owned())
    };
    let hindered =
        |why: Option<&str>| Change::Hindered(key("w"), why.map(|why| Hindrance::Objects(why.into())));
    let mut index = index(vec![
        Change::Gateway(key("w"), Some(gateway("service"))),
        hindered(Some("its name is taken")),
    ]);
    assert_eq!(programmed(&index), ["NoResources", "its name is taken"]);
    index.apply(hindered(None));
    index.flush();
    assert_eq!(programmed(&index)[0], "Pending");
    index.apply(hindered(Some("the API server is away")));
    waypoint("w", "service", "10.0.0.9", true)
        .into_iter()
        .for_each(|change| index.apply(change));
    index.flush();
    assert_eq!(programmed(&index)[0], "Programmed");
}

#[test]
fn parameters_that_are_not_understood_are_said_and_change_nothing_of_what_there_is() {
    let conditions = |index: &Index| {
        let status = index.statuses().find(|one| one.kind == StatusKind::Gateway);
        let wanted = status.expect("a status").wanted.clone();
        [0, 1].map(|number| {
            let condition = &wanted["conditions"][number];
            ["status", "reason"].map(|field| condition[field].as_str().unwrap_or_default().to_owned())
        })
    };
    let refused = Hindrance::Parameters("parameter replica is not known".into());
    let mut index = index(waypoint("w", "service", "10.0.0.9", true));
    index.apply(Change::Hindered(key("w"), Some(refused)));
    index.flush();
    assert_eq!(
        conditions(&index),
        [["False", "InvalidParameters"], ["True", "Programmed"]]
    );
    index.apply(Change::Hindered(key("w"), None));
    index.flush();
    assert_eq!(conditions(&index), [["True", "Accepted"], ["True", "Programmed"]]);
}
