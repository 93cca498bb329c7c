//! Tunnels that lead to a pod: identified once, decided for each stream.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Proxy;
use super::failure::Failure;
use super::inbound::{Arrival, carry, fail, reach};
use super::pod::Served;
use crate::forward::Side;
use crate::hbone::{self, Asked, Destination, HANDSHAKE_TIMEOUT, Incoming};
use crate::identify::{Peer, proven_until};
use crate::state::Service;
use crate::telemetry::{Record, Reporter};

#[cfg(test)]
mod tests;

/// Serves a tunnel to its end. Its client is a stranger, who has a place among such, until it is identified.
pub(super) async fn serve(
    proxy: Arc<Proxy>,
    pod: Arc<Served>,
    client: TcpStream,
    source: SocketAddr,
    stranger: Option<OwnedSemaphorePermit>,
) {
    // From before the handshake: a client that is asked to leave meanwhile must not stay.
    let leave = leave(&pod);
    let (tls, peer, proven_until) = match Box::pin(identify(&proxy, &pod, client)).await {
        Ok(identified) => identified,
        Err(failure) => {
            fail(&proxy, record(&proxy, source), failure);
            return;
        }
    };
    let _permit = match pod.tunnel(&proxy) {
        Ok(permit) => permit,
        Err(failure) => {
            fail(&proxy, record(&proxy, source), failure);
            return;
        }
    };
    drop(stranger);
    let window = pod.window(&proxy);
    let take = |incoming: Incoming| {
        let (proxy, serving, peer) = (proxy.clone(), pod.clone(), peer.clone());
        pod.drain.spawn(stream(proxy, serving, incoming, peer, source));
    };
    let term = Term::new(proxy.pool().max_age, proven_until, SystemTime::now());
    let leave = async {
        tokio::select! {
            () = leave => {}
            () = sleep(term.leave) => {}
        }
    };
    if let Err(error) = hbone::serve(tls, &window, take, leave, sleep(term.closed)).await {
        // The streams that it breaks have records of their own.
        tracing::debug!(pod = pod.uid, %source, %error, "a tunnel broke");
    }
}

/// Clients are asked to leave so long before they must.
const NOTICE: Duration = Duration::from_secs(30);

/// How long a tunnel takes new streams.
#[derive(Debug, PartialEq, Eq)]
struct Term {
    /// From then on, its client is asked to leave.
    leave: Duration,
    /// From then on, no more are taken.
    closed: Duration,
}

impl Term {
    /// A tunnel ends with the proof of who its client is, and by its age. Clients of ours give theirs up at
    /// `max_age`: only those that do not are told.
    fn new(max_age: Duration, proven_until: SystemTime, now: SystemTime) -> Self {
        let proven = proven_until.duration_since(now).unwrap_or_default();
        let closed = proven.min(max_age.saturating_add(max_age / 4));
        Self {
            leave: closed - NOTICE.min(closed / 8),
            closed,
        }
    }
}

/// Resolves once clients are to leave: this pod's were asked, or all are.
fn leave(pod: &Served) -> impl Future<Output = ()> + '_ {
    let asked = pod.leave();
    async move {
        tokio::select! {
            () = asked.cancelled() => {}
            () = pod.drain.draining() => {}
        }
    }
}

/// TLS, and who the client is. A client that says nothing takes part of no budget but that of strangers.
async fn identify(
    proxy: &Proxy,
    pod: &Served,
    client: TcpStream,
) -> Result<(TlsStream<TcpStream>, Peer, SystemTime), Failure> {
    let handshake = async {
        client.readable().await.map_err(Failure::Tls)?;
        let config = proxy.certificates.server_config(&pod.identity).await?;
        let turn = pod.budget.handshakes.acquire().await;
        let tls = TlsAcceptor::from(config)
            .accept_with(client, |session| {
                session.set_buffer_limit(Some(hbone::TLS_BUFFER))
            })
            .await
            .map_err(Failure::Tls)?;
        drop(turn);
        let peer = Peer::verified(tls.get_ref().1)?;
        let until = proven_until(tls.get_ref().1)?;
        Ok((tls, peer, until))
    };
    let silent = || Failure::Tls(std::io::ErrorKind::TimedOut.into());
    timeout(HANDSHAKE_TIMEOUT, handshake)
        .await
        .unwrap_or_else(|_| Err(silent()))
}

