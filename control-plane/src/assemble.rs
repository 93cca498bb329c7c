//! Puts the parts together over a Kubernetes client, of a cluster or of the embedded API, and takes them down
//! again. It decides nothing.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::Client;
use serde_json::Value;
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ca::{self, Keeper};
use crate::deployment;
use crate::objects::Objects;
use crate::serve::admin::{self, Admin, LogLevel};
use crate::serve::agents::{ABSENCE, Agents, Presence};
use crate::serve::callers::Callers;
use crate::serve::certificates::Certificates;
use crate::serve::listener::{self, Shown};
use crate::serve::metrics::Metrics;
use crate::serve::stubs;
use crate::serve::xds::{Discovery, Hub};
use crate::upkeep::{Election, Upkeep};

/// The largest report: of all pods of a node.
const REQUEST_BYTES: usize = 64 << 20;

/// Bytes that a client may send ahead of their being read.
const WINDOW: u32 = 128 << 10;

/// How to serve.
#[derive(Clone)]
pub struct Options {
    /// Discovery, certificates, agents.
    pub listen: SocketAddr,
    /// Metrics and readiness.
    pub metrics_listen: SocketAddr,
    /// The admin interface; none for none.
    pub admin_socket: Option<PathBuf>,
    /// Admission; none for none.
    pub webhook_listen: Option<SocketAddr>,
    /// The image of injected sidecars.
    pub sidecar_image: String,
    /// What waypoints' pods are made by.
    pub waypoint: deployment::Settings,
    /// Unless the mesh configuration says otherwise.
    pub trust_domain: String,
    /// Tokens for these are accepted.
    pub token_audiences: Vec<String>,
    /// Accounts of node proxies, (namespace, name).
    pub node_accounts: Vec<(String, String)>,
    /// Shown by the admin interface.
    pub flags: Value,
    /// Changes what is logged.
    pub log_level: LogLevel,
    /// Ends the process gracefully; cancelled by the admin interface too.
    pub drain: CancellationToken,
}

