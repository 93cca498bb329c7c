//! What is reported of requests: one line and one set of counters for each, under the names that dashboards of such
//! meshes read. A connection finds the series of its requests once; nothing is formatted for a request but its line.

mod metrics;
mod record;

pub use metrics::Metrics;
pub(crate) use record::{Found, Record};
