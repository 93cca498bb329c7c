//! What is reported of connections: one line and one set of counters for each. It never decides, and it never
//! costs more than a few additions while bytes move.

mod access;
mod metrics;
mod record;
#[cfg(test)]
mod tests;

use serde::Serialize;
pub use trefoil_dataplane_state::Layer;

pub use metrics::{Metrics, Series};
pub use record::{Party, Record, parties};

/// Which end reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reporter {
    /// The client's plane.
    Source,
    /// The server's plane.
    Destination,
    /// A waypoint between them.
    Waypoint,
}

impl Reporter {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Source, Self::Destination, Self::Waypoint];

    /// The value of the label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::Waypoint => "waypoint",
        }
    }

    /// Which way what it reports goes, as logs name it.
    #[must_use]
    pub fn direction(self) -> &'static str {
        match self {
            Self::Source => "outbound",
            Self::Destination => "inbound",
            Self::Waypoint => "through",
        }
    }
}

/// What went wrong, as `response_flags` name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flag {
    /// Nothing.
    None,
    /// Policy refused.
    Deny,
    /// The next hop, or the application, could not be reached.
    Connect,
    /// TLS failed.
    TlsFailure,
    /// TLS was good, HTTP/2 was not.
    Http2Failure,
    /// This end has no certificate, or the other no identity.
    IdentityError,
}

impl Flag {
    /// The value of the label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::Http2Failure => "H2_HANDSHAKE_FAILURE",
            Self::IdentityError => "IDENTITY_ERROR",
        }
    }
}

/// Why a connection did not come about, or was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What went wrong.
    pub flag: Flag,
    /// Whose fault it is; none where the connection merely ended.
    pub layer: Option<Layer>,
    /// For people.
    pub reason: String,
    /// The policy to blame.
    pub policy: Option<String>,
}
