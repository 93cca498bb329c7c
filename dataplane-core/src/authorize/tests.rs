use prost::Message;
use prost_types::Any;
use trefoil_api::Identity;
use trefoil_api::proto::envoy::service::discovery::v3::Resource;
use trefoil_api::proto::istio::security::{self, Authorization, string_match::MatchType};
use trefoil_api::proto::trefoil::v1 as extension;
use trefoil_api::proto::type_url;

use super::*;
use trefoil_dataplane_state::state::fixtures::{
    fenced, guarded, of_policies, of_workloads, policy, removal, workload,
};

fn store(policies: &[Authorization], named: &[&str]) -> Store {
    let store = Store::new();
    assert_eq!(store.apply(&of_policies(policies)), []);
    place(&store, named);
    store
}

fn place(store: &Store, named: &[&str]) {
    let mut cart = workload("cart", [10, 0, 0, 1]);
    cart.authorization_policies = named.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(store.apply(&of_workloads(&[cart])), []);
}

fn of(mut policy: Authorization, principal: &str) -> Authorization {
    let one = security::Match {
        principals: vec![security::StringMatch {
            match_type: Some(MatchType::Exact(principal.into())),
        }],
        ..security::Match::default()
    };
    let clause = security::Clause { matches: vec![one] };
    policy.rules = vec![security::Rule {
        clauses: vec![clause],
    }];
    policy
}

fn web() -> Peer {
    Peer::SameNode(Identity::new("cluster.local", "shop", "web").expect("an identity"))
}

fn ask(store: &Store, peer: &Peer) -> Result<Authorized, Denied> {
    let server = store.workload("Kubernetes//Pod/shop/cart").expect("held");
    let destination = "10.0.0.1:8080".parse().expect("an address");
    authorize(
        store,
        peer,
        &server,
        [10, 0, 0, 9].into(),
        destination,
        Asked::Bytes,
    )
}

const WEB: &str = "cluster.local/ns/shop/sa/web";

#[test]
fn nothing_is_decided_before_policies_are_known() {
    let store = Store::new();
    place(&store, &[]);
    assert_eq!(ask(&store, &web()), Err(Denied::NotSynced));
    store.apply(&of_policies(&[]));
    assert_eq!(ask(&store, &web()).expect("open").reason(), &Reason::NoPolicy);
}

#[test]
fn namespace_policies_apply_without_being_named_and_others_do_not() {
    use security::{Action, Scope};
    let namespace = of(policy("only-web", Scope::Namespace, Action::Allow), WEB);
    let store = store(std::slice::from_ref(&namespace), &[]);
    assert_eq!(
        ask(&store, &web()).expect("allowed").reason(),
        &Reason::Matched("shop/only-web".into())
    );
    let denied = ask(&store, &Peer::Unauthenticated).expect_err("plaintext");
    assert_eq!(
        denied,
        Denied::Policy(Reason::NoneMatched(vec!["shop/only-web".into()]))
    );
    assert_eq!(denied.policy(), Some("shop/only-web"));
    let elsewhere = Authorization {
        namespace: "other".into(),
        ..policy("deny-all", Scope::Namespace, Action::Allow)
    };
    store.apply(&removal(type_url::AUTHORIZATION, &["shop/only-web"]));
    store.apply(&of_policies(&[elsewhere]));
    assert!(ask(&store, &Peer::Unauthenticated).is_ok());
}

#[test]
fn mesh_policies_apply_everywhere_and_selected_ones_where_named() {
    use security::{Action, Scope};
    let mesh = Authorization {
        namespace: "trefoil-system".into(),
        ..of(policy("no-web", Scope::Global, Action::Deny), WEB)
    };
    let selected = of(policy("selected", Scope::WorkloadSelector, Action::Deny), WEB);
    let only_selected = store(std::slice::from_ref(&selected), &[]);
    assert!(ask(&only_selected, &web()).is_ok(), "not named");
    place(&only_selected, &["shop/selected"]);
    assert_eq!(
        ask(&only_selected, &web()).expect_err("named").policy(),
        Some("shop/selected")
    );
    let with_mesh = store(&[mesh], &[]);
    assert_eq!(
        ask(&with_mesh, &web()).expect_err("mesh").policy(),
        Some("trefoil-system/no-web")
    );
}

