use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, Status};

use super::{Event, Response, Session};
use trefoil_control_plane_index::snapshot::{Changes, Encoded, ResourceKind, Snapshot, Version};

use ResourceKind::{Address, Authorization, MeshSettings};

#[derive(Default)]
struct World {
    snapshot: Snapshot,
}

impl World {
    /// Puts a resource in place, or removes it, and tells the session.
    fn set(&mut self, session: &mut Session, kind: ResourceKind, name: &str, value: Option<u8>) {
        self.put(session, kind, name, value, &[], &[]);
    }

    fn put(
        &mut self,
        session: &mut Session,
        kind: ResourceKind,
        name: &str,
        value: Option<u8>,
        aliases: &[&str],
        services: &[&str],
    ) {
        let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        let encoded =
            value.map(|value| Encoded::new(kind, name, owned(aliases), owned(services), vec![value]));
        let mut changes = Changes::default();
        self.snapshot.set(&mut changes, kind, name, encoded);
        session.changed(kind, changes.of(kind), self.snapshot.of(kind).generation());
    }
}

fn subscribe(kind: ResourceKind) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: kind.type_url().into(),
        ..DeltaDiscoveryRequest::default()
    }
}

fn names(kind: ResourceKind, subscribe: &[&str], unsubscribe: &[&str]) -> DeltaDiscoveryRequest {
    let owned = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
    DeltaDiscoveryRequest {
        type_url: kind.type_url().into(),
        resource_names_subscribe: owned(subscribe),
        resource_names_unsubscribe: owned(unsubscribe),
        ..DeltaDiscoveryRequest::default()
    }
}

fn answer(response: &Response, error: Option<&str>) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        type_url: response.kind.type_url().into(),
        response_nonce: response.nonce.clone(),
        error_detail: error.map(|message| Status {
            message: message.into(),
            ..Status::default()
        }),
        ..DeltaDiscoveryRequest::default()
    }
}

fn sent(response: &Response) -> Vec<&str> {
    response.resources.iter().map(|one| one.name.as_ref()).collect()
}

/// Takes everything that is due, answering at once.
fn drain(session: &mut Session, snapshot: &Snapshot) -> Vec<Response> {
    let mut all = Vec::new();
    while let Some(response) = session.next(snapshot) {
        assert_eq!(
            session.request(answer(&response, None), snapshot),
            Event::Acknowledged
        );
        all.push(response);
    }
    all
}

#[test]
fn both_types_are_answered_even_when_empty() {
    let (mut session, world) = (Session::default(), World::default());
    session.request(subscribe(Address), &world.snapshot);
    assert!(
        session.next(&world.snapshot).is_none(),
        "workloads wait for policies to be asked for"
    );
    session.request(subscribe(Authorization), &world.snapshot);
    let kinds: Vec<_> = drain(&mut session, &world.snapshot)
        .iter()
        .map(|one| one.kind)
        .collect();
    assert_eq!(kinds, vec![Authorization, Address]);
    assert!(session.next(&world.snapshot).is_none());
}

#[test]
fn settings_come_before_workloads_and_only_to_those_who_ask() {
    let mut world = World::default();
    let (mut asks, mut foreign) = (Session::default(), Session::default());
    for session in [&mut asks, &mut foreign] {
        world.set(session, MeshSettings, "mesh", Some(1));
        world.set(session, Address, "a", Some(1));
    }
    for kind in [Authorization, MeshSettings, Address] {
        asks.request(subscribe(kind), &world.snapshot);
        if kind != MeshSettings {
            foreign.request(subscribe(kind), &world.snapshot);
        }
    }
    let kinds = |session: &mut Session| {
        let all = drain(session, &world.snapshot);
        all.iter().map(|response| response.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&mut asks), [Authorization, MeshSettings, Address]);
    assert_eq!(kinds(&mut foreign), [Authorization, Address]);
    world.set(&mut asks, MeshSettings, "mesh", Some(2));
    let changed = asks.next(&world.snapshot).expect("sent");
    assert_eq!((changed.kind, sent(&changed)), (MeshSettings, vec!["mesh"]));
}