/// Serves one stream of a tunnel to its end.
pub(super) async fn stream(
    proxy: Arc<Proxy>,
    pod: Arc<Served>,
    incoming: Incoming,
    peer: Peer,
    source: SocketAddr,
) {
    let _permit = match pod.room(&proxy) {
        Ok(permit) => permit,
        Err(failure) => return refuse(&proxy, record(&proxy, source), incoming, failure),
    };
    let reached = Box::pin(async {
        let record = record(&proxy, source);
        match arrival(&proxy, &pod, &incoming, peer, source).await {
            Ok(arrival) => reach(&proxy, &pod, record, arrival).await,
            Err(failure) => Err(fail(&proxy, record, failure)),
        }
    });
    match reached.await {
        Ok(reached) => match incoming.accept() {
            Ok(stream) => carry(&proxy, Side::Tunnel(stream), reached).await,
            Err(error) => drop(fail(&proxy, reached.record, error.into())),
        },
        Err(failure) => incoming.refuse(failure.status()),
    }
}

fn record(proxy: &Proxy, source: SocketAddr) -> Record {
    Record::new(&proxy.metrics, Reporter::Destination, source)
}

fn refuse(proxy: &Proxy, record: Record, incoming: Incoming, failure: Failure) {
    incoming.refuse(fail(proxy, record, failure).status());
}

/// What a request is for, which must be the pod that the tunnel leads to.
async fn arrival(
    proxy: &Proxy,
    pod: &Served,
    incoming: &Incoming,
    peer: Peer,
    source: SocketAddr,
) -> Result<Arrival, Failure> {
    let asked = incoming.asked()?;
    if asked.claims_peer {
        // No guard is served here: whoever claims to speak for another is taken for itself.
        proxy.metrics.stripped_peer();
    }
    let server = pod.workload(proxy).await?;
    if asked.uid.as_ref().is_some_and(|uid| *uid != pod.workload_uid) {
        return Err(Failure::WrongDestination(asked.uid.unwrap_or_default()));
    }
    let service = dialled(proxy, pod, &asked);
    let destination = match asked.destination {
        // Whether it is the pod's is seen where it is decided.
        Destination::Address(address) => address,
        Destination::Service(host, port) => {
            let elsewhere = || Failure::WrongDestination(format!("{host}:{port}"));
            let service = service.as_deref().ok_or_else(elsewhere)?;
            let own = server.services.get(&service.key()).ok_or_else(elsewhere)?;
            let mut mappings = own.iter().chain(&service.ports);
            let target = mappings.find_map(|mapping| match mapping.service_port == port {
                true => mapping.target_port,
                false => None,
            });
            let address = server.addresses.first().ok_or_else(elsewhere)?;
            SocketAddr::new(*address, target.ok_or_else(elsewhere)?)
        }
    };
    Ok(Arrival {
        peer,
        source,
        destination,
        service,
    })
}

/// The service that the client dialled, if the pod serves it.
fn dialled(proxy: &Proxy, pod: &Served, asked: &Asked) -> Option<Arc<Service>> {
    let named = match &asked.destination {
        Destination::Service(host, _) => Some(host),
        Destination::Address(_) => asked.service.as_ref(),
    };
    let service = proxy.store.service_named(named?, pod.identity.namespace())?;
    let server = proxy.store.workload(&pod.workload_uid)?;
    server.services.contains_key(&service.key()).then_some(service)
}
