//! Which rule a request falls under, by the precedence of the Gateway API. Pure: compiled routes and a request's
//! head in, a rule out; chance is passed in. A route that cannot be understood is refused whole.

mod compile;
mod consume;
mod matching;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub use compile::{InvalidRoute, compile};
pub(crate) use compile::{Problem, each, port};
pub use matching::RequestHead;
pub use table::{Found, Routes, ServiceRoutes};

use crate::filters::{Filters, HeaderChange};
use crate::retry::Budget;
use matching::{HostPattern, Match};

/// A route that was understood.
#[derive(Debug)]
pub struct CompiledRoute {
    name: String,
    namespace: String,
    /// Seconds since 1970.
    created: i64,
    /// `NAMESPACE/NAME`, then the kind: what decides between routes of one age.
    order: (String, String),
    /// Keys of services, and a port of theirs; 0 is each.
    parents: Vec<(String, u16)>,
    hosts: Vec<HostPattern>,
    rules: Vec<(Vec<Match>, Arc<Rule>)>,
}

impl CompiledRoute {
    /// `KIND/NAMESPACE/NAME`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What becomes of the requests of a rule.
#[derive(Debug)]
pub struct Rule {
    /// `KIND/NAMESPACE/NAME` of its route, and `/RULE` where it has a name.
    pub name: String,
    /// What is done to requests and responses.
    pub filters: Filters,
    /// Where requests go.
    pub backends: Vec<Backend>,
    /// From the request's beginning to the response's end.
    pub request_timeout: Option<Duration>,
    /// Each attempt.
    pub attempt_timeout: Option<Duration>,
    /// What is tried again.
    pub retry: Option<Retry>,
}

/// A share of a rule's requests.
#[derive(Debug)]
pub struct Backend {
    /// Key of its service; none: there is no such backend, or no grant for it.
    pub service: Option<String>,
    /// The service's port; 0 is the one that was dialled.
    pub port: u16,
    weight: u32,
    /// Changes of request headers, for this backend only.
    pub request: Vec<HeaderChange>,
    /// Changes of response headers, for this backend only.
    pub response: Vec<HeaderChange>,
}

/// What is tried again, and how often.
#[derive(Debug)]
pub struct Retry {
    /// Attempts after the first.
    pub attempts: u32,
    /// Statuses that are tried again.
    pub codes: Vec<u16>,
    /// Least time before an attempt.
    pub backoff: Duration,
    /// What retries may add to the load.
    pub budget: Budget,
}

impl Rule {
    /// The sum of all shares.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.backends
            .iter()
            .map(|backend| u64::from(backend.weight))
            .sum()
    }

    /// The backend at `at`, which is below [`Self::weight`]; none where no backend has a share.
    #[must_use]
    pub fn backend(&self, at: u64) -> Option<&Backend> {
        let mut passed = 0;
        self.backends.iter().find(|backend| {
            passed += u64::from(backend.weight);
            at < passed
        })
    }
}
