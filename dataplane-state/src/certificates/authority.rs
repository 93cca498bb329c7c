//! The signer that asks the control plane's certificate authority.

use futures::future::BoxFuture;
use prost_types::{Struct, Value, value::Kind};
use tokio::sync::Mutex;
use tonic::Code;
use tonic::transport::Channel;
use trefoil_api::Identity;
use trefoil_api::proto::istio::v1::auth::IstioCertificateRequest;

use super::{SignError, Signer};
use crate::discovery::stubs::certificate::istio_certificate_service_client::IstioCertificateServiceClient;
use crate::discovery::{ControlPlane, ControlPlaneError};

/// For whom the caller asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// For itself: its token says who it is.
    Own,
    /// For workloads of its node: the request says which.
    Node,
}

/// Asks the control plane.
pub struct Authority {
    control_plane: ControlPlane,
    scope: Scope,
    /// Seconds; the authority may give less.
    lifetime: i64,
    /// The connection that last worked.
    channel: Mutex<Option<Channel>>,
}

impl Authority {
    /// A signer that asks for certificates of `lifetime` seconds.
    #[must_use]
    pub fn new(control_plane: ControlPlane, scope: Scope, lifetime: i64) -> Self {
        Self {
            control_plane,
            scope,
            lifetime,
            channel: Mutex::new(None),
        }
    }

    async fn channel(&self) -> Result<Channel, ControlPlaneError> {
        let mut kept = self.channel.lock().await;
        if let Some(channel) = &*kept {
            return Ok(channel.clone());
        }
        let channel = self.control_plane.connect().await?;
        *kept = Some(channel.clone());
        Ok(channel)
    }

    async fn ask(&self, identity: Identity, csr: String) -> Result<Vec<String>, SignError> {
        let unreachable = |error: ControlPlaneError| SignError::Unreachable(error.to_string());
        let mut request = tonic::Request::new(IstioCertificateRequest {
            csr,
            validity_duration: self.lifetime,
            metadata: (self.scope == Scope::Node).then(|| impersonating(&identity)),
        });
        request.set_timeout(std::time::Duration::from_secs(10));
        let authorization = self.control_plane.authorization().await.map_err(unreachable)?;
        request.metadata_mut().insert("authorization", authorization);
        let mut client = IstioCertificateServiceClient::new(self.channel().await.map_err(unreachable)?);
        match client.create_certificate(request).await {
            Ok(response) => Ok(response.into_inner().cert_chain),
            Err(status) => {
                // The roots may have rotated: the next attempt begins anew.
                *self.channel.lock().await = None;
                let problem = format!("{}: {}", status.code(), status.message());
                Err(match status.code() {
                    Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                        SignError::Unreachable(problem)
                    }
                    _ => SignError::Refused(problem),
                })
            }
        }
    }
}

fn impersonating(identity: &Identity) -> Struct {
    let name = Value {
        kind: Some(Kind::StringValue(identity.to_string())),
    };
    Struct {
        fields: [("ImpersonatedIdentity".to_owned(), name)].into(),
    }
}

impl Signer for Authority {
    fn sign(&self, identity: &Identity, csr: String) -> BoxFuture<'_, Result<Vec<String>, SignError>> {
        Box::pin(self.ask(identity.clone(), csr))
    }
}
