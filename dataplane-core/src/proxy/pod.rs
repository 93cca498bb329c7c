//! One pod that is served: its sockets, its tunnels, its budgets, and the tasks that are its own. It decides
//! nothing about what it carries.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use trefoil_api::Identity;

use super::accept::{Capture, accept};
use super::failure::Failure;
use super::home::Home;
use super::requests::Requests;
use super::{Proxy, ProxyConfig, tunnels};
use crate::Drain;
use crate::forward::TunnelStream;
use crate::hbone::{Connected, OpenError, Opening, Place, Pool, Window, Windows};
use crate::sockets::{self, Dialer};
use trefoil_dataplane_state::state::Workload;

/// A pod to serve.
pub struct Pod {
    /// Kubernetes uid.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who it is.
    pub identity: Identity,
    /// Its xDS uid.
    pub workload_uid: String,
    /// Where its outbound connections arrive.
    pub outbound: TcpListener,
    /// Where plaintext to it arrives.
    pub inbound: TcpListener,
    /// Where tunnels to it arrive.
    pub hbone: TcpListener,
    /// Sockets of its namespace.
    pub dialer: Arc<dyn Dialer>,
}

/// A pod that is served.
pub(super) struct Served {
    pub(super) uid: String,
    pub(super) identity: Identity,
    pub(super) workload_uid: String,
    pub(super) dialer: Arc<dyn Dialer>,
    pub(super) pool: Pool,
    pub(super) budget: Budget,
    /// Its requests are read.
    pub(super) reads: bool,
    /// Its tasks; draining them means to take no new connections.
    pub(super) drain: Drain,
    /// Told to leave: the tunnels that there are. Replaced each time.
    leave: Mutex<CancellationToken>,
}

/// What one pod may use, so that a flood of its is its own affair.
pub(super) struct Budget {
    /// Connections that it makes. Those that it gets have places of their own: neither takes the others'.
    pub(super) outbound: Arc<Semaphore>,
    /// Connections that it gets.
    pub(super) inbound: Arc<Semaphore>,
    /// Tunnels to it whose clients are not identified.
    pub(super) strangers: Arc<Semaphore>,
    pub(super) handshakes: Semaphore,
    /// Bytes that tunnels may have in flight.
    windows: Windows,
    pub(super) tunnels: Arc<Semaphore>,
}

impl Budget {
    fn new(config: &ProxyConfig) -> Self {
        Self {
            outbound: Arc::new(Semaphore::new(config.connections)),
            inbound: Arc::new(Semaphore::new(config.connections)),
            strangers: Arc::new(Semaphore::new(config.strangers)),
            handshakes: Semaphore::new(config.handshakes),
            windows: Windows::new(config.bytes),
            tunnels: Arc::new(Semaphore::new(config.tunnels)),
        }
    }
}

impl Pod {
    /// What is served, and where what is for it arrives.
    pub(super) fn split(
        self,
        proxy: &Arc<Proxy>,
        reader: Option<impl FnOnce(Home) -> Arc<dyn Requests>>,
    ) -> (Arc<Served>, Vec<(Capture, TcpListener)>) {
        let mut served = Served::new(proxy, self.uid, self.identity, self.workload_uid, self.dialer);
        served.reads = reader.is_some();
        let served = Arc::new(served);
        let reader = reader.map(|reader| reader(Home::new(proxy.clone(), served.clone())));
        let captures = vec![
            (Capture::Outbound(reader.clone()), self.outbound),
            (Capture::Plaintext(reader.clone()), self.inbound),
            (Capture::Hbone(tunnels::to_pod(reader)), self.hbone),
        ];
        (served, captures)
    }
}

impl Served {
    pub(super) fn new(
        proxy: &Proxy,
        uid: String,
        identity: Identity,
        workload_uid: String,
        dialer: Arc<dyn Dialer>,
    ) -> Self {
        Self {
            uid,
            identity,
            workload_uid,
            dialer,
            pool: Pool::default(),
            budget: Budget::new(&proxy.config),
            reads: false,
            drain: proxy.drain.child(),
            leave: Mutex::default(),
        }
    }

