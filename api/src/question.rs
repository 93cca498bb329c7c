//! What a plane is asked about one connection through its admin interface, and what it answers: `trefoilctl
//! why` asks, the planes decide. Messages only.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// A connection as the server's plane would meet it: `GET /evaluate`; `POST /reach` where it comes in the
/// clear.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arriving {
    /// xDS uid of the server's workload.
    pub workload: String,
    /// The client's identity, `spiffe://…`; none of a client that has proved none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub identity: Option<String>,
    /// The client's address.
    pub source: IpAddr,
    /// The server's address and port.
    pub destination: SocketAddr,
}

/// A connection as the client's plane would meet it: `GET /route`, and `POST /probe` to have it made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// xDS uid of the client's workload.
    pub workload: String,
    /// What the client dials.
    pub destination: SocketAddr,
}

impl Arriving {
    /// As the query of a question. Nothing in it needs to be escaped.
    #[must_use]
    pub fn query(&self) -> String {
        let identity = self.identity.as_ref();
        let identity = identity.map_or_else(String::new, |identity| format!("&identity={identity}"));
        format!(
            "workload={}&source={}&destination={}{identity}",
            self.workload, self.source, self.destination
        )
    }
}

impl Leaving {
    /// As the query of a question. Nothing in it needs to be escaped.
    #[must_use]
    pub fn query(&self) -> String {
        format!("workload={}&destination={}", self.workload, self.destination)
    }
}

/// Whose fault something is, and why, as the access log would say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// `redirection`, `node`, `sidecar`, `policy` or `application`.
    pub layer: String,
    /// The response flag.
    pub flag: String,
    /// For people.
    pub reason: String,
}

/// What the server's plane would do with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Evaluation {
    /// Why it would be refused; none if it may pass.
    pub fault: Option<Fault>,
    /// The policy that decides, where one does.
    pub policy: Option<String>,
    /// Why, in words: also of what may pass.
    pub reason: String,
    /// Policies under audit that would refuse it.
    pub audit: Vec<String>,
}

/// What the client's plane would do with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Who the client is to others.
    pub identity: String,
    /// The client's address.
    pub source: Option<IpAddr>,
    /// `mutual_tls`, `same_node` or `none`.
    pub path: String,
    /// Where it would be carried to; with several endpoints, one that may be chosen.
    pub address: Option<SocketAddr>,
    /// xDS uid of the workload there, if it is known.
    pub workload: Option<String>,
    /// The service that is dialled.
    pub service: Option<String>,
    /// The server's plane, where it is dialled.
    pub next_hop: Option<SocketAddr>,
    /// Who the server's plane must prove to be.
    pub expected: Vec<String>,
    /// Why it would not be carried.
    pub fault: Option<Fault>,
}

/// What the client of a connection that says nothing has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The server spoke.
    Answered,
    /// It stayed open.
    Open,
    /// It was made, and the server ended it at once.
    Closed,
    /// It was not made.
    Failed,
}

/// What became of a connection that was made to find out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probed {
    /// What was seen.
    pub outcome: Outcome,
    /// Why it was not made, or broke.
    pub fault: Option<Fault>,
    /// The path that it took.
    pub path: String,
    /// Where it led.
    pub address: Option<SocketAddr>,
    /// xDS uid of the workload there, if it is known.
    pub workload: Option<String>,
}
