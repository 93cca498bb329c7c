use serde_json::{Value, json};

use super::{Answer, ProxyStatus, Standing, shown};
use crate::planes::{Plane, Role};

fn answer(of: &str, clients: Value) -> Answer {
    let connections = serde_json::from_value(json!({ "clients": clients })).unwrap();
    Answer {
        of: of.into(),
        said: Ok(("0.1.0".into(), connections)),
    }
}

/// A client and how it stands with addresses: seconds behind, and a refusal.
fn client(pod: &str, behind: Option<u64>, refusal: Option<&str>) -> Value {
    json!({
        "client": format!("x {pod}"), "peer": "10.0.0.1:1", "role": "sidecar", "pod": pod, "node": "n1",
        "version": "0.1.0", "connected_seconds": 100,
        "types": [
            { "kind": "authorization", "type_url": "a", "served": 2, "held": 2, "pending": 0,
              "acknowledged_seconds": 90, "behind_seconds": null, "refusal": null },
            { "kind": "address", "type_url": "b", "served": 9, "held": 8, "pending": 1,
              "acknowledged_seconds": 90, "behind_seconds": behind, "refusal": refusal },
        ],
    })
}

fn sidecar(pod: &str) -> Plane {
    Plane::named(Role::Sidecar, pod)
}

#[test]
fn a_plane_stands_as_its_worst_kind_and_a_little_behind_is_well() {
    for (behind, refusal, standing, well) in [
        (None, None, Standing::Current, true),
        (Some(2), None, Standing::Behind, true),
        (Some(10), None, Standing::Behind, false),
        (Some(0), Some("bad policy"), Standing::Refused, false),
    ] {
        let answers = vec![answer("c1", json!([client("a/one", behind, refusal)]))];
        let status = ProxyStatus::of(answers, &[sidecar("a/one")]);
        let [policies, addresses] = status.proxies[0].kinds.as_slice() else {
            panic!("{status:?}")
        };
        assert_eq!(policies.standing, Standing::Current);
        assert_eq!(addresses.standing, standing, "{behind:?} {refusal:?}");
        assert_eq!(status.well(), well, "{behind:?} {refusal:?}");
        let text = shown::render(&status, true);
        assert_eq!(text.contains("bad policy"), refusal.is_some(), "{text}");
        assert_eq!(
            text.contains("behind for"),
            standing == Standing::Behind,
            "{text}"
        );
    }
}

#[test]
fn a_plane_is_a_client_of_whichever_replica_and_away_if_of_none() {
    let answers = vec![
        answer("c1", json!([client("a/one", None, None)])),
        answer("c2", json!([client("a/two", None, None)])),
    ];
    let planes = [
        sidecar("a/one"),
        sidecar("a/two"),
        sidecar("a/three"),
        Plane::named(Role::Agent, "agent"),
        Plane::named(Role::NodeProxy, "node"),
    ];
    let status = ProxyStatus::of(answers, &planes);
    let of: Vec<_> = status
        .proxies
        .iter()
        .map(|proxy| (&*proxy.proxy, &*proxy.control_plane))
        .collect();
    assert_eq!(of, [("a/one", "c1"), ("a/two", "c2")]);
    let away: Vec<_> = status.away.iter().map(|away| &*away.proxy).collect();
    assert_eq!(away, ["a/three", "trefoil-system/node"]);
    assert!(!status.well());
    assert_eq!(shown::render(&status, false).matches("away").count(), 2);
}

#[test]
fn a_replica_that_does_not_answer_is_said_and_is_not_well() {
    let silent = Answer {
        of: "c2".into(),
        said: Err(anyhow::anyhow!("the control plane of c2 does not answer")),
    };
    let answers = vec![answer("c1", json!([client("a/one", None, None)])), silent];
    let status = ProxyStatus::of(answers, &[sidecar("a/one")]);
    assert!(!status.well());
    assert!(shown::render(&status, false).contains("the control plane of c2 does not answer"));
}
