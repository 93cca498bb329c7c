//! The access log: one line when a connection ends (target `access`), and at debug level one when it opens.
//! Nothing is formatted unless somebody reads it.

use std::sync::Arc;

use tracing::Level;

use super::{Flag, Layer, Record, Reporter};
use trefoil_dataplane_state::state::Workload;

const TARGET: &str = "access";

macro_rules! line {
    ($level:expr, $record:ident) => {{
        let record: &Record = $record;
        let (received, sent) = record.counters.read();
        // Of this end's own view: what it sent to the other plane or application, and what it got.
        let (bytes_sent, bytes_recv) = match record.reporter {
            Reporter::Source => (received, sent),
            Reporter::Destination | Reporter::Waypoint => (sent, received),
        };
        let (source, destination) = (record.source.workload.as_ref(), record.destination.workload.as_ref());
        let outcome = record.outcome();
        tracing::event!(
            target: TARGET,
            $level,
            src.addr = %record.source_address,
            src.workload = source.map(name),
            src.namespace = source.map(namespace),
            src.identity = record.source.identity.as_ref().map(display),
            src.cluster = source.map(cluster),
            dst.addr = record.destination_address.map(display),
            dst.hbone_addr = record.tunnel_address.map(display),
            dst.service = record.service.as_ref().map(|service| service.hostname.as_str()),
            dst.workload = destination.map(name),
            dst.namespace = destination.map(namespace),
            dst.identity = record.destination.identity.as_ref().map(display),
            dst.cluster = destination.map(cluster),
            direction = record.reporter.direction(),
            bytes_sent,
            bytes_recv,
            duration = %format_args!("{}ms", record.since().elapsed().as_millis()),
            peer = record.path,
            handed_to = record.handed_to.as_deref(),
            response_flags = outcome.map_or(Flag::None, |outcome| outcome.flag).as_str(),
            layer = outcome.and_then(|outcome| outcome.layer).map(Layer::as_str),
            policy = outcome.and_then(|outcome| outcome.policy.as_ref()).or(record.policy.as_ref()).map(display),
            audit = record.audit.as_deref(),
            reason = outcome.map(|outcome| outcome.reason.as_str()),
            error = outcome.filter(|outcome| outcome.flag != Flag::None).map(|outcome| outcome.reason.as_str()),
            "connection complete"
        );
    }};
}
pub(super) fn opened(record: &Record) {
    tracing::event!(
        target: TARGET,
        Level::DEBUG,
        src.addr = %record.source_address,
        dst.addr = record.destination_address.map(display),
        direction = record.reporter.direction(),
        "connection opened"
    );
}

/// One line, whose level says whether it is worth looking at.
pub(super) fn closed(record: &Record) {
    let failed = record.outcome().is_some_and(|outcome| outcome.flag != Flag::None);
    if failed {
        line!(Level::WARN, record);
    } else {
        line!(Level::INFO, record);
    }
}

fn name(workload: &Arc<Workload>) -> &str {
    &workload.name
}

fn namespace(workload: &Arc<Workload>) -> &str {
    &workload.namespace
}

fn cluster(workload: &Arc<Workload>) -> &str {
    &workload.cluster
}