#[test]
fn a_client_that_asks_for_workloads_only_gets_them_in_the_end() {
    let (mut session, world) = (Session::default(), World::default());
    session.request(subscribe(Address), &world.snapshot);
    session.lose_patience();
    assert_eq!(session.next(&world.snapshot).map(|one| one.kind), Some(Address));
}

#[test]
fn policies_come_before_the_workloads_that_name_them_and_go_after() {
    let (mut session, mut world) = (Session::default(), World::default());
    session.request(subscribe(Address), &world.snapshot);
    session.request(subscribe(Authorization), &world.snapshot);
    drain(&mut session, &world.snapshot);
    world.set(&mut session, Address, "web", Some(1));
    world.set(&mut session, Authorization, "policy", Some(1));
    let first = session.next(&world.snapshot).expect("due");
    assert_eq!((first.kind, sent(&first)), (Authorization, vec!["policy"]));
    let second = session.next(&world.snapshot).expect("due");
    assert_eq!((second.kind, sent(&second)), (Address, vec!["web"]));
    for response in [first, second] {
        session.request(answer(&response, None), &world.snapshot);
    }
    world.set(&mut session, Authorization, "policy", None);
    world.set(&mut session, Address, "web", Some(2));
    let order: Vec<_> = drain(&mut session, &world.snapshot)
        .iter()
        .map(|one| one.kind)
        .collect();
    assert_eq!(order, vec![Address, Authorization]);
}

/// The first request of a client that reconnects is about policies.
#[test]
fn a_client_that_reconnects_hears_of_workloads_before_policies_go() {
    let (mut session, mut world) = (Session::default(), World::default());
    world.set(&mut session, Address, "web", Some(2));
    let held = |kind, name: &str| {
        let mut request = subscribe(kind);
        request.initial_resource_versions = [(name.to_owned(), "old".to_owned())].into();
        request
    };
    session.request(held(Authorization, "policy"), &world.snapshot);
    let first = session.next(&world.snapshot).expect("answered");
    assert_eq!((first.kind, first.removed.len()), (Authorization, 0));
    session.request(answer(&first, None), &world.snapshot);
    assert!(session.next(&world.snapshot).is_none(), "workloads may name it");
    session.request(held(Address, "web"), &world.snapshot);
    let all = drain(&mut session, &world.snapshot);
    assert_eq!((all[0].kind, sent(&all[0])), (Address, vec!["web"]));
    assert_eq!(
        (all[1].kind, &*all[1].removed),
        (Authorization, &["policy".to_owned()][..])
    );
}

#[test]
fn a_client_that_asks_for_policies_only_hears_of_removals_in_the_end() {
    let (mut session, world) = (Session::default(), World::default());
    let mut request = subscribe(Authorization);
    request.initial_resource_versions = [("policy".to_owned(), "old".to_owned())].into();
    session.request(request, &world.snapshot);
    session.lose_patience();
    let response = session.next(&world.snapshot).expect("answered");
    assert_eq!(response.removed, vec!["policy"]);
}

#[test]
fn what_is_held_is_not_sent_again_and_what_vanished_is_removed() {
    let (mut session, mut world) = (Session::default(), World::default());
    for (name, value) in [("a", 1), ("b", 1), ("c", 1)] {
        world.set(&mut session, Authorization, name, Some(value));
    }
    let held: std::collections::HashMap<String, String> = world
        .snapshot
        .of(Authorization)
        .iter()
        .map(|one| (one.name.to_string(), one.version.to_string()))
        .collect();
    world.set(&mut session, Authorization, "b", Some(2));
    world.set(&mut session, Authorization, "c", None);
    let mut again = subscribe(Authorization);
    again.initial_resource_versions = held;
    session.request(again, &world.snapshot);
    session.lose_patience();
    let response = session.next(&world.snapshot).expect("due");
    assert_eq!(sent(&response), vec!["b"]);
    assert_eq!(response.removed, vec!["c"]);
}

