//! Planes as processes: what they show to people, what they remember, how they begin and end; and, put together, the
//! process of a plane of one workload. What it does with traffic is the plane's own: nothing here opens a port for it.

pub mod admin;
pub mod memory;
pub mod metrics_server;
mod options;
mod question;
pub mod readiness;
pub mod remember;
mod signals;
#[cfg(test)]
mod tests;

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use trefoil_api::Identity;
use trefoil_api::identity::NotAnIdentity;
use trefoil_api::names::workload_uid;

pub use options::{Options, Question};
pub use question::QuestionError;
pub use readiness::Readiness;
pub use signals::Signals;

use trefoil_dataplane_core::Drain;
use trefoil_dataplane_core::drain::Drained;
use trefoil_dataplane_core::proxy::{Proxy, ProxyConfig, ProxyParts};
use trefoil_dataplane_core::sockets::listener;
use trefoil_dataplane_core::telemetry::{Layer, Metrics};
use trefoil_dataplane_state::certificates::{Authority, AuthorityScope, Settings};
use trefoil_dataplane_state::discovery::{ControlPlane, Discovery, Held, Node, Status};
use trefoil_dataplane_state::{Certificates, Store};

use crate::admin::{Admin, LogError, LogLevel};
use crate::remember::Remember;

/// The last-known-good configuration, in the folder of state.
const REMEMBERED: &str = "last-known-good";
/// How often it is written at most.
const REMEMBER: Duration = Duration::from_secs(1);

/// Everything that lives as long as the process.
pub struct Process {
    /// What the user said.
    pub options: Options,
    /// Which plane this is.
    pub plane: Layer,
    /// Who it is.
    pub identity: Identity,
    /// Its xDS uid.
    pub workload: String,
    /// What is known of the mesh.
    pub store: Store,
    /// Certificates of its identity.
    pub certificates: Arc<Certificates>,
    /// Where connections are counted.
    pub metrics: Metrics,
    /// What carries connections.
    pub proxy: Arc<Proxy>,
    /// What is awaited.
    pub readiness: Readiness,
    /// When it is to finish.
    pub drain: Drain,
    level: LogLevel,
    discovery: watch::Receiver<Status>,
}

