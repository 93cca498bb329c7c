//! The record of one request. Whatever happens to it, dropping the record writes its one line and counts it once.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderValue, Method, StatusCode, Uri, Version};
use tokio::time::Instant;
use tracing::Level;
use trefoil_api::policy::Reason;
use trefoil_dataplane_core::Authorized;
use trefoil_dataplane_core::telemetry::{Layer, Party, Reporter, parties};
use trefoil_dataplane_state::state::{Service, Tunnel, Workload};

use super::Metrics;
use super::metrics::Series;
use crate::answer::Refusal;
use crate::body::Source;
use crate::grpc::Messages;
use crate::seam::{Downstream, Server};

/// Series that one connection remembers; it begins anew with more.
const REMEMBERED: usize = 32;

/// The series that the requests of one connection have found.
#[derive(Debug)]
pub(crate) struct Found {
    metrics: Metrics,
    reporter: Reporter,
    downstream: Arc<Downstream>,
    series: Mutex<Vec<(Outcome, Arc<Series>)>>,
}

/// What tells the series of one connection apart.
#[derive(Clone, Debug)]
struct Outcome {
    server: Option<Arc<Workload>>,
    service: Option<Arc<Service>>,
    grpc: bool,
    code: u16,
    grpc_status: Option<u16>,
    flag: &'static str,
}

impl Outcome {
    fn is(&self, other: &Self) -> bool {
        fn same<T>(one: &Option<Arc<T>>, other: &Option<Arc<T>>) -> bool {
            match (one, other) {
                (Some(one), Some(other)) => Arc::ptr_eq(one, other),
                (None, None) => true,
                _ => false,
            }
        }
        (self.code, self.grpc, self.grpc_status, self.flag)
            == (other.code, other.grpc, other.grpc_status, other.flag)
            && same(&self.server, &other.server)
            && same(&self.service, &other.service)
    }
}

impl Found {
    pub(crate) fn new(metrics: &Metrics, reporter: Reporter, downstream: &Arc<Downstream>) -> Self {
        Self {
            metrics: metrics.clone(),
            reporter,
            downstream: downstream.clone(),
            series: Mutex::default(),
        }
    }

    fn series(&self, outcome: &Outcome) -> Arc<Series> {
        let mut found = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, series)) = found.iter().find(|(of, _)| of.is(outcome)) {
            return series.clone();
        }
        let series = self.find(outcome);
        if found.len() >= REMEMBERED {
            found.clear();
        }
        found.push((outcome.clone(), series.clone()));
        series
    }

    /// The path that requests take here: from the client, or at the client's own end to the server.
    fn path(&self, server: Option<&Arc<Workload>>) -> &'static str {
        match (self.reporter, server) {
            (Reporter::Source, Some(server)) if server.tunnel == Tunnel::Hbone => "mutual_tls",
            (Reporter::Source, _) => "none",
            _ => self.downstream.peer.path(),
        }
    }

    fn find(&self, outcome: &Outcome) -> Arc<Series> {
        let source = Party {
            workload: self.downstream.client.clone(),
            identity: self.downstream.peer.identity().cloned(),
        };
        let server = outcome.server.as_ref();
        let destination = Party {
            workload: server.cloned(),
            identity: server.map(|server| server.identity.clone()),
        };
        let ends = [&source, &destination]
            .into_iter()
            .filter_map(|party| party.workload.as_ref());
        let ends = ends.map(|workload| workload.uid.clone()).collect();
        let mut labels = vec![("reporter", self.reporter.as_str().to_owned())];
        labels.extend(parties(&source, &destination, outcome.service.as_deref()));
        let protocol = if outcome.grpc { "grpc" } else { "http" };
        let grpc_status = outcome.grpc_status.map(|status| status.to_string());
        labels.extend([
            ("request_protocol", protocol.to_owned()),
            ("response_code", outcome.code.to_string()),
            ("grpc_response_status", grpc_status.unwrap_or_default()),
            ("response_flags", outcome.flag.to_owned()),
            ("connection_security_policy", self.path(server).to_owned()),
        ]);
        self.metrics.series(labels, ends)
    }
}

/// What is reported of one request.
#[derive(Debug)]
pub(crate) struct Record {
    found: Arc<Found>,
    pub(crate) began: Instant,
    method: Method,
    /// As the client wrote it, until it is normalised.
    pub(crate) uri: Uri,
    version: Version,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) request_id: Option<HeaderValue>,
    pub(crate) grpc: bool,
    pub(crate) route: Option<String>,
    pub(crate) server: Option<Arc<Server>>,
    pub(crate) service: Option<Arc<Service>>,
    /// The policy that allowed it.
    policy: Option<String>,
    /// Policies that are only tried, and would have denied it.
    pub(crate) audit: Vec<String>,
    pub(crate) attempts: u32,
    pub(crate) body: Option<Source>,
    pub(crate) sent: u64,
    /// Of a response of gRPC.
    pub(crate) sent_messages: Messages,
    code: u16,
    pub(crate) grpc_status: Option<u16>,
    refused: Option<(Refusal, Layer)>,
    completed: bool,
}

