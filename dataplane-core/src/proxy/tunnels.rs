//! Tunnels that lead here: identified once, and handed on stream by stream to what they lead to. What leads to
//! a pod is decided and connected by `inbound`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Proxy;
use super::failure::Failure;
use super::home::Home;
use super::inbound::{Arrival, Found, carry, fail, find};
use super::pod::Served;
use super::requests::Reader;
use crate::forward::{Side, TunnelStream};
use crate::hbone::{self, Asked, Destination, HANDSHAKE_TIMEOUT, Incoming};
use crate::identify::{Peer, is_guard, proven_until};
use trefoil_dataplane_state::state::Service;

#[cfg(test)]
mod tests;

/// What is asked for in a tunnel, not answered yet.
pub struct Stream {
    /// Whom the tunnel leads to.
    pub home: Home,
    /// The request.
    pub incoming: Incoming,
    /// The tunnel's other end.
    pub peer: Peer,
    /// Its address.
    pub source: SocketAddr,
}

/// Serves streams, each to its end.
pub type Streams = Arc<dyn Fn(Stream) -> BoxFuture<'static, ()> + Send + Sync>;

/// Streams that lead to a pod, whose requests `reader` reads.
pub(super) fn to_pod(reader: Reader) -> Streams {
    Arc::new(move |stream| Box::pin(to_application(stream, reader.clone())))
}

/// Serves a tunnel to its end. Its client is a stranger, who has a place among such, until it is identified.
pub(super) async fn serve(
    proxy: Arc<Proxy>,
    pod: Arc<Served>,
    streams: Streams,
    client: TcpStream,
    source: SocketAddr,
    stranger: Option<OwnedSemaphorePermit>,
) {
    // From before the handshake: a client that is asked to leave meanwhile must not stay.
    let leave = pod.leaving();
    let identified = Box::pin(identify(&proxy, &pod, client)).await;
    let admitted = identified.and_then(|identified| Ok((identified, pod.tunnel(&proxy)?)));
    let ((tls, peer, proven_until), _permit) = match admitted {
        Ok(admitted) => admitted,
        Err(failure) => {
            fail(&proxy, proxy.record(source), failure);
            return;
        }
    };
    drop(stranger);
    let window = pod.window(&proxy);
    let take = |incoming: Incoming| {
        pod.drain.spawn(streams(Stream {
            home: Home::new(proxy.clone(), pod.clone()),
            incoming,
            peer: peer.clone(),
            source,
        }));
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

/// Serves one stream of a tunnel to a pod to its end. What it takes to get there is given up before the
/// connection is carried, which may be idle for long.
pub(super) fn to_application(stream: Stream, reader: Reader) -> impl Future<Output = ()> {
    let admitted = Box::pin(admit(stream, reader));
    async move {
        let Some((home, _permit, client, found)) = admitted.await else {
            return;
        };
        let client = Side::Tunnel(client);
        match found {
            Found::Server(reached) => carry(&home.proxy, client, reached).await,
            Found::Requests(unread) => unread.serve(client, home).await,
        }
    }
}

type Admitted = (Home, OwnedSemaphorePermit, TunnelStream, Found);

/// Decides about a stream, as far as that can be without its requests, and answers it.
async fn admit(stream: Stream, reader: Reader) -> Option<Admitted> {
    let Stream {
        home,
        incoming,
        peer,
        source,
    } = stream;
    let Home { proxy, pod } = &home;
    let record = proxy.record(source);
    let reached = async {
        let permit = match pod.room(proxy) {
            Ok(permit) => permit,
            Err(failure) => return Err(fail(proxy, record, failure)),
        };
        match arrival(proxy, pod, &incoming, peer, source).await {
            Ok(arrival) => Ok((permit, find(proxy, pod, record, arrival, reader).await?)),
            Err(failure) => Err(fail(proxy, record, failure)),
        }
    };
    match reached.await {
        Ok((permit, found)) => match incoming.accept() {
            Ok(stream) => Some((home, permit, stream, found)),
            Err(error) => {
                found.fail(&home.proxy, error.into());
                None
            }
        },
        Err(failure) => {
            incoming.refuse(failure.status());
            None
        }
    }
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
    let server = pod.workload(proxy).await?;
    let believed = is_guard(&peer, server.guard.as_ref());
    let heard = peer.heard(asked.claim.clone(), believed)?;
    if heard.stripped {
        proxy.metrics.stripped_peer();
    }
    let source = match &heard.peer {
        Peer::Forwarded { .. } => asked.source.unwrap_or(source),
        _ => source,
    };
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
        peer: heard.peer,
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