/// Why a process cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Of the options.
    #[error("log level: {0}")]
    LogLevel(#[from] LogError),
    /// Of the options.
    #[error("namespace, service account and trust domain: {0}")]
    Identity(#[from] NotAnIdentity),
    /// A port that another has, as a rule.
    #[error("listening on {address} for {what}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What for.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl Process {
    /// The parts of a `plane` that feed and read `store`. The control plane is followed from now on.
    pub fn new(
        options: &Options,
        plane: Layer,
        store: Store,
        registry: &mut Registry,
    ) -> Result<Self, StartError> {
        let level = LogLevel::init(&options.log_level, options.log_format)?;
        let identity = Identity::new(
            &options.trust_domain,
            &options.namespace,
            &options.service_account,
        )?;
        let control_plane = ControlPlane {
            url: options.control_plane.clone(),
            name: options.control_plane_name.clone(),
            root: options.root_cert.clone(),
            token: options.token.clone(),
        };
        let lifetime = i64::from(options.certificate_lifetime);
        let authority = Authority::new(control_plane.clone(), AuthorityScope::Own, lifetime);
        let certificates = Certificates::new(Arc::new(authority), Settings::default());
        certificates.register(registry.sub_registry_with_prefix("trefoil"));
        certificates.follow_authority(&store);
        let discovery = follow(options, plane, control_plane, &store, registry);
        let drain = Drain::new();
        let metrics = Metrics::register(registry);
        let proxy = Proxy::new(ProxyParts {
            store: store.clone(),
            certificates: certificates.clone(),
            metrics: metrics.clone(),
            config: ProxyConfig::of(plane),
            drain: drain.clone(),
        });
        Ok(Self {
            options: options.clone(),
            plane,
            identity,
            workload: workload_uid(&options.namespace, &options.pod),
            store,
            certificates,
            metrics,
            proxy,
            readiness: Readiness::new(),
            drain,
            level,
            discovery,
        })
    }

    /// Metrics, readiness and the admin interface, which shows `options`, all that were given, and what `more`
    /// adds to the status: there from the beginning, to say what is awaited.
    pub fn listen_for_people(
        self: &Arc<Self>,
        registry: Registry,
        options: &impl Serialize,
        more: impl Fn(&Self) -> Value + Clone + Send + Sync + 'static,
    ) -> Result<(), StartError> {
        let bound = |address: SocketAddr, what: &'static str| {
            listener(address).map_err(|source| StartError::Listen {
                address,
                what,
                source,
            })
        };
        let metrics = bound(self.options.metrics_listen, "metrics")?;
        let readiness = bound(self.options.readiness_listen, "readiness")?;
        tokio::spawn(metrics_server::serve(
            metrics,
            metrics_server::router(Arc::new(registry)),
        ));
        tokio::spawn(metrics_server::serve(readiness, self.readiness.router()));
        let admin = self.admin(json!({ "plane": self.plane, "options": options }), more);
        let socket = self.options.admin_socket.clone();
        tokio::spawn(async move {
            if let Err(error) = admin.serve(&socket).await {
                tracing::error!(socket = %socket.display(), %error, "no admin interface");
            }
        });
        Ok(())
    }

    fn admin(
        self: &Arc<Self>,
        config: Value,
        more: impl Fn(&Self) -> Value + Clone + Send + Sync + 'static,
    ) -> Admin {
        let (certificates, status) = (self.clone(), self.clone());
        Admin::new(self.drain.clone(), self.level.clone())
            .with_store(&self.store)
            .with_readiness(&self.readiness)
            .with("/config", move || ready(config.clone()))
            .with("/certificates", move || {
                ready(json!({ "certificates": certificates.certificates.summaries() }))
            })
            .with_proxy(&self.proxy)
            .with("/status", move || ready(status.status(more(&status))))
    }

    fn status(&self, more: Value) -> Value {
        let mut status = json!({
            "plane": self.plane,
            "version": env!("CARGO_PKG_VERSION"),
            "identity": self.identity.to_string(),
            "workload": self.workload,
            "node": self.options.node,
            "ready": self.readiness.pending().is_empty(),
            "pending": self.readiness.pending(),
            "draining": self.drain.is_draining(),
            "controlPlane": *self.discovery.borrow(),
        });
        if let (Some(status), Value::Object(more)) = (status.as_object_mut(), more) {
            status.extend(more);
        }
        status
    }

    /// Waits for what must be known first, then takes traffic by `take`, and says that it is ready once it can
    /// prove who it is.
    pub async fn serve<E: std::fmt::Display>(self: Arc<Self>, take: impl FnOnce(&Self) -> Result<(), E>) {
        let resources = self
            .readiness
            .block("policies and workloads from the control plane");
        let certificate = self.readiness.block("a certificate from the control plane");
        let listeners = self.readiness.block("listeners");
        self.certificates.fetch_ahead(&self.identity);
        self.store.until_synced().await;
        drop(resources);
        if let Err(error) = take(&self) {
            tracing::error!(%error, "cannot take traffic");
            // Never ready: what is awaited stays awaited.
            return std::future::pending().await;
        }
        drop(listeners);
        let mut issued = self.certificates.changes();
        // The sender lives in `certificates`, which outlives this.
        let _ = issued.wait_for(|_| self.certificates.has(&self.identity)).await;
        drop(certificate);
        tracing::info!(identity = %self.identity, "serving");
    }

    /// Runs until told to end, then until what is carried has ended, or its time is over.
    pub async fn until_drained(&self, signals: Signals) {
        let drained = signals.drain(&self.drain, self.options.drain_deadline());
        let not_ready = async {
            self.drain.draining().await;
            self.readiness.block("draining")
        };
        let (drained, _block) = tokio::join!(drained, not_ready);
        match drained {
            Drained::Complete => tracing::info!("drained"),
            Drained::Forced { remaining } => tracing::warn!(remaining, "ended with connections open"),
        }
    }
}

/// Begins with what was remembered, follows the control plane, and remembers.
fn follow(
    options: &Options,
    plane: Layer,
    control_plane: ControlPlane,
    store: &Store,
    registry: &mut Registry,
) -> watch::Receiver<Status> {
    let remember = options
        .state_dir
        .as_ref()
        .map(|folder| Remember::new(folder.join(REMEMBERED), REMEMBER));
    let held = remember.as_ref().map_or_else(Held::new, Remember::recall);
    if !held.is_empty() {
        tracing::info!(resources = held.len(), "serving what was last known");
    }
    let node = Node {
        role: plane.as_str(),
        pod: options.pod.clone(),
        namespace: options.namespace.clone(),
        node: options.node.clone(),
        addresses: Vec::new(),
    };
    let discovery = Discovery::new(control_plane, node, store.clone(), held);
    if let Some(remember) = remember {
        tokio::spawn(remember.run(discovery.held()));
    }
    discovery.register(registry.sub_registry_with_prefix("istio"));
    let status = discovery.status();
    tokio::spawn(discovery.run());
    status
}
