//! The record of one connection. Whatever happens to it, dropping the record writes its one line and counts
//! it once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::Instant;
use trefoil_api::Identity;
use trefoil_api::policy::Reason;

use super::metrics::{Key, Labels};
use super::{Flag, Metrics, Outcome, Reporter, Series, access};
use crate::authorize::Authorized;
use crate::forward::Counters;
use crate::resolve::Dialled;
use trefoil_dataplane_state::state::{Service, Workload};

/// One end of a connection, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Party {
    /// Its workload.
    pub workload: Option<Arc<Workload>>,
    /// Who it is, or must be.
    pub identity: Option<Identity>,
}

/// What is reported of one connection.
#[derive(Debug)]
pub struct Record {
    metrics: Metrics,
    /// Which end this is.
    pub reporter: Reporter,
    /// The client's address.
    pub source_address: SocketAddr,
    /// The client.
    pub source: Party,
    /// Where the connection goes; until that is known, where it was going.
    pub destination_address: Option<SocketAddr>,
    /// The server's plane, where the way to it is a tunnel.
    pub tunnel_address: Option<SocketAddr>,
    /// The server.
    pub destination: Party,
    /// The service that was dialled.
    pub service: Option<Arc<Service>>,
    /// The path taken: `mutual_tls`, `same_node` or `none`.
    pub path: &'static str,
    /// The service of the waypoint that it was handed to, which reports it again.
    pub handed_to: Option<String>,
    /// The policy that allowed it.
    pub policy: Option<String>,
    /// Dry-run policies that would have denied it, separated by commas.
    pub(super) audit: Option<String>,
    /// Bytes carried.
    pub counters: Arc<Counters>,
    since: Instant,
    series: Option<Arc<Series>>,
    completed: bool,
    left_to_others: bool,
    outcome: Option<Outcome>,
}

impl Record {
    /// A connection from `source_address` begins.
    #[must_use]
    pub fn new(metrics: &Metrics, reporter: Reporter, source_address: SocketAddr) -> Self {
        Self {
            metrics: metrics.clone(),
            reporter,
            source_address,
            source: Party::default(),
            destination_address: None,
            tunnel_address: None,
            destination: Party::default(),
            service: None,
            path: "none",
            handed_to: None,
            policy: None,
            audit: None,
            counters: Arc::default(),
            since: Instant::now(),
            series: None,
            completed: false,
            left_to_others: false,
            outcome: None,
        }
    }

    /// The connection is established: bytes are carried from now on, and count in `counters`. One that was
    /// handed over comes back, and is counted then.
    pub fn opened(&mut self, counters: &Arc<Counters>) {
        if self.handed_to.is_some() {
            self.counters = counters.clone();
            return;
        }
        let series = self.metrics.series(self, Flag::None);
        series.opened.fetch_add(1, Ordering::Relaxed);
        self.metrics.open(self.reporter).fetch_add(1, Ordering::Relaxed);
        counters.total_in(series.clone());
        self.counters = counters.clone();
        self.series = Some(series);
        access::opened(self);
    }

    /// The connection is allowed. Dry-run policies that would have denied it each count it.
    pub fn allowed(&mut self, authorized: &Authorized) {
        self.policy = match authorized.reason() {
            Reason::Matched(policy) => Some(policy.clone()),
            _ => None,
        };
        let policies = authorized.audit();
        if policies.is_empty() {
            return;
        }
        self.metrics.audited(policies);
        self.audit = Some(policies.join(","));
    }

    /// What was dialled, of which a waypoint chooses the server.
    pub fn dialled(&mut self, dialled: &Dialled) {
        self.service.clone_from(&dialled.service);
        self.destination = Party {
            identity: dialled
                .workload
                .as_ref()
                .map(|workload| workload.identity.clone()),
            workload: dialled.workload.clone(),
        };
    }