/// Why it cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An address or a socket.
    #[error("cannot listen on {0}: {1}")]
    Listen(String, std::io::Error),
    /// The certificate authority.
    #[error(transparent)]
    Authority(#[from] ca::Error),
    /// TLS.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// A control plane that serves.
#[derive(Debug)]
pub struct ControlPlane {
    /// Where discovery, certificates and agents are served.
    pub address: SocketAddr,
    /// Where metrics are.
    pub metrics_address: SocketAddr,
    /// Where admission is.
    pub webhook_address: Option<SocketAddr>,
    /// What changes and clients there are.
    pub hub: Arc<Hub>,
    /// Its authority.
    pub keeper: Keeper,
    election: Election,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl ControlPlane {
    /// Starts everything.
    pub async fn start(client: Client, options: Options) -> Result<Self, Error> {
        let keeper = Keeper::new(
            client.clone(),
            ca::load_or_create(&client, &options.trust_domain).await?,
        );
        let shown = Arc::new(Shown::default());
        shown.renew(&keeper)?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let metrics = Arc::new(Metrics::default());
        let hub = Arc::new(Hub::default());
        let objects = Objects::start(
            client.clone(),
            &options.trust_domain,
            hub.clone(),
            metrics.clone(),
            &stop,
        );
        let parts = Parts {
            client,
            keeper: keeper.clone(),
            hub: hub.clone(),
            objects,
            metrics,
            shown,
            stop: stop.clone(),
            tasks: tasks.clone(),
            signings: Arc::default(),
        };
        let address = parts.grpc(&options).await?;
        let metrics_address = parts.admin(&options).await?;
        let webhook_address = parts.webhook(&options).await?;
        let election = parts.keep(&options);
        tracing::info!(%address, %metrics_address, ?webhook_address, "the control plane serves");
        Ok(Self {
            address,
            metrics_address,
            webhook_address,
            hub,
            keeper,
            election,
            tasks,
            stop,
        })
    }

    /// Ends streams and tasks, for at most `deadline`.
    pub async fn stop(self, deadline: Duration) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(deadline, self.tasks.wait()).await.is_err() {
            tracing::warn!("not everything ended in time");
        }
        // What writes has ended by now.
        if let Err(error) = self.election.resign().await {
            tracing::warn!(%error, "another replica writes once this one's lease has ended");
        }
    }
}

/// What the services share while they are put together.
struct Parts {
    client: Client,
    keeper: Keeper,
    hub: Arc<Hub>,
    objects: Objects,
    metrics: Arc<Metrics>,
    shown: Arc<Shown>,
    stop: CancellationToken,
    tasks: TaskTracker,
    signings: Arc<Mutex<VecDeque<crate::serve::certificates::Signing>>>,
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |error| Error::Listen(address.to_string(), error);
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

impl Parts {
    async fn grpc(&self, options: &Options) -> Result<SocketAddr, Error> {
        use stubs::istio::v1::auth::istio_certificate_service_server::IstioCertificateServiceServer;
        use stubs::trefoil::v1::node_agent_service_server::NodeAgentServiceServer;
        let (listener, address) = listen(options.listen).await?;
        let config = listener::tls(self.shown.clone(), &[b"h2"])?;
        let connections = listener::accept(listener, config, self.stop.clone());
        let callers = Arc::new(Callers::new(
            self.client.clone(),
            options.token_audiences.clone(),
            self.metrics.clone(),
        ));
        let discovery = Discovery {
            hub: self.hub.clone(),
            callers: callers.clone(),
            metrics: self.metrics.clone(),
            stop: self.stop.clone(),
        };
        let certificates = Certificates {
            keeper: self.keeper.clone(),
            callers: callers.clone(),
            hub: self.hub.clone(),
            client: self.client.clone(),
            node_accounts: Arc::new(options.node_accounts.clone()),
            settings: self.objects.mesh(),
            metrics: self.metrics.clone(),
            signings: self.signings.clone(),
        };
        let agents = Agents {
            callers,
            objects: self.objects.clone(),
            hub: self.hub.clone(),
            presence: Arc::new(Presence::new(ABSENCE)),
            metrics: self.metrics.clone(),
            stop: self.stop.clone(),
        };
        let server = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(30)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            // What a thousand clients say at once waits with them, not here.
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .add_service(discovery)
            .add_service(IstioCertificateServiceServer::new(certificates))
            .add_service(NodeAgentServiceServer::new(agents).max_decoding_message_size(REQUEST_BYTES));
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let connections = ReceiverStream::new(connections);
            let served = server.serve_with_incoming_shutdown(connections, stop.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(%error, "the gRPC server ended");
            }
        });
        Ok(address)
    }

    async fn admin(&self, options: &Options) -> Result<SocketAddr, Error> {
        let admin = Admin {
            flags: options.flags.clone(),
            hub: self.hub.clone(),
            objects: self.objects.clone(),
            keeper: self.keeper.clone(),
            signings: self.signings.clone(),
            registry: Arc::new(self.metrics.registry()),
            log_level: options.log_level.clone(),
            drain: options.drain.clone(),
        };
        if let Some(path) = &options.admin_socket {
            let failed = |error| Error::Listen(path.display().to_string(), error);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(failed)?;
            }
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
            let socket = UnixListener::bind(path).map_err(failed)?;
            self.serve_http(socket, admin::private(admin.clone()));
        }
        let (listener, address) = listen(options.metrics_listen).await?;
        self.serve_http(listener, admin::public(admin));
        Ok(address)
    }

    fn serve_http<L>(&self, listener: L, router: axum::Router)
    where
        L: axum::serve::Listener,
        L::Addr: std::fmt::Debug,
    {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(%error, "an HTTP server ended");
            }
        });
    }

    async fn webhook(&self, options: &Options) -> Result<Option<SocketAddr>, Error> {
        let Some(address) = options.webhook_listen else {
            return Ok(None);
        };
        let (listener, address) = listen(address).await?;
        let config = listener::tls(self.shown.clone(), &[b"h2", b"http/1.1"])?;
        let connections = listener::accept(listener, config, self.stop.clone());
        let webhook = crate::webhook::Webhook {
            client: self.client.clone(),
            mesh: self.objects.mesh(),
            sidecar_image: options.sidecar_image.clone(),
            metrics: self.metrics.clone(),
        };
        self.tasks
            .spawn(crate::webhook::serve(webhook, connections, self.stop.clone()));
        Ok(Some(address))
    }

    /// Everything that is kept true in the background, and who of the replicas writes.
    fn keep(&self, options: &Options) -> Election {
        let (shown, keeper, stop) = (self.shown.clone(), self.keeper.clone(), self.stop.clone());
        self.tasks.spawn(async move { shown.keep(&keeper, &stop).await });
        let upkeep = Upkeep::new(self.client.clone(), self.keeper.clone(), self.objects.clone());
        let waypoints = upkeep.clone().deploy_waypoints(options.waypoint.clone());
        self.tasks
            .spawn(self.stop.clone().run_until_cancelled_owned(waypoints));
        let stop = self.stop.clone();
        self.tasks.spawn(
            stop.clone()
                .run_until_cancelled_owned(upkeep.clone().hand_out_roots()),
        );
        let election = upkeep.election();
        self.tasks
            .spawn(stop.run_until_cancelled_owned(upkeep.write_statuses()));
        election
    }
}