#[test]
fn a_client_that_does_not_answer_gets_one_response_and_then_the_latest() {
    let (mut session, mut world) = (Session::default(), World::default());
    session.request(subscribe(Authorization), &world.snapshot);
    let first = session.next(&world.snapshot).expect("due");
    for round in 0..200u8 {
        world.set(&mut session, Authorization, "a", Some(round));
        world.set(
            &mut session,
            Authorization,
            "b",
            (round % 2 == 0).then_some(round),
        );
        assert!(session.next(&world.snapshot).is_none());
    }
    assert!(session.summaries()[0].1.pending <= 2);
    assert!(session.owes(Authorization, "a"));
    session.request(answer(&first, None), &world.snapshot);
    let second = session.next(&world.snapshot).expect("due");
    assert_eq!(sent(&second), vec!["a"]);
    session.request(answer(&second, None), &world.snapshot);
    assert!(!session.owes(Authorization, "a"));
}

#[test]
fn refusals_are_kept_until_the_resource_is_taken() {
    let (mut session, mut world) = (Session::default(), World::default());
    session.request(subscribe(Authorization), &world.snapshot);
    world.set(&mut session, Authorization, "good", Some(1));
    world.set(&mut session, Authorization, "bad", Some(1));
    let response = session.next(&world.snapshot).expect("due");
    let event = session.request(answer(&response, Some("bad: no")), &world.snapshot);
    assert_eq!(event, Event::Refused("bad: no".into()));
    assert!(session.owes(Authorization, "bad") && !session.owes(Authorization, "good"));
    assert!(
        session.next(&world.snapshot).is_none(),
        "what was refused is not sent again unchanged"
    );
    assert_eq!(session.summaries()[0].1.refusal.as_deref(), Some("bad: no"));
    world.set(&mut session, Authorization, "bad", Some(2));
    drain(&mut session, &world.snapshot);
    assert!(!session.owes(Authorization, "bad"));
    assert_eq!(session.summaries()[0].1.refusal, None);
}

#[test]
fn an_answer_to_nothing_changes_nothing() {
    let (mut session, mut world) = (Session::default(), World::default());
    session.request(subscribe(Authorization), &world.snapshot);
    let response = session.next(&world.snapshot).expect("due");
    let mut stale = answer(&response, None);
    stale.response_nonce = "else".into();
    session.request(stale, &world.snapshot);
    world.set(&mut session, Authorization, "a", Some(1));
    assert!(session.next(&world.snapshot).is_none());
}

/// A service by name or address brings its workloads; every name is answered.
#[test]
fn on_demand_names_and_aliases_are_all_answered() {
    let (mut session, mut world) = (Session::default(), World::default());
    session.lose_patience();
    let service = |world: &mut World, session: &mut Session| {
        world.put(session, Address, "shop/web", Some(1), &["/10.96.0.1"], &[]);
    };
    service(&mut world, &mut session);
    world.put(
        &mut session,
        Address,
        "pod/web-0",
        Some(1),
        &["/10.0.0.1"],
        &["shop/web"],
    );
    world.put(&mut session, Address, "pod/other", Some(1), &["/10.0.0.2"], &[]);
    session.request(names(Address, &["*"], &["*"]), &world.snapshot);
    let nothing = session.next(&world.snapshot).expect("answered");
    assert!(nothing.resources.is_empty());
    session.request(answer(&nothing, None), &world.snapshot);
    session.request(names(Address, &["/10.96.0.1", "/10.9.9.9"], &[]), &world.snapshot);
    let response = session.next(&world.snapshot).expect("due");
    assert_eq!(sent(&response), vec!["pod/web-0", "shop/web"]);
    assert_eq!(response.removed, vec!["/10.9.9.9"]);
    session.request(answer(&response, None), &world.snapshot);
    // A workload that joins the service later comes too; others do not.
    world.put(
        &mut session,
        Address,
        "pod/web-1",
        Some(1),
        &["/10.0.0.3"],
        &["shop/web"],
    );
    world.put(&mut session, Address, "pod/other", Some(2), &["/10.0.0.2"], &[]);
    let joined = drain(&mut session, &world.snapshot);
    assert_eq!(
        joined.iter().flat_map(sent).collect::<Vec<_>>(),
        vec!["pod/web-1"]
    );
    // What did not exist is sent when it appears.
    world.put(&mut session, Address, "pod/late", Some(1), &["/10.9.9.9"], &[]);
    let late = drain(&mut session, &world.snapshot);
    assert_eq!(late.iter().flat_map(sent).collect::<Vec<_>>(), vec!["pod/late"]);
    session.request(names(Address, &[], &["/10.96.0.1"]), &world.snapshot);
    world.put(
        &mut session,
        Address,
        "pod/web-1",
        Some(2),
        &["/10.0.0.3"],
        &["shop/web"],
    );
    assert!(
        session.next(&world.snapshot).is_none(),
        "nobody asks for it any more"
    );
}

