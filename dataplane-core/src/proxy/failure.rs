//! Why a connection did not come about or was cut: what is wrong, whose fault it is, and what is answered.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;

use crate::authorize::Denied;
use crate::certificates::CertificateError;
use crate::forward::ForwardError;
use crate::hbone::{BadRequest, OpenError};
use crate::identify::Unidentified;
use crate::sockets::ConnectError;
use crate::telemetry::{Flag, Layer, Outcome};

/// Why a connection did not come about or was cut.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("where the connection was going is not known: {0}")]
    OriginalDestination(io::Error),
    #[error("dialled a port of the plane itself: {0}")]
    Loop(SocketAddr),
    #[error("the workload of this pod is not known here yet")]
    OwnWorkloadUnknown,
    #[error("{0} is not known, and only what is known may be reached (outbound: RegistryOnly)")]
    NotRegistered(SocketAddr),
    #[error("{0} is of the mesh, but what the control plane says of it is not understood here")]
    NotUnderstood(SocketAddr),
    #[error("service {0} has no healthy endpoint")]
    NoEndpoint(String),
    #[error(transparent)]
    Tunnel(#[from] OpenError),
    #[error("application or address: {0}")]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Denied(#[from] Denied),
    #[error("{0} is not here: its address was another's, or is now")]
    WrongDestination(String),
    #[error("{0}")]
    BadRequest(#[from] BadRequest),
    #[error("TLS with the client's plane: {0}")]
    Tls(io::Error),
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    #[error("{0}")]
    Unidentified(#[from] Unidentified),
    #[error("HTTP/2 with the client's plane: {0}")]
    Http2(#[from] h2::Error),
    #[error("what the server's workload may have of {0} is used up")]
    Budget(&'static str),
    #[error("{0}")]
    Forward(#[from] ForwardError),
    #[error("the server's plane has not answered within {0:?}")]
    PlaneSilent(Duration),
    #[error("nobody has answered within {0:?}")]
    Silent(Duration),
}

impl Failure {
    /// What is answered to a request for a tunnel's stream.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Denied(_) => StatusCode::UNAUTHORIZED,
            Self::BadRequest(_) | Self::WrongDestination(_) | Self::Loop(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn flag(&self) -> Flag {
        match self {
            Self::Denied(_) | Self::Tunnel(OpenError::Refused(StatusCode::UNAUTHORIZED)) => Flag::Deny,
            Self::Tls(_) | Self::Tunnel(OpenError::Tls(_)) => Flag::TlsFailure,
            Self::Http2(_) | Self::Tunnel(OpenError::Http2(_)) => Flag::Http2Failure,
            Self::Certificate(_) | Self::Unidentified(_) | Self::Tunnel(OpenError::Certificate(_)) => {
                Flag::IdentityError
            }
            // Either end may reset what it likes; the connection had come about.
            Self::Forward(_) => Flag::None,
            _ => Flag::Connect,
        }
    }

    /// Whose fault it is, seen from `plane`, of a connection to a workload that is served by `far`.
    fn layer(&self, plane: Layer, far: Option<Layer>) -> Option<Layer> {
        match self {
            Self::Tunnel(error) if error.is_of_far_end() => Some(far.unwrap_or(plane)),
            Self::PlaneSilent(_) => Some(far.unwrap_or(plane)),
            Self::OriginalDestination(_) | Self::Loop(_) => Some(Layer::Redirection),
            Self::Denied(_) | Self::Tunnel(OpenError::Refused(StatusCode::UNAUTHORIZED)) => {
                Some(Layer::Policy)
            }
            Self::Connect(ConnectError::Socket(_)) => Some(plane),
            Self::Connect(_)
            | Self::Silent(_)
            | Self::NoEndpoint(_)
            | Self::Tunnel(OpenError::Refused(StatusCode::SERVICE_UNAVAILABLE)) => Some(Layer::Application),
            Self::Forward(_) => None,
            _ => Some(plane),
        }
    }

    pub(super) fn outcome(&self, plane: Layer, far: Option<Layer>) -> Outcome {
        let policy = match self {
            Self::Denied(denied) => denied.policy().map(str::to_owned),
            _ => None,
        };
        Outcome {
            flag: self.flag(),
            layer: self.layer(plane, far),
            reason: self.to_string(),
            policy,
        }
    }
}
