use super::*;
use trefoil_dataplane_state::state::fixtures::{guarded, known_workload, serving, workload};

const DOOR: &str = "shop/door.shop.svc.cluster.local";

fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account).expect("an identity")
}

fn verified(account: &str) -> Peer {
    Peer::Verified(identity(account))
}

fn forwarded(client: Option<&str>, by: &str) -> Peer {
    Peer::Forwarded {
        identity: client.map(identity),
        by: identity(by),
    }
}

#[test]
fn a_claim_is_heard_only_of_a_proven_peer_that_is_believed() {
    let client = || Some(Claim::Client(identity("web")));
    let cases = [
        (verified("door"), None, true, Ok((verified("door"), false))),
        (
            verified("door"),
            client(),
            true,
            Ok((forwarded(Some("web"), "door"), false)),
        ),
        (
            verified("door"),
            Some(Claim::Nobody),
            true,
            Ok((forwarded(None, "door"), false)),
        ),
        (
            verified("door"),
            Some(Claim::Unreadable),
            true,
            Err(Unidentified::Claim),
        ),
        (verified("door"), client(), false, Ok((verified("door"), true))),
        (
            verified("door"),
            Some(Claim::Nobody),
            false,
            Ok((verified("door"), true)),
        ),
        (
            verified("door"),
            Some(Claim::Unreadable),
            false,
            Ok((verified("door"), true)),
        ),
        (
            Peer::Unauthenticated,
            client(),
            true,
            Ok((Peer::Unauthenticated, true)),
        ),
        (
            Peer::SameNode(identity("door")),
            client(),
            true,
            Ok((Peer::SameNode(identity("door")), true)),
        ),
        // One who was believed speaks for itself next time.
        (
            forwarded(Some("web"), "door"),
            client(),
            true,
            Ok((forwarded(Some("web"), "door"), true)),
        ),
    ];
    for (tls, claim, believed, expected) in cases {
        let what = format!("{tls:?} claims {claim:?}, believed: {believed}");
        let heard = tls.heard(claim, believed);
        assert_eq!(
            heard.map(|heard| (heard.peer, heard.stripped)),
            expected,
            "{what}"
        );
    }
}

#[test]
fn a_workload_believes_its_guard_and_nobody_else() {
    let cart = known_workload(&guarded(workload("cart", [10, 0, 0, 1]), "door"));
    let guard = cart.guard.as_ref();
    assert!(is_guard(&verified("door"), guard));
    for other in [
        verified("gate"),
        verified("cart"),
        Peer::SameNode(identity("door")),
        forwarded(Some("door"), "gate"),
        forwarded(Some("web"), "door"),
        Peer::Unauthenticated,
    ] {
        assert!(!is_guard(&other, guard), "{other:?}");
    }
    assert!(!is_guard(&verified("door"), None));
    assert!(!is_guard(&verified("door"), Some(&Guard::Closed("two".into()))));
}

#[test]
fn a_waypoint_believes_a_workload_that_it_guards_for_that_workload_alone() {
    let ours = known_workload(&serving(workload("door", [10, 0, 0, 9]), DOOR, 15008, 15008));
    let other = known_workload(&serving(
        workload("gate", [10, 0, 0, 8]),
        "shop/gate.shop.svc.cluster.local",
        15008,
        15008,
    ));
    let cart = known_workload(&guarded(workload("cart", [10, 0, 0, 1]), "door"));
    let books = known_workload(&guarded(workload("books", [10, 0, 0, 2]), "door"));
    let open = known_workload(&workload("cart", [10, 0, 0, 1]));
    let mut closed = cart.clone();
    closed.guard = Some(Guard::Closed("two".into()));
    let mut same_account = ours.clone();
    same_account.services = other.services.clone();
    let believes = |account, address: u8, destination: &Workload, waypoint: &Workload| {
        let source = [10, 0, 0, address].into();
        hands_over(&verified(account), source, destination, waypoint)
    };
    assert!(believes("cart", 1, &cart, &ours));
    assert!(!believes("cart", 2, &cart, &ours), "from another address");
    assert!(!believes("cart", 1, &books, &ours), "for another workload");
    assert!(
        !believes("cart", 2, &books, &ours),
        "for another, from its address"
    );
    assert!(!believes("web", 1, &cart, &ours), "another identity");
    assert!(!believes("door", 1, &cart, &ours), "the waypoint's own identity");
    assert!(!believes("cart", 1, &open, &ours), "without guard");
    assert!(!believes("cart", 1, &closed, &ours), "with a closed guard");
    assert!(!believes("cart", 1, &cart, &other), "at another waypoint");
    assert!(
        !believes("cart", 1, &cart, &same_account),
        "at another of its account"
    );
    for unproven in [
        Peer::Unauthenticated,
        Peer::SameNode(identity("cart")),
        forwarded(Some("cart"), "cart"),
    ] {
        assert!(
            !hands_over(&unproven, [10, 0, 0, 1].into(), &cart, &ours),
            "{unproven:?}"
        );
    }
}