#[test]
fn a_service_that_appears_brings_its_workloads() {
    let (mut session, mut world) = (Session::default(), World::default());
    session.lose_patience();
    world.put(&mut session, Address, "pod/web-0", Some(1), &[], &["shop/web"]);
    session.request(names(Address, &["/10.96.0.1"], &[]), &world.snapshot);
    drain(&mut session, &world.snapshot);
    world.put(&mut session, Address, "shop/web", Some(1), &["/10.96.0.1"], &[]);
    let all = drain(&mut session, &world.snapshot);
    let all: BTreeSet<&str> = all.iter().flat_map(sent).collect();
    assert_eq!(all, BTreeSet::from(["pod/web-0", "shop/web"]));
}

/// Puts five large resources in place.
fn put_large(session: &mut Session, world: &mut World, kind: ResourceKind, value: u8) {
    for number in 0..5 {
        let name = format!("big-{number}");
        let encoded = Encoded::new(kind, &name, Vec::new(), Vec::new(), vec![value; 1 << 20]);
        let mut changes = Changes::default();
        world.snapshot.set(&mut changes, kind, &name, Some(encoded));
        session.changed(kind, changes.of(kind), world.snapshot.of(kind).generation());
    }
}

/// A client counts itself synced by the first answer of each type.
#[test]
fn the_first_answer_is_everything_and_later_changes_come_in_parts() {
    let (mut session, mut world) = (Session::default(), World::default());
    for kind in [Authorization, Address] {
        put_large(&mut session, &mut world, kind, 1);
        session.request(subscribe(kind), &world.snapshot);
    }
    let first = drain(&mut session, &world.snapshot);
    let counts: Vec<_> = first.iter().map(|one| (one.kind, one.resources.len())).collect();
    assert_eq!(counts, [(Authorization, 5), (Address, 5)]);
    for kind in [Authorization, Address] {
        put_large(&mut session, &mut world, kind, 2);
    }
    let later = drain(&mut session, &world.snapshot);
    assert!(later.len() > 6);
    let workloads = later.iter().skip_while(|one| one.kind == Authorization);
    assert!(
        workloads.clone().count() > 3 && workloads.clone().all(|one| one.kind == Address),
        "workloads wait for all policies"
    );
    assert!(later.iter().all(|one| one.encoded_len() < 4 << 20));
}

#[test]
fn everything_is_put_off_until_there_is_room_for_it_and_nothing_else_is() {
    let (mut session, mut world) = (Session::default(), World::default());
    session.set_roomy(false);
    put_large(&mut session, &mut world, Address, 1);
    world.set(&mut session, Authorization, "a", Some(1));
    for kind in [Authorization, Address] {
        session.request(subscribe(kind), &world.snapshot);
    }
    let kinds = |all: Vec<Response>| all.iter().map(|one| one.kind).collect::<Vec<_>>();
    assert_eq!(kinds(drain(&mut session, &world.snapshot)), [Authorization]);
    assert!(session.room(&world.snapshot) > 5 << 20);
    session.set_roomy(true);
    assert_eq!(kinds(drain(&mut session, &world.snapshot)), [Address]);
    session.set_roomy(false);
    assert_eq!(session.room(&world.snapshot), 0);
    world.set(&mut session, Address, "big-0", Some(2));
    assert_eq!(
        kinds(drain(&mut session, &world.snapshot)),
        [Address],
        "a change is not large"
    );
}