    /// Nothing is reported here: others do, of what the connection carries.
    pub fn leave_to_others(mut self) {
        self.left_to_others = true;
    }

    /// Both ends have ended by themselves.
    pub fn completed(&mut self) {
        self.completed = true;
    }

    /// The connection did not come about, was cut, or broke.
    pub fn ended(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }

    /// How it ended, if not by itself.
    #[must_use]
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.as_ref()
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn key(&self, flag: Flag) -> Key {
        let party = |party: &Party| match &party.workload {
            Some(workload) => (Some(workload.uid.clone()), None),
            None => (None, party.identity.as_ref().map(Identity::to_string)),
        };
        Key {
            reporter: self.reporter,
            flag,
            path: self.path,
            source: party(&self.source),
            destination: party(&self.destination),
            service: self.service.as_ref().map(|service| service.key()),
        }
    }

    pub(super) fn labels(&self, flag: Flag) -> Labels {
        let mut labels = vec![("reporter", self.reporter.as_str().to_owned())];
        labels.extend(parties(&self.source, &self.destination, self.service.as_deref()));
        labels.extend([
            ("request_protocol", "tcp".to_owned()),
            ("response_flags", flag.as_str().to_owned()),
            ("connection_security_policy", self.path.to_owned()),
        ]);
        labels
    }
}

/// The labels that say who talks to whom, the same for connections and for requests.
pub fn parties(
    source: &Party,
    destination: &Party,
    service: Option<&Service>,
) -> impl Iterator<Item = (&'static str, String)> {
    let of = |value: fn(&Service) -> &str| known(service.map_or("", value));
    let service = [
        ("destination_service", of(|service| &service.hostname)),
        ("destination_service_namespace", of(|service| &service.namespace)),
        ("destination_service_name", of(|service| &service.name)),
    ];
    let (from, to) = (values(source), values(destination));
    SOURCE
        .into_iter()
        .zip(from)
        .chain(DESTINATION.into_iter().zip(to))
        .chain(service)
}

const SOURCE: [&str; 8] = [
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
];
const DESTINATION: [&str; 8] = [
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
];

/// The values of the labels above, in their order.
fn values(party: &Party) -> [String; 8] {
    let workload = party.workload.as_deref();
    let of = |value: fn(&Workload) -> &str| known(workload.map_or("", value));
    let namespace = || match &party.identity {
        Some(identity) => identity.namespace().to_owned(),
        None => known(""),
    };
    [
        of(|workload| &workload.workload_name),
        of(|workload| &workload.canonical_name),
        of(|workload| &workload.canonical_revision),
        workload.map_or_else(namespace, |workload| workload.namespace.clone()),
        party
            .identity
            .as_ref()
            .map_or_else(|| known(""), Identity::to_string),
        of(|workload| &workload.canonical_name),
        of(|workload| &workload.canonical_revision),
        of(|workload| &workload.cluster),
    ]
}

/// Labels are never empty.
fn known(value: &str) -> String {
    if value.is_empty() { "unknown" } else { value }.to_owned()
}

/// Of a record that nobody has completed.
const GIVEN_UP: &str = "cut: this plane has stopped";

impl Drop for Record {
    fn drop(&mut self) {
        if self.left_to_others {
            return;
        }
        if !self.completed && self.outcome.is_none() {
            self.outcome = Some(Outcome {
                flag: Flag::None,
                layer: None,
                reason: GIVEN_UP.into(),
                policy: None,
            });
        }
        if let Some(series) = self.series.take() {
            series.closed.fetch_add(1, Ordering::Relaxed);
            self.metrics.open(self.reporter).fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(flag) = self
            .outcome
            .as_ref()
            .map(|outcome| outcome.flag)
            .filter(|flag| *flag != Flag::None)
        {
            let failed = self.metrics.series(self, flag);
            failed.failed.fetch_add(1, Ordering::Relaxed);
        }
        access::closed(self);
    }
}
