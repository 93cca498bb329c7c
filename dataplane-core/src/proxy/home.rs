//! What a plane's own code has of the proxy: its identity's tunnels, its registrations and its records. It
//! connects to nobody without a proof that policy allows it, or as a hop whose other end is known.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::OwnedSemaphorePermit;
use trefoil_api::Identity;

use super::Proxy;
use super::connections::{DecidedBy, Direction, Tracked};
use super::failure::Failure;
use super::inbound::{self, Reached};
use super::outbound;
use super::pod::Served;
use crate::authorize::Authorized;
use crate::balance::Endpoint;
use crate::forward::Side;
use crate::hbone::Opening;
use crate::identify::Peer;
use crate::sockets::{self, Dialer};
use crate::telemetry::{Party, Record};
use trefoil_dataplane_state::Store;
use trefoil_dataplane_state::state::{Service, Tunnel, Workload};

/// A waypoint to serve: tunnels to it, and nothing else.
pub struct Waypoint {
    /// Kubernetes uid of its pod.
    pub uid: String,
    /// Who it is.
    pub identity: Identity,
    /// Its xDS uid.
    pub workload_uid: String,
    /// Where tunnels to it arrive.
    pub hbone: TcpListener,
    /// Its sockets.
    pub dialer: Arc<dyn Dialer>,
}

impl Waypoint {
    pub(super) fn split(self, proxy: &Proxy) -> (Served, TcpListener) {
        let served = Served::new(proxy, self.uid, self.identity, self.workload_uid, self.dialer);
        (served, self.hbone)
    }
}

/// One that is served here, and the proxy that serves it.
#[derive(Clone)]
pub struct Home {
    pub(super) proxy: Arc<Proxy>,
    pub(super) pod: Arc<Served>,
}

impl Home {
    pub(super) fn new(proxy: Arc<Proxy>, pod: Arc<Served>) -> Self {
        Self { proxy, pod }
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.pod.identity
    }

    /// What is known of the mesh.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.proxy.store
    }

    /// Its own workload, which is waited for a while.
    pub async fn workload(&self) -> Result<Arc<Workload>, Failure> {
        self.pod.workload(&self.proxy).await
    }

    /// Leave to serve one more stream.
    pub fn room(&self) -> Result<OwnedSemaphorePermit, Failure> {
        self.pod.room(&self.proxy)
    }

    /// A forwarded identity was claimed, and not believed.
    pub fn stripped_peer(&self) {
        self.proxy.metrics.stripped_peer();
    }

    /// Resolves once clients are to leave.
    pub fn leave(&self) -> impl Future<Output = ()> + use<> {
        self.pod.leaving()
    }

    /// The record of a connection that came from `source`.
    #[must_use]
    pub fn record(&self, source: SocketAddr) -> Record {
        self.proxy.record(source)
    }

    /// The client, by its identity and its address together.
    #[must_use]
    pub fn client(&self, peer: &Peer, source: SocketAddr) -> Party {
        inbound::client(&self.proxy.store, peer, source)
    }

    /// Registers a connection to `destination`, an address of the workload whose xDS uid is `server`: from now
    /// on, it is cut when policy no longer allows it.
    pub fn track(&self, server: &str, source: SocketAddr, destination: SocketAddr, peer: Peer) -> Tracked {
        let of = (Direction::Through, server);
        let ends = (source, destination);
        let tracked = self.proxy.connections.track(&self.pod.uid, of, ends, peer);
        tracked.decided_by(DecidedBy::Plane);
        tracked
    }

    /// Connects to what `authorized` is a proof for, at `endpoint`, which was chosen for `service`: by a tunnel
    /// to its plane with this end's identity, or as it is, where it is outside the mesh.
    pub async fn connect(
        &self,
        endpoint: &Endpoint,
        service: Option<&Service>,
        authorized: &Authorized,
        opening: &Opening<'_>,
    ) -> Result<Side, Failure> {
        if endpoint.workload.tunnel == Tunnel::None {
            let application = sockets::connect(&*self.pod.dialer, authorized.destination(), None);
            return Ok(Side::Tcp(application.await?));
        }
        let expected = endpoint.expected(service);
        let opened = self.pod.open(&self.proxy, endpoint.plane(), &expected, opening);
        Ok(Side::Tunnel(opened.await?))
    }

    /// Connects to the pod's application, which `authorized` is a proof for, from `source` where that may be.
    pub async fn application(&self, authorized: &Authorized, source: SocketAddr) -> Result<Side, Failure> {
        Ok(inbound::application(&self.pod, authorized, source).await?)
    }

    /// Connects the pod, whose workload is `own`, to an endpoint that was chosen for a connection of its from
    /// `source` to `service`: to its plane, which decides, or as it is where it is outside the mesh.
    pub async fn onward(
        &self,
        own: &Workload,
        endpoint: &Endpoint,
        service: Option<&Service>,
        source: SocketAddr,
    ) -> Result<Side, Failure> {
        outbound::onward(&self.proxy, &self.pod, own, endpoint, service, source).await
    }

    /// Carries an allowed connection to its end, or until policy no longer allows it.
    pub async fn carry(&self, client: Side, reached: Reached) {
        inbound::carry(&self.proxy, client, reached).await;
    }

    /// Puts a failure on record, which ends the record.
    pub fn fail(&self, record: Record, failure: Failure) -> Failure {
        inbound::fail(&self.proxy, record, failure)
    }
}