#[test]
fn what_a_client_missed_while_it_was_away_comes_in_one_answer() {
    let (mut session, mut world) = (Session::default(), World::default());
    put_large(&mut session, &mut world, Address, 1);
    let mut again = subscribe(Address);
    again.initial_resource_versions = [("big-0".to_owned(), "old".to_owned())].into();
    session.request(again, &world.snapshot);
    session.lose_patience();
    assert_eq!(
        session.next(&world.snapshot).map(|one| one.resources.len()),
        Some(5)
    );
}

#[derive(Clone, Debug)]
enum Step {
    Set(ResourceKind, u8, Option<u8>),
    /// The same, but the session hears of it later: of all that it has not heard of, in order.
    SetUnheard(ResourceKind, u8, Option<u8>),
    Hear,
    Send,
    Answer(ResourceKind, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let kind = || prop::sample::select(&ResourceKind::ALL[..]);
    prop_oneof![
        3 => (kind(), 0u8..6, prop::option::weighted(0.7, 0u8..4)).prop_map(|(kind, name, value)| Step::Set(kind, name, value)),
        1 => (kind(), 0u8..6, prop::option::weighted(0.7, 0u8..4)).prop_map(|(kind, name, value)| Step::SetUnheard(kind, name, value)),
        1 => Just(Step::Hear),
        2 => Just(Step::Send),
        2 => (kind(), prop::bool::weighted(0.9)).prop_map(|(kind, good)| Step::Answer(kind, good)),
    ]
}

type Held = BTreeMap<(ResourceKind, Arc<str>), Version>;

fn take(held: &mut Held, response: &Response) {
    for one in &response.resources {
        let old = held.insert((response.kind, one.name.clone()), one.version);
        assert_ne!(old.as_ref(), Some(&one.version), "{} was held", one.name);
    }
    for name in &response.removed {
        assert!(
            held.remove(&(response.kind, name.as_str().into())).is_some(),
            "{name} was not held"
        );
    }
}

fn heard(session: &mut Session, kind: ResourceKind, changes: &Changes, generation: u64) {
    session.changed(kind, changes.of(kind), generation);
}

proptest! {
    #[test]
    fn a_client_ends_up_with_exactly_what_is_served(steps in prop::collection::vec(step(), 0..80)) {
        let (mut session, mut world) = (Session::default(), World::default());
        for kind in ResourceKind::ALL {
            session.request(subscribe(kind), &world.snapshot);
        }
        let mut held = Held::new();
        let mut outstanding: BTreeMap<ResourceKind, Response> = BTreeMap::new();
        let mut unheard: Vec<(ResourceKind, Changes, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Set(kind, name, value) => {
                    unheard.drain(..).for_each(|(kind, changes, generation)| heard(&mut session, kind, &changes, generation));
                    world.set(&mut session, kind, &format!("n{name}"), value);
                }
                Step::SetUnheard(kind, name, value) => {
                    let name = format!("n{name}");
                    let encoded = value.map(|value| Encoded::new(kind, &name, Vec::new(), Vec::new(), vec![value]));
                    let mut changes = Changes::default();
                    world.snapshot.set(&mut changes, kind, &name, encoded);
                    unheard.push((kind, changes, world.snapshot.of(kind).generation()));
                }
                Step::Hear => {
                    unheard.drain(..).for_each(|(kind, changes, generation)| heard(&mut session, kind, &changes, generation));
                }
                Step::Send => {
                    if let Some(response) = session.next(&world.snapshot) {
                        take(&mut held, &response);
                        prop_assert!(outstanding.insert(response.kind, response).is_none(), "two at a time");
                    }
                }
                Step::Answer(kind, good) => {
                    if let Some(response) = outstanding.remove(&kind) {
                        session.request(answer(&response, (!good).then_some("n1: no")), &world.snapshot);
                    }
                }
            }
        }
        unheard.drain(..).for_each(|(kind, changes, generation)| heard(&mut session, kind, &changes, generation));
        for response in outstanding.into_values() {
            session.request(answer(&response, None), &world.snapshot);
        }
        for response in drain(&mut session, &world.snapshot) {
            take(&mut held, &response);
        }
        let mut served = Held::new();
        for kind in ResourceKind::ALL {
            for one in world.snapshot.of(kind).iter() {
                served.insert((kind, one.name.clone()), one.version);
            }
        }
        prop_assert_eq!(held, served);
    }
}
