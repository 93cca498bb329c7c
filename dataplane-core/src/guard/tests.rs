use super::*;
use crate::hbone::Claim;
use trefoil_dataplane_state::state::fixtures::{guarded, known_workload, workload};

fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account).expect("an identity")
}

fn forwarded(claim: Claim, by: &str) -> Peer {
    let heard = Peer::Verified(identity(by)).heard(Some(claim), true);
    heard.expect("readable").peer
}

#[test]
fn what_a_workloads_plane_does_with_what_reaches_it() {
    let open = known_workload(&workload("cart", [10, 0, 0, 1]));
    let guarded = known_workload(&guarded(workload("cart", [10, 0, 0, 1]), "door"));
    let mut closed = guarded.clone();
    closed.guard = Some(Guard::Closed("two".into()));
    let (door, web) = (identity("door"), identity("web"));
    let over = Course::HandOver {
        identity: &door,
        service: "shop/door.shop.svc.cluster.local",
    };
    let cases = [
        // From its guard, whoever the client is.
        (
            &guarded,
            forwarded(Claim::Client(web.clone()), "door"),
            Course::Decide,
        ),
        (&guarded, forwarded(Claim::Nobody, "door"), Course::Decide),
        // From anybody else, and from the guard itself, for itself.
        (&guarded, Peer::Verified(web.clone()), over),
        (&guarded, Peer::Verified(door.clone()), over),
        (&guarded, Peer::SameNode(web.clone()), over),
        (&guarded, Peer::Unauthenticated, over),
        // Believed once, of a guard that it is no more.
        (&guarded, forwarded(Claim::Client(web.clone()), "gate"), over),
        // No guard, or one that is closed: policy's affair.
        (&open, Peer::Verified(web.clone()), Course::Decide),
        (&open, Peer::Unauthenticated, Course::Decide),
        (&closed, Peer::Verified(web), Course::Decide),
    ];
    for (server, peer, expected) in cases {
        assert_eq!(course(server, &peer), expected, "{peer:?} at {:?}", server.guard);
    }
}