impl Record {
    pub(crate) fn new(found: &Arc<Found>, method: Method, uri: Uri, version: Version) -> Self {
        Self {
            service: found.downstream.service.clone(),
            found: found.clone(),
            began: Instant::now(),
            method,
            uri,
            version,
            host: None,
            request_id: None,
            grpc: false,
            route: None,
            server: None,
            policy: None,
            audit: Vec::new(),
            attempts: 0,
            body: None,
            sent: 0,
            sent_messages: Messages::default(),
            code: 0,
            grpc_status: None,
            refused: None,
            completed: false,
        }
    }

    /// Whether the client speaks HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        self.version == Version::HTTP_2
    }

    /// Policy allows it.
    pub(crate) fn allowed(&mut self, authorized: &Authorized) {
        self.audit = authorized.audit().to_vec();
        self.policy = match authorized.reason() {
            Reason::Matched(name) => Some(name.clone()),
            _ => None,
        };
    }

    /// The response begins.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.code = status.as_u16();
    }

    /// An answer of this plane's own.
    pub(crate) fn refused(&mut self, refusal: Refusal, plane: Layer) {
        self.code = if self.grpc { 200 } else { refusal.status().as_u16() };
        self.grpc_status = self.grpc.then(|| refusal.grpc_status());
        let layer = refusal.layer(plane);
        self.refused = Some((refusal, layer));
        self.completed = true;
    }

    /// The server's side ended before its time.
    pub(crate) fn broken(&mut self, refusal: Refusal, plane: Layer) {
        let layer = refusal.layer(plane);
        self.refused = Some((refusal, layer));
        self.completed = true;
    }

    /// The response has ended.
    pub(crate) fn completed(&mut self) {
        self.completed = true;
    }

    fn flag(&self) -> &'static str {
        match &self.refused {
            Some((refusal, _)) => refusal.flag(),
            None if self.completed => "-",
            None => "DC",
        }
    }
}

macro_rules! line {
    ($level:expr, $record:ident, $received:ident, $elapsed:ident) => {{
        let record: &Record = $record;
        let downstream = &record.found.downstream;
        let (client, server) = (downstream.client.as_ref(), record.server.as_ref());
        let refused = record.refused.as_ref();
        tracing::event!(
            target: "access",
            $level,
            src.addr = %downstream.source,
            src.workload = client.map(|client| client.name.as_str()),
            src.namespace = client.map(|client| client.namespace.as_str()),
            src.identity = downstream.peer.identity().map(tracing::field::display),
            dst.addr = server.map(|server| tracing::field::display(server.endpoint.address)),
            dst.service = record.service.as_ref().map(|service| service.hostname.as_str()),
            dst.workload = server.map(|server| server.endpoint.workload.name.as_str()),
            dst.namespace = server.map(|server| server.endpoint.workload.namespace.as_str()),
            dst.identity = server.map(|server| tracing::field::display(&server.endpoint.workload.identity)),
            reporter = record.found.reporter.as_str(),
            protocol = ?record.version,
            method = record.method.as_str(),
            host = record.host.as_ref().map(tracing::field::debug),
            // Without the query, which may hold secrets.
            path = record.uri.path(),
            route = record.route.as_deref(),
            request_id = record.request_id.as_ref().map(tracing::field::debug),
            code = record.code,
            grpc_status = record.grpc_status,
            attempts = record.attempts,
            bytes_sent = record.sent,
            bytes_recv = $received,
            duration = %format_args!("{}ms", $elapsed.as_millis()),
            direction = record.found.reporter.direction(),
            peer = record.found.path(server.map(|server| &server.endpoint.workload)),
            response_flags = record.flag(),
            layer = refused.map(|(_, layer)| layer.as_str()),
            policy = refused.and_then(|(refusal, _)| refusal.policy()).or(record.policy.as_deref()),
            audit = (!record.audit.is_empty()).then(|| record.audit.join(",")),
            reason = refused.map(|(refusal, _)| tracing::field::display(refusal)),
            "request complete"
        );
    }};
}

impl Drop for Record {
    fn drop(&mut self) {
        let record = &*self;
        let received = record.body.as_ref().map_or(0, Source::received);
        let elapsed = record.began.elapsed();
        if record.refused.is_some() {
            line!(Level::WARN, record, received, elapsed);
        } else {
            line!(Level::INFO, record, received, elapsed);
        }
        let outcome = Outcome {
            server: record
                .server
                .as_ref()
                .map(|server| server.endpoint.workload.clone()),
            service: record.service.clone(),
            grpc: record.grpc,
            code: record.code,
            grpc_status: record.grpc_status,
            flag: record.flag(),
        };
        let milliseconds = elapsed.as_secs_f64() * 1_000.0;
        let series = self.found.series(&outcome);
        series.count(milliseconds, (received, record.sent));
        if record.grpc {
            let received = record.body.as_ref().map_or(0, Source::received_messages);
            series.count_messages(received, record.sent_messages.passed());
        }
    }
}
