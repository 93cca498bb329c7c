//! Why a connection did not come about or was cut: what is wrong, whose fault it is, and what is answered.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use h2::Reason;
use http::StatusCode;

use crate::authorize::Denied;
use crate::forward::{Broken, ForwardError};
use crate::hbone::{BadRequest, OpenError};
use crate::identify::Unidentified;
use crate::sockets::ConnectError;
use crate::telemetry::{Flag, Layer, Outcome};
use trefoil_dataplane_state::certificates::CertificateError;

/// Why a connection did not come about or was cut.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The kernel does not say.
    #[error("where the connection was going is not known: {0}")]
    OriginalDestination(io::Error),
    /// What was not redirected here has no business here.
    #[error("dialled a port of the plane itself: {0}")]
    Loop(SocketAddr),
    /// Nothing can be decided for it.
    #[error("the workload of this pod is not known here yet")]
    OwnWorkloadUnknown,
    /// The mesh's settings refuse strangers.
    #[error("{0} is not known, and only what is known may be reached (outbound: RegistryOnly)")]
    NotRegistered(SocketAddr),
    /// How it may be reached is not known.
    #[error("{0} is of the mesh, but what the control plane says of it is not understood here")]
    NotUnderstood(SocketAddr),
    /// Of a service.
    #[error("service {0} has no healthy endpoint")]
    NoEndpoint(String),
    /// Of a waypoint's service.
    #[error("waypoint {0} has no healthy endpoint")]
    NoWaypoint(String),
    /// The tunnel to a waypoint.
    #[error("waypoint: {0}")]
    Waypoint(#[source] OpenError),
    /// The tunnel to the server's plane.
    #[error(transparent)]
    Tunnel(#[from] OpenError),
    /// The application, or a server outside the mesh.
    #[error("application or address: {0}")]
    Connect(#[from] ConnectError),
    /// By policy.
    #[error("{0}")]
    Denied(#[from] Denied),
    /// The client was told what is no longer so.
    #[error("{0} is not here: its address was another's, or is now")]
    WrongDestination(String),
    /// What is asked of a waypoint that it is not for.
    #[error("{0} is not served by this waypoint")]
    NotServed(String),
    /// The request for a stream.
    #[error("{0}")]
    BadRequest(#[from] BadRequest),
    /// At the client's end.
    #[error("TLS with the client's plane: {0}")]
    Tls(io::Error),
    /// This end's.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// The client.
    #[error("{0}")]
    Unidentified(#[from] Unidentified),
    /// At the client's end.
    #[error("HTTP/2 with the client's plane: {0}")]
    Http2(#[from] h2::Error),
    /// A flood of one workload is its own affair.
    #[error("what the server's workload may have of {0} is used up")]
    Budget(&'static str),
    /// It broke while it was carried.
    #[error("{0}")]
    Forward(#[from] ForwardError),
    /// Of a connection that was only tried.
    #[error("the server's plane has not answered within {0:?}")]
    PlaneSilent(Duration),
    /// Of a connection that was only tried.
    #[error("nobody has answered within {0:?}")]
    Silent(Duration),
}

impl Failure {
    /// What is answered to a request for a tunnel's stream.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Denied(_) => StatusCode::UNAUTHORIZED,
            Self::BadRequest(_)
            | Self::WrongDestination(_)
            | Self::NotServed(_)
            | Self::Unidentified(_)
            | Self::Loop(_) => StatusCode::BAD_REQUEST,
            // What lies behind another hop of ours is answered as that one has answered it.
            Self::Waypoint(OpenError::Refused(StatusCode::UNAUTHORIZED))
            | Self::Tunnel(OpenError::Refused(StatusCode::UNAUTHORIZED)) => StatusCode::UNAUTHORIZED,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What a stream is reset with that was opened before it was known that nothing comes of it: [`Self::far_reset`].
    pub(super) fn reset(&self) -> Reason {
        match self {
            Self::Denied(_) => Reason::INADEQUATE_SECURITY,
            Self::Connect(_) => Reason::REFUSED_STREAM,
            _ => Reason::CONNECT_ERROR,
        }
    }

    /// What the server's plane says in so many words of a stream that it had opened: policy does not allow it, or the
    /// application was not reached.
    fn far_reset(&self) -> Option<(Flag, Layer)> {
        let Self::Forward(ForwardError::Server(Broken::Tunnel(error))) = self else {
            return None;
        };
        match error.reason()? {
            Reason::INADEQUATE_SECURITY => Some((Flag::Deny, Layer::Policy)),
            Reason::REFUSED_STREAM => Some((Flag::Connect, Layer::Application)),
            _ => None,
        }
    }

    /// It is a waypoint's that is not there, or does not serve what it is asked for: it may have been removed just now.
    pub(super) fn may_be_out_of_date(&self) -> bool {
        let gone = |error: &OpenError| {
            matches!(
                error,
                OpenError::Connect(_) | OpenError::Refused(StatusCode::BAD_REQUEST)
            )
        };
        match self {
            Self::NoWaypoint(_) => true,
            Self::Waypoint(error) => gone(error),
            _ => false,
        }
    }

    /// A connection that had come about was broken, and nobody says why.
    pub(super) fn is_silent(&self) -> bool {
        matches!(self, Self::Forward(_)) && self.far_reset().is_none()
    }

    /// Why a next hop could not be opened.
    fn hop(&self) -> Option<&OpenError> {
        match self {
            Self::Waypoint(error) | Self::Tunnel(error) => Some(error),
            _ => None,
        }
    }

    fn flag(&self) -> Flag {
        if let Some((flag, _)) = self.far_reset() {
            return flag;
        }
        match (self, self.hop()) {
            (Self::Denied(_), _) | (_, Some(OpenError::Refused(StatusCode::UNAUTHORIZED))) => Flag::Deny,
            (Self::Tls(_), _) | (_, Some(OpenError::Tls(_))) => Flag::TlsFailure,
            (Self::Http2(_), _) | (_, Some(OpenError::Http2(_))) => Flag::Http2Failure,
            (Self::Certificate(_) | Self::Unidentified(_), _) | (_, Some(OpenError::Certificate(_))) => {
                Flag::IdentityError
            }
            // Either end may reset what it likes; the connection had come about.
            (Self::Forward(_), _) => Flag::None,
            _ => Flag::Connect,
        }
    }

    /// Whose fault it is, seen from `plane`, of a connection to a workload that is served by `far`.
    fn layer(&self, plane: Layer, far: Option<Layer>) -> Option<Layer> {
        match self {
            Self::Tunnel(error) if error.is_of_far_end() => Some(far.unwrap_or(plane)),
            Self::PlaneSilent(_) => Some(far.unwrap_or(plane)),
            Self::OriginalDestination(_) | Self::Loop(_) => Some(Layer::Redirection),
            Self::Denied(_) => Some(Layer::Policy),
            Self::Connect(ConnectError::Socket(_)) => Some(plane),
            Self::Connect(_) | Self::Silent(_) | Self::NoEndpoint(_) => Some(Layer::Application),
            Self::Forward(_) => self.far_reset().map(|(_, layer)| layer),
            Self::NoWaypoint(_) | Self::NotServed(_) => Some(Layer::Waypoint),
            _ => match (self.hop(), self) {
                (Some(OpenError::Refused(StatusCode::UNAUTHORIZED)), _) => Some(Layer::Policy),
                (Some(OpenError::Refused(StatusCode::SERVICE_UNAVAILABLE)), _) => Some(Layer::Application),
                // This end's own certificate is not the waypoint's fault.
                (Some(OpenError::Certificate(_)), _) => Some(plane),
                (_, Self::Waypoint(_)) => Some(Layer::Waypoint),
                _ => Some(plane),
            },
        }
    }

    /// What is reported, by `plane`, of a connection to a workload that is served by `far`.
    #[must_use]
    pub fn outcome(&self, plane: Layer, far: Option<Layer>) -> Outcome {
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