#[test]
fn a_policy_that_is_named_but_not_known_closes() {
    let store = store(&[], &["shop/absent"]);
    let denied = ask(&store, &web()).expect_err("closed");
    assert_eq!(denied, Denied::Policy(Reason::Unknown("shop/absent".into())));
}

/// A policy that nobody can read.
fn unreadable(
    name: &str,
    value: Vec<u8>,
) -> trefoil_api::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse {
    let mut response = of_policies(&[]);
    response.resources = vec![Resource {
        name: name.into(),
        resource: Some(Any {
            type_url: type_url::AUTHORIZATION.into(),
            value,
        }),
        ..Resource::default()
    }];
    response
}

#[test]
fn a_refused_policy_closes_what_it_would_have_guarded_until_it_is_removed_or_good() {
    use security::{Action, Scope};
    let store = store(&[], &[]);
    assert_eq!(store.apply(&unreadable("other/broken", vec![0xff])).len(), 1);
    assert!(ask(&store, &web()).is_ok(), "another namespace's");
    store.apply(&unreadable("shop/broken", vec![0xff]));
    assert_eq!(
        ask(&store, &web()).expect_err("closed").policy(),
        Some("shop/broken")
    );
    store.apply(&of_policies(&[of(
        policy("broken", Scope::Namespace, Action::Allow),
        WEB,
    )]));
    assert!(ask(&store, &web()).is_ok(), "good now");
    store.apply(&unreadable("shop/broken", vec![0xff]));
    assert!(
        ask(&store, &web()).is_ok(),
        "the last good version stays in force"
    );
    store.apply(&unreadable("trefoil-system/broken", vec![0xff]));
    assert_eq!(
        ask(&store, &web()).expect_err("mesh-wide").policy(),
        Some("trefoil-system/broken")
    );
    store.apply(&removal(type_url::AUTHORIZATION, &["trefoil-system/broken"]));
    assert!(ask(&store, &web()).is_ok());
}

#[test]
fn a_selected_policy_that_was_refused_closes_only_those_it_selects() {
    use security::{Action, Scope};
    let store = store(&[], &[]);
    let mut bad = policy("bad", Scope::WorkloadSelector, Action::Allow);
    bad.action = 9;
    assert_eq!(store.apply(&of_policies(&[bad])).len(), 1);
    assert!(ask(&store, &web()).is_ok());
    place(&store, &["shop/bad"]);
    assert_eq!(
        ask(&store, &web()).expect_err("closed"),
        Denied::Policy(Reason::Unknown("shop/bad".into()))
    );
}

/// Its guard has decided; whoever was its guard once has not, and nobody passes one that is closed.
#[test]
fn whom_the_guard_forwards_it_has_decided_about() {
    use security::{Action, Scope};
    let deny = of(policy("no-web", Scope::Namespace, Action::Deny), WEB);
    let store = store(&[deny], &[]);
    let identity = |account| Identity::new("cluster.local", "shop", account).expect("an identity");
    let forwarded = |by| Peer::Forwarded {
        identity: Some(identity("web")),
        by: identity(by),
    };
    assert!(ask(&store, &forwarded("door")).is_err(), "without guard");
    let cart = guarded(workload("cart", [10, 0, 0, 1]), "door");
    assert_eq!(store.apply(&of_workloads(&[cart])), []);
    let allowed = ask(&store, &forwarded("door")).expect("enforced");
    assert_eq!(
        allowed.reason().to_string(),
        "enforced by its waypoint, spiffe://cluster.local/ns/shop/sa/door"
    );
    for other in [forwarded("gate"), web()] {
        assert!(ask(&store, &other).is_err(), "{other:?}");
    }
    let mut closed = guarded(workload("cart", [10, 0, 0, 1]), "door");
    let guard = extension::Guard {
        closed: "two services, two waypoints".into(),
        ..extension::Guard::default()
    };
    closed.extensions[0].config.as_mut().expect("a guard").value = guard.encode_to_vec();
    assert_eq!(store.apply(&of_workloads(&[closed])), []);
    for peer in [forwarded("door"), web(), Peer::Unauthenticated] {
        let denied = ask(&store, &peer).expect_err("closed");
        assert_eq!(denied.to_string(), "closed: two services, two waypoints");
    }
}

