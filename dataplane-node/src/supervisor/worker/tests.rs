use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use trefoil_api::proto::trefoil::worker::to_worker::Payload;

use super::{Assignment, Worker};
use crate::supervisor::in_pod::Listener;
use crate::supervisor::namespace::Namespace;
use crate::supervisor::pod::Pod;
use crate::supervisor::scope::Scope;

pub(in crate::supervisor) fn assignment(uid: &str) -> Assignment {
    let network = std::fs::File::open("/proc/self/ns/net").unwrap();
    let listener = |port| {
        let opened = TcpListener::bind("127.0.0.1:0").unwrap();
        (Listener::Stream(port), OwnedFd::from(opened))
    };
    Assignment {
        pod: Arc::new(Pod {
            uid: uid.into(),
            generation: crate::supervisor::pod::next_generation(),
            name: "cart".into(),
            namespace: "shop".into(),
            service_account: "cart".into(),
            network: Arc::new(Namespace::new(network.into()).unwrap()),
            listeners: [15001, 15006, 15008].map(listener).into(),
        }),
        trust_domain: "cluster.local".into(),
    }
}

fn told(worker: &Worker) -> Vec<String> {
    let orders = worker.orders().into_iter();
    let text = orders.map(|order| match order.payload {
        Payload::AddPod(add) => format!(
            "add {} with {}",
            add.uid,
            order.listeners_of.unwrap().listeners.len()
        ),
        Payload::RemovePod(remove) => format!("remove {}", remove.uid),
        other => format!("{other:?}"),
    });
    text.collect()
}

#[test]
fn a_process_is_told_once_and_its_successor_again() {
    let worker = Worker::new(Scope::Shared, 15100);
    worker.begun(Some(1));
    worker.assign(assignment("one"));
    assert_eq!(told(&worker), ["add one with 3"]);
    assert!(told(&worker).is_empty());
    worker.ended();
    worker.begun(Some(2));
    assert_eq!(told(&worker), ["add one with 3"]);
    assert_eq!(worker.restarts(), 1);
}

#[test]
fn a_pod_that_drains_is_acted_for_until_the_worker_says_it_is_done() {
    let worker = Worker::new(Scope::Shared, 15100);
    worker.assign(assignment("one"));
    told(&worker);
    worker.unassign("one");
    assert_eq!(told(&worker), ["remove one"]);
    assert!(worker.assignment("one").is_some());
    worker.drained("one");
    assert!(worker.assignment("one").is_none());
    assert!(worker.is_idle());
}

#[test]
fn a_pod_that_comes_back_while_it_drains_is_served_at_once() {
    let worker = Worker::new(Scope::Shared, 15100);
    let pod = assignment("one");
    worker.assign(pod.clone());
    told(&worker);
    worker.unassign("one");
    told(&worker);
    worker.assign(pod);
    assert_eq!(told(&worker), ["add one with 3"]);
    worker.drained("one");
    assert!(worker.assignment("one").is_some());
}

#[test]
fn a_replaced_pod_is_removed_and_added() {
    let worker = Worker::new(Scope::Shared, 15100);
    worker.assign(assignment("one"));
    told(&worker);
    worker.assign(assignment("one"));
    assert_eq!(told(&worker), ["remove one", "add one with 3"]);
}

#[test]
fn what_drains_is_forgotten_with_its_process() {
    let worker = Worker::new(Scope::Namespace("shop".into()), 15100);
    worker.assign(assignment("one"));
    told(&worker);
    worker.unassign("one");
    told(&worker);
    worker.ended();
    assert!(worker.is_idle());
    assert!(worker.assignment("two").is_none());
}