    /// Starts the accept loops.
    pub(super) fn start(self: &Arc<Self>, proxy: &Arc<Proxy>, captures: Vec<(Capture, TcpListener)>) {
        for (capture, listener) in captures {
            if let Err(error) = sockets::options(&listener) {
                tracing::warn!(pod = self.uid, %error, "options of a listener could not be set");
            }
            let task = accept(proxy.clone(), self.clone(), listener, capture);
            self.drain.spawn(task);
        }
        // The proxy's drain waits for those of its pods.
        let of_pod = self.drain.clone();
        proxy.drain.spawn(async move {
            of_pod.draining().await;
            of_pod.drain(Duration::MAX).await;
        });
    }

    /// A stream of a tunnel to the plane at `plane`, which must be one of those expected; dialled from this
    /// pod's namespace, as this pod.
    pub(super) async fn open(
        &self,
        proxy: &Proxy,
        plane: SocketAddr,
        expected: &[Identity],
        opening: &Opening<'_>,
    ) -> Result<TunnelStream, OpenError> {
        let connect = || {
            let (certificates, dialer) = (proxy.certificates.clone(), self.dialer.clone());
            let (identity, expected) = (self.identity.clone(), expected.to_vec());
            let window = self.window(proxy);
            async move {
                let tls = certificates.client_config(&identity, &expected).await?;
                let stream = sockets::connect(&*dialer, plane, None).await?;
                Ok(Connected { stream, tls, window })
            }
        };
        let place = Place {
            address: plane,
            expected,
            config: proxy.pool(),
        };
        self.pool.open(&place, opening, connect).await
    }

    /// Leave to serve one more connection that arrives by a way that cannot wait at a listener.
    pub(super) fn room(&self, proxy: &Proxy) -> Result<OwnedSemaphorePermit, Failure> {
        self.place(proxy, &self.budget.inbound, "inbound")
    }

    /// Leave to make one more connection that did not come from a listener.
    pub(super) fn dial(&self, proxy: &Proxy) -> Result<OwnedSemaphorePermit, Failure> {
        self.place(proxy, &self.budget.outbound, "outbound")
    }

    /// Leave to keep one more tunnel, whose client is identified.
    pub(super) fn tunnel(&self, proxy: &Proxy) -> Result<OwnedSemaphorePermit, Failure> {
        self.place(proxy, &self.budget.tunnels, "tunnels")
    }

    /// What a tunnel that is made now, from or to this pod, may be sent before it is taken.
    pub(super) fn window(&self, proxy: &Proxy) -> Window {
        let window = self.budget.windows.part();
        if window.is_least() {
            proxy.metrics.exhausted(&self.workload_uid, "bytes");
        }
        window
    }

    fn place(
        &self,
        proxy: &Proxy,
        budget: &Arc<Semaphore>,
        name: &'static str,
    ) -> Result<OwnedSemaphorePermit, Failure> {
        budget.clone().try_acquire_owned().map_err(|_| {
            proxy.metrics.exhausted(&self.workload_uid, name);
            Failure::Budget(name)
        })
    }

    /// Asks the clients of the tunnels there are to leave.
    pub(super) fn retire(&self) {
        let mut leave = self.leave.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *leave).cancel();
    }

    /// Resolves once clients that come now are to leave: this pod's were asked, or all are.
    pub(super) fn leaving(&self) -> impl Future<Output = ()> + use<> {
        let leave = self.leave.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, drain) = (leave.clone(), self.drain.clone());
        async move {
            tokio::select! {
                () = asked.cancelled() => {}
                () = drain.draining() => {}
            }
        }
    }

    /// Takes no new connections once the listeners are quiet.
    pub(super) fn stop(&self) {
        self.drain.begin();
    }

    /// Resolves once all tasks have ended.
    pub(super) async fn ended(&self) {
        self.drain.drain(Duration::MAX).await;
    }

    /// The pod's own workload. A pod may be here before its workload is known: that is waited for, a while.
    pub(super) async fn workload(&self, proxy: &Proxy) -> Result<Arc<Workload>, Failure> {
        if let Some(workload) = proxy.store.workload(&self.workload_uid) {
            return Ok(workload);
        }
        let mut changes = proxy.store.changes();
        let known = async {
            loop {
                if let Some(workload) = proxy.store.workload(&self.workload_uid) {
                    return workload;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(proxy.config.patience, known)
            .await
            .map_err(|_| Failure::OwnWorkloadUnknown)
    }
}
