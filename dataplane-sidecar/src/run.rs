//! The running sidecar: parts built from flags, then serving, then draining.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::sync::watch;
use trefoil_api::names::{port, workload_uid};
use trefoil_api::{Identity, proto::trefoil::v1::Plane};
use trefoil_dataplane_core::admin::{Admin, LogLevel};
use trefoil_dataplane_core::certificates::{Authority, AuthorityScope, Certificates, Settings};
use trefoil_dataplane_core::discovery::{ControlPlane, Discovery, Held, Node, Status};
use trefoil_dataplane_core::drain::{Drained, Signals};
use trefoil_dataplane_core::proxy::{Pod, Proxy, ProxyConfig, ProxyParts};
use trefoil_dataplane_core::remember::Remember;
use trefoil_dataplane_core::sockets::{OwnNamespace, listen, listener};
use trefoil_dataplane_core::telemetry::{Layer, Metrics};
use trefoil_dataplane_core::{Drain, Readiness, Store, metrics_server};

use crate::options::Run;
use crate::placement;

/// The last-known-good configuration, in the folder of state.
const REMEMBERED: &str = "last-known-good";
/// How often it is written at most.
const REMEMBER: Duration = Duration::from_secs(1);

/// Everything that lives as long as the process.
struct Sidecar {
    options: Run,
    identity: Identity,
    workload: String,
    store: Store,
    certificates: Arc<Certificates>,
    proxy: Arc<Proxy>,
    readiness: Readiness,
    drain: Drain,
    discovery: watch::Receiver<Status>,
}

/// Serves until told to end.
pub(crate) async fn run(options: &Run) -> anyhow::Result<()> {
    let level = LogLevel::init(&options.log_level, options.log_format)?;
    let signals = Signals::new().context("signals")?;
    let mut registry = Registry::default();
    let (sidecar, discovery) = Sidecar::new(options, &mut registry)?;
    let sidecar = Arc::new(sidecar);
    let draining = sidecar.readiness.clone();
    sidecar.listen_for_people(level, registry)?;
    tokio::spawn(discovery.run());
    tokio::spawn(sidecar.clone().serve());
    let drained = signals.drain(&sidecar.drain, options.drain_deadline());
    let not_ready = async {
        sidecar.drain.draining().await;
        draining.block("draining")
    };
    let (drained, _block) = tokio::join!(drained, not_ready);
    match drained {
        Drained::Complete => tracing::info!("drained"),
        Drained::Forced { remaining } => tracing::warn!(remaining, "ended with connections open"),
    }
    Ok(())
}

impl Sidecar {
    fn new(options: &Run, registry: &mut Registry) -> anyhow::Result<(Self, Discovery)> {
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
        let store = Store::new();
        store.set_registry_only(options.registry_only);
        let remember = options
            .state_dir
            .as_ref()
            .map(|folder| Remember::new(folder.join(REMEMBERED), REMEMBER));
        let held = remember.as_ref().map_or_else(Held::new, Remember::recall);
        if !held.is_empty() {
            tracing::info!(resources = held.len(), "serving what was last known");
        }
        let discovery = Discovery::new(control_plane, node(options), store.clone(), held);
        if let Some(remember) = remember {
            tokio::spawn(remember.run(discovery.held()));
        }
        discovery.register(registry.sub_registry_with_prefix("istio"));
        let drain = Drain::new();
        let proxy = Proxy::new(ProxyParts {
            store: store.clone(),
            certificates: certificates.clone(),
            metrics: Metrics::register(registry),
            config: ProxyConfig::of(Layer::Sidecar),
            drain: drain.clone(),
        });
        let sidecar = Self {
            options: options.clone(),
            identity,
            workload: workload_uid(&options.namespace, &options.pod),
            store,
            certificates,
            proxy,
            readiness: Readiness::new(),
            drain,
            discovery: discovery.status(),
        };
        Ok((sidecar, discovery))
    }