/// A server that lets group `web` in to a port; the client of [`ask`], as `client` says it.
fn behind_fence(port: u32, client: trefoil_api::proto::istio::workload::Workload) -> Store {
    let store = store(&[], &[]);
    let cart = fenced(workload("cart", [10, 0, 0, 1]), &[], Some(("web", port)));
    assert_eq!(store.apply(&of_workloads(&[cart, client])), []);
    store
}

#[test]
fn network_policies_let_in_by_group_and_application_port() {
    let in_group = || fenced(workload("web", [10, 0, 0, 9]), &["web"], None);
    let port_of_tunnels = behind_fence(15008, in_group());
    let denied = ask(&port_of_tunnels, &web()).expect_err("another port");
    assert_eq!(denied.policy(), Some("shop/fence"));
    assert_eq!(
        denied.to_string(),
        "NetworkPolicy shop/fence selects the pod and allows no connection from 10.0.0.9 to port 8080"
    );
    let store = behind_fence(8080, in_group());
    assert!(ask(&store, &web()).is_ok(), "in the group, at the port");
    assert!(
        ask(&port_of_tunnels, &Peer::Unauthenticated).is_ok(),
        "plaintext has passed the network plugin"
    );
    let stranger = behind_fence(8080, workload("web", [10, 0, 0, 9]));
    assert!(ask(&stranger, &web()).is_err(), "not in the group");
    let unknown = behind_fence(8080, fenced(workload("web", [10, 0, 0, 8]), &["web"], None));
    assert!(ask(&unknown, &web()).is_err(), "nobody known");
}

/// The pod that had the address before is not the one that dials.
#[test]
fn the_groups_of_a_reused_address_are_not_its_new_owners() {
    let before = fenced(workload("api", [10, 0, 0, 9]), &["web"], None);
    let store = behind_fence(8080, before);
    assert!(ask(&store, &web()).is_err());
}

/// The guard has decided about identities; NetworkPolicies see the client that it forwards.
#[test]
fn whom_the_guard_forwards_passes_network_policies_too() {
    let identity = |account: &str| Identity::new("cluster.local", "shop", account).expect("an identity");
    let forwarded = |client: Option<&str>| Peer::Forwarded {
        identity: client.map(identity),
        by: identity("door"),
    };
    let store = behind_fence(8080, fenced(workload("web", [10, 0, 0, 9]), &["web"], None));
    let cart = |port| {
        let guarded = guarded(workload("cart", [10, 0, 0, 1]), "door");
        of_workloads(&[fenced(guarded, &[], Some(("web", port)))])
    };
    assert_eq!(store.apply(&cart(8080)), []);
    assert!(ask(&store, &forwarded(Some("web"))).is_ok());
    assert!(
        ask(&store, &forwarded(None)).is_ok(),
        "known by its address alone"
    );
    assert!(ask(&store, &forwarded(Some("api"))).is_err());
    assert_eq!(store.apply(&cart(9090)), []);
    for client in [Some("web"), None] {
        let denied = ask(&store, &forwarded(client)).expect_err("another port");
        assert_eq!(denied.policy(), Some("shop/fence"));
    }
}
