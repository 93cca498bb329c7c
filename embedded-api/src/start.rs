//! Putting the API together, and taking it down.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use trefoil_api::names::{GATEWAY_CONTROLLER, MESH_NAMESPACE, WAYPOINT_CLASS};

use crate::authority::{Authority, AuthorityError};
use crate::authorize::Account;
use crate::server::{Server, Validate};
use crate::status::ApiError;
use crate::store::{Key, Store, StoreError};
use crate::tokens::{ISSUER, TokenError, Tokens};
use crate::{kinds, kubeconfig, objects, serve};

/// The namespaces that every mesh begins with.
const NAMESPACES: [&str; 3] = ["default", "kube-system", MESH_NAMESPACE];
/// The accounts of the mesh's own parts.
const ACCOUNTS: [&str; 3] = ["trefoil-control-plane", "trefoil-cni", "trefoil-node"];
/// A year: the control plane gets a new one at every start.
const OWN_TOKEN_SECONDS: u64 = 365 * 24 * 3600;

/// How to serve.
#[derive(Clone)]
pub struct EmbeddedConfig {
    /// The store's folder.
    pub store_dir: PathBuf,
    /// Where to listen; port 0 is any. The kubeconfigs name the first.
    pub listen: Vec<SocketAddr>,
    /// Where to write the admin's kubeconfig (mode 0600).
    pub kubeconfig_out: Option<PathBuf>,
    /// Judges every object that is written.
    pub validate: Validate,
}

/// Why the API cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The API's keys.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The key of tokens.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// An address.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// No address.
    #[error("the embedded API needs an address to listen on")]
    NoAddress,
    /// The kubeconfig.
    #[error("cannot write the kubeconfig {0}: {1}")]
    Kubeconfig(PathBuf, std::io::Error),
    /// The first objects.
    #[error("cannot create the first objects: {0}")]
    Seed(String),
}

/// The API, serving until [`shutdown`](Self::shutdown).
pub struct Embedded {
    addresses: Vec<SocketAddr>,
    admin: Value,
    control_plane: Value,
    store: Store,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Opens the store and serves.
///
/// # Errors
/// When the store cannot be opened, an address is taken, or the kubeconfig cannot be written.
pub async fn start(config: EmbeddedConfig) -> Result<Embedded, EmbeddedError> {
    let clock: fn() -> OffsetDateTime = OffsetDateTime::now_utc;
    let folder = config.store_dir.clone();
    let store = tokio::task::spawn_blocking(move || Store::open(&folder))
        .await
        .map_err(|error| StoreError::Open(error.to_string()))??;
    let authority = Authority::load(&store, clock()).await?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let server = Arc::new(Server {
        tokens: Tokens::from_pem(&authority.token_key)?,
        admin_token: authority.admin_token.clone(),
        validate: config.validate,
        stop: stop.clone(),
        store: store.clone(),
        clock,
    });
    seed(&server)
        .await
        .map_err(|error| EmbeddedError::Seed(error.to_string()))?;

    let mut listeners = Vec::new();
    for address in &config.listen {
        let listener = TcpListener::bind(address).await;
        listeners.push(listener.map_err(|error| EmbeddedError::Listen(*address, error))?);
    }
    let addresses: Vec<SocketAddr> = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .collect();
    let reached = addresses
        .first()
        .copied()
        .map(reachable)
        .ok_or(EmbeddedError::NoAddress)?;
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let named: Vec<IpAddr> = addresses.iter().map(SocketAddr::ip).chain(loopback).collect();
    let tls = TlsAcceptor::from(authority.server_config(&named, clock())?);

    let admin = kubeconfig::make(reached, &authority.certificate, "admin", &authority.admin_token);
    if let Some(path) = &config.kubeconfig_out {
        kubeconfig::write(path, &admin).map_err(|error| EmbeddedError::Kubeconfig(path.clone(), error))?;
    }
    let token = own_token(&server)?;
    let control_plane = kubeconfig::make(reached, &authority.certificate, ACCOUNTS[0], &token);
    for listener in listeners {
        let (server, stop, tracker) = (server.clone(), stop.clone(), tasks.clone());
        tasks.spawn(serve::serve(listener, tls.clone(), server, stop, tracker));
    }
    tracing::info!(?addresses, store = %config.store_dir.display(), "the embedded API serves");
    Ok(Embedded {
        addresses,
        admin,
        control_plane,
        store,
        stop,
        tasks,
    })
}

impl Embedded {
    /// Where it listens, with real ports.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The admin's kubeconfig, as JSON.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> &Value {
        &self.admin
    }

    /// The kubeconfig of `trefoil-system/trefoil-control-plane`, as JSON.
    #[must_use]
    pub fn kubeconfig(&self) -> &Value {
        &self.control_plane
    }

    /// Ends watches, lets requests finish, and closes the store.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close().await;
    }
}

/// An address that a client can dial.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// Creates what every mesh begins with, where it is missing.
async fn seed(server: &Server) -> Result<(), ApiError> {
    let accounts = ACCOUNTS.map(|name| (&kinds::SERVICE_ACCOUNT, Some(MESH_NAMESPACE), name, Value::Null));
    let class = json!({ "controllerName": GATEWAY_CONTROLLER });
    for (kind, namespace, name, spec) in NAMESPACES
        .map(|name| (&kinds::NAMESPACE, None, name, Value::Null))
        .into_iter()
        .chain(accounts)
        .chain([(&kinds::GATEWAY_CLASS, None, WAYPOINT_CLASS, class)])
    {
        let (birth, validate) = (server.birth(), server.validate.clone());
        server
            .store
            .write(move |transaction| {
                if transaction
                    .get(&Key::new(kind.resource, namespace.unwrap_or_default(), name))
                    .is_none()
                {
                    let mut object = json!({ "metadata": { "name": name } });
                    if !spec.is_null() {
                        object["spec"] = spec;
                    }
                    objects::create(transaction, kind, namespace, object, &birth, &*validate)?;
                }
                Ok::<_, ApiError>(())
            })
            .await?;
    }
    Ok(())
}

/// The control plane's own token.
fn own_token(server: &Server) -> Result<String, EmbeddedError> {
    let key = Key::new(kinds::SERVICE_ACCOUNT.resource, MESH_NAMESPACE, ACCOUNTS[0]);
    let snapshot = server.store.snapshot();
    let account = snapshot
        .get(&key)
        .ok_or_else(|| EmbeddedError::Seed("no account".into()))?;
    let account = Account {
        namespace: MESH_NAMESPACE.into(),
        name: ACCOUNTS[0].into(),
        uid: account["metadata"]["uid"].as_str().unwrap_or_default().into(),
        pod: None,
        node: None,
    };
    Ok(server
        .tokens
        .issue(&account, &[ISSUER.to_owned()], server.now(), OWN_TOKEN_SECONDS)?)
}