    /// Metrics, readiness and the admin interface: there from the beginning, to say what is awaited.
    fn listen_for_people(self: &Arc<Self>, level: LogLevel, registry: Registry) -> anyhow::Result<()> {
        let bound = |address: SocketAddr, what: &str| {
            listener(address).with_context(|| format!("listening on {address} for {what}"))
        };
        let metrics = bound(self.options.metrics_listen, "metrics")?;
        let readiness = bound(self.options.readiness_listen, "readiness")?;
        tokio::spawn(metrics_server::serve(
            metrics,
            metrics_server::router(Arc::new(registry)),
        ));
        tokio::spawn(metrics_server::serve(readiness, self.readiness.router()));
        let admin = self.admin(level);
        let socket = self.options.admin_socket.clone();
        tokio::spawn(async move {
            if let Err(error) = admin.serve(&socket).await {
                tracing::error!(socket = %socket.display(), %error, "no admin interface");
            }
        });
        Ok(())
    }

    fn admin(self: &Arc<Self>, level: LogLevel) -> Admin {
        let config = json!({ "plane": "sidecar", "options": self.options });
        let (certificates, status) = (self.clone(), self.clone());
        Admin::new(self.drain.clone(), level)
            .with_store(&self.store)
            .with_readiness(&self.readiness)
            .with("/config", move || std::future::ready(config.clone()))
            .with("/certificates", move || {
                std::future::ready(json!({ "certificates": certificates.certificates.summaries() }))
            })
            .with_proxy(&self.proxy)
            .with("/status", move || std::future::ready(status.status()))
    }

    fn status(&self) -> serde_json::Value {
        let placement = placement::plane(&self.store, &self.workload);
        json!({
            "plane": "sidecar",
            "version": env!("CARGO_PKG_VERSION"),
            "identity": self.identity.to_string(),
            "workload": self.workload,
            "node": self.options.node,
            "ready": self.readiness.pending().is_empty(),
            "pending": self.readiness.pending(),
            "draining": self.drain.is_draining(),
            "redirectedBy": placement.map(|plane: Plane| plane.as_str_name()),
            "controlPlane": *self.discovery.borrow(),
        })
    }

    /// Waits for what must be known first, then takes the workload's traffic.
    async fn serve(self: Arc<Self>) {
        let resources = self
            .readiness
            .block("policies and workloads from the control plane");
        let certificate = self.readiness.block("a certificate from the control plane");
        let listeners = self.readiness.block("listeners");
        self.certificates.fetch_ahead(&self.identity);
        self.store.until_synced().await;
        drop(resources);
        match self.pod() {
            Ok(pod) => self.proxy.add_pod(pod),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "cannot take the workload's traffic");
                // Never ready: what is awaited stays awaited.
                return std::future::pending().await;
            }
        }
        drop(listeners);
        let (proxy, uid) = (self.proxy.clone(), self.options.pod_uid.clone());
        let retire = move || proxy.retire(&uid);
        tokio::spawn(placement::watch(
            self.store.clone(),
            self.workload.clone(),
            retire,
        ));
        let mut issued = self.certificates.changes();
        // The sender lives in `certificates`, which outlives this.
        let _ = issued.wait_for(|_| self.certificates.has(&self.identity)).await;
        drop(certificate);
        tracing::info!(identity = %self.identity, "serving");
    }

    fn pod(&self) -> anyhow::Result<Pod> {
        let bound = |port: u16| listen(port).with_context(|| format!("listening on port {port}"));
        Ok(Pod {
            uid: self.options.pod_uid.clone(),
            namespace: self.options.namespace.clone(),
            name: self.options.pod.clone(),
            identity: self.identity.clone(),
            workload_uid: self.workload.clone(),
            outbound: bound(port::SIDECAR_OUTBOUND)?,
            inbound: bound(port::SIDECAR_INBOUND)?,
            hbone: bound(port::SIDECAR_HBONE)?,
            dialer: Arc::new(OwnNamespace),
        })
    }
}

fn node(options: &Run) -> Node {
    Node {
        role: "sidecar",
        pod: options.pod.clone(),
        namespace: options.namespace.clone(),
        node: options.node.clone(),
        addresses: Vec::new(),
    }
}
