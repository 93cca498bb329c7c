use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use super::*;
use crate::forward::Counters;
use std::sync::Arc;

fn record(metrics: &Metrics) -> Record {
    let mut record = Record::new(metrics, Reporter::Destination, "10.0.0.1:1".parse().unwrap());
    let workload = trefoil_dataplane_state::state::fixtures::workload("web", [10, 0, 0, 1]);
    let store = trefoil_dataplane_state::Store::new();
    let url = trefoil_api::proto::type_url::ADDRESS;
    let address = trefoil_api::proto::istio::workload::Address {
        r#type: Some(trefoil_api::proto::istio::workload::address::Type::Workload(
            workload,
        )),
    };
    let response = trefoil_dataplane_state::state::fixtures::response(
        url,
        &[("Kubernetes//Pod/shop/web", address)],
        &[],
    );
    assert!(store.apply(&response).is_empty());
    record.source.workload = store.workload("Kubernetes//Pod/shop/web");
    assert!(record.source.workload.is_some());
    record
}

fn shown(registry: &Registry) -> String {
    let mut shown = String::new();
    text::encode(&mut shown, registry).unwrap();
    shown
}

#[test]
fn series_of_gone_workloads_go_after_some_sweeps_but_never_while_in_use() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let mut open = record(&metrics);
    open.opened(&Arc::new(Counters::default()));
    let sweep = |known: bool| (0..10).for_each(|_| metrics.sweep(|_| known));
    sweep(false);
    assert!(shown(&registry).contains("source_workload_namespace=\"shop\""));
    drop(open);
    sweep(true);
    assert!(shown(&registry).contains("istio_tcp_connections_closed_total"));
    assert!(shown(&registry).contains("source_workload_namespace=\"shop\""));
    sweep(false);
    assert!(!shown(&registry).contains("source_workload_namespace=\"shop\""));
}

#[test]
fn a_refusal_is_counted_once_under_its_flag() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let mut refused = record(&metrics);
    refused.ended(Outcome {
        flag: Flag::Deny,
        layer: Some(Layer::Policy),
        reason: "policy shop/closed".into(),
        policy: Some("shop/closed".into()),
    });
    drop(refused);
    let shown = shown(&registry);
    let failed: Vec<_> = shown
        .lines()
        .filter(|line| line.contains("connections_failed_total{"))
        .collect();
    assert_eq!(failed.len(), 1, "{shown}");
    assert!(
        failed[0].contains("response_flags=\"DENY\"") && failed[0].ends_with(" 1"),
        "{shown}"
    );
    assert!(!shown.contains("connections_opened_total{"), "{shown}");
}

#[test]
fn a_workload_that_uses_up_its_budget_is_named() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    metrics.exhausted("Kubernetes//Pod/shop/web", "connections");
    let expected =
        "trefoil_budget_exhausted_total{workload=\"Kubernetes//Pod/shop/web\",budget=\"connections\"} 1";
    assert!(shown(&registry).contains(expected));
}
