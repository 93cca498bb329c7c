//! TLS with certificates of the mesh's own authority, renewed while it runs. A client that does not finish
//! its handshake holds up nobody.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::ca::{Error, Keeper};

/// Of the control plane's own certificate.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at a time.
const HANDSHAKES: usize = 256;

/// Names of the control plane.
pub const NAMES: [&str; 6] = [
    "trefoil-control-plane.trefoil-system.svc",
    "trefoil-control-plane.trefoil-system.svc.cluster.local",
    "trefoil-control-plane.trefoil-system",
    "localhost",
    "istiod.istio-system.svc",
    "istiod.istio-system.svc.cluster.local",
];

/// The certificate that is shown now.
#[derive(Debug, Default)]
pub struct Shown {
    key: RwLock<Option<Arc<CertifiedKey>>>,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shown {
    /// Signs and shows a new certificate.
    pub fn renew(&self, keeper: &Keeper) -> Result<(), Error> {
        let names = NAMES.map(String::from);
        let (chain, key) = keeper.authority().serve(&names, LIFETIME)?;
        let key =
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|error| Error::Unusable {
                what: "the serving key",
                problem: error.to_string(),
            })?;
        *self.key.write().unwrap_or_else(PoisonError::into_inner) =
            Some(Arc::new(CertifiedKey::new(chain, key)));
        Ok(())
    }

    /// Renews the certificate at half its life, and when the authority changes, until told to stop.
    pub async fn keep(&self, keeper: &Keeper, stop: &CancellationToken) {
        let mut by = keeper.authority().in_force();
        let mut age = Duration::ZERO;
        let step = Duration::from_secs(10);
        while stop.run_until_cancelled(tokio::time::sleep(step)).await.is_some() {
            age += step;
            let changed = keeper.authority().in_force() != by;
            if !changed && age < LIFETIME / 2 {
                continue;
            }
            match self.renew(keeper) {
                Ok(()) => {
                    age = Duration::ZERO;
                    by = keeper.authority().in_force();
                }
                Err(error) => tracing::error!(%error, "the serving certificate cannot be renewed"),
            }
        }
    }
}

/// The server's side of TLS 1.3 and, for clients of webhooks, 1.2.
pub fn tls(shown: Arc<Shown>, protocols: &[&[u8]]) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(shown);
    config.alpn_protocols = protocols.iter().map(|one| one.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Accepts connections and hands them on once their handshake is done, until told to stop.
pub fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    stop: CancellationToken,
) -> mpsc::Receiver<io::Result<TlsStream<TcpStream>>> {
    let (sender, receiver) = mpsc::channel(16);
    let acceptor = TlsAcceptor::from(config);
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    tokio::spawn(async move {
        loop {
            let Ok(permit) = handshakes.clone().acquire_owned().await else {
                return;
            };
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            tokio::spawn(async move {
                if let Some(stream) = handshake(&acceptor, stream, peer).await {
                    // The receiver is gone when the process ends.
                    let _ = sender.send(Ok(stream)).await;
                }
                drop(permit);
            });
        }
    });
    receiver
}

async fn handshake(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    // Small messages are not held back; a failure to say so is no reason to refuse.
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!(%peer, "TLS handshake took too long");
            None
        }
    }
}
