//! The layers that a connection passes, of which a refusal names one.

use serde::Serialize;

/// Whose fault a refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// What brought the connection here.
    Redirection,
    /// The node proxy.
    Node,
    /// The sidecar.
    Sidecar,
    /// The waypoint.
    Waypoint,
    /// Authorization.
    Policy,
    /// The server's application.
    Application,
}

impl Layer {
    /// As logs name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redirection => "redirection",
            Self::Node => "node",
            Self::Sidecar => "sidecar",
            Self::Waypoint => "waypoint",
            Self::Policy => "policy",
            Self::Application => "application",
        }
    }
}
