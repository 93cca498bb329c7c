//! What passes as bytes: connections that speak no HTTP, and requests that have left it. They are decided about once,
//! and again whenever policy or workloads change: who is no longer allowed is cut.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::TryFutureExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::sync::oneshot;
use trefoil_api::policy;
use trefoil_dataplane_core::authorize::{Authorized, authorize};
use trefoil_dataplane_core::balance::choose;
use trefoil_dataplane_core::forward::{Counters, TunnelBytes, TunnelStream};
use trefoil_dataplane_core::telemetry::{self as connections, Flag, Layer, Outcome};

use crate::answer::Refusal;
use crate::engine::Shared;
use crate::request::{Asked, Connection};
use crate::seam::{Downstream, Io, Permit, Server};
use crate::telemetry::Record;
use crate::under_way::as_known;

/// A client that leaves HTTP, once that is agreed to.
pub(crate) enum Leaving {
    One(OnUpgrade),
    Two(oneshot::Receiver<TunnelStream>),
}

impl From<OnUpgrade> for Leaving {
    fn from(upgrade: OnUpgrade) -> Self {
        Self::One(upgrade)
    }
}

impl From<oneshot::Receiver<TunnelStream>> for Leaving {
    fn from(stream: oneshot::Receiver<TunnelStream>) -> Self {
        Self::Two(stream)
    }
}

impl Leaving {
    /// Its bytes, once it has.
    async fn left(self) -> Result<Box<dyn Io>, String> {
        match self {
            Self::One(upgrade) => match upgrade.await {
                Ok(io) => Ok(Box::new(TokioIo::new(io))),
                Err(error) => Err(error.to_string()),
            },
            Self::Two(stream) => match stream.await {
                Ok(stream) => Ok(Box::new(TunnelBytes::new(stream))),
                Err(_) => Err("its client left".into()),
            },
        }
    }
}

/// Serves a connection that speaks no HTTP.
pub(crate) async fn bytes<T>(engine: &Arc<Shared>, mut client: T, downstream: Downstream)
where
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    let config = &engine.config;
    let mut record = connections::Record::new(&config.connections, config.reporter, downstream.source);
    record.source.workload.clone_from(&downstream.client);
    record.source.identity = downstream.peer.identity().cloned();
    record.destination_address = Some(downstream.destination);
    record.service.clone_from(&downstream.service);
    record.path = downstream.peer.path();
    let (server, mut upstream) = match open(engine, &downstream, &mut record).await {
        Ok(opened) => opened,
        Err(refusal) => return record.ended(outcome(&refusal, config.plane)),
    };
    let counters = Arc::<Counters>::default();
    record.opened(&counters);
    let mut counted = Counted {
        io: &mut client,
        counters: &counters,
    };
    let cut = until_denied(engine, Some(Arc::new(server)), |server| {
        authorized(engine, &downstream, server).map(|_| ())
    });
    tokio::select! {
        ended = copy_bidirectional(&mut counted, &mut upstream) => match ended {
            Ok(_) => record.completed(),
            // Either end may reset what it likes; the connection had come about.
            Err(error) => record.ended(Outcome {
                flag: Flag::None,
                layer: None,
                reason: error.to_string(),
                policy: None,
            }),
        },
        denied = cut => record.ended(outcome(&denied, config.plane)),
    }
}

async fn open(
    engine: &Shared,
    downstream: &Downstream,
    record: &mut connections::Record,
) -> Result<(Server, Box<dyn Io>), Refusal> {
    let server = server(engine, downstream)?;
    let to = &server.endpoint;
    record.destination_address = Some(to.address);
    record.destination.workload = Some(to.workload.clone());
    record.destination.identity = Some(to.workload.identity.clone());
    let authorized = authorized(engine, downstream, &server)?;
    record.allowed(&authorized);
    let permit = Permit::Authorized(authorized);
    let opened = engine.carrier.open(&server, &permit, downstream).await?;
    Ok((server, opened.io))
}

/// What was dialled, or an endpoint of it.
fn server(engine: &Shared, downstream: &Downstream) -> Result<Server, Refusal> {
    let service = downstream.service.clone();
    if let Some(endpoint) = downstream.endpoint.clone() {
        return Ok(Server { endpoint, service });
    }
    let dialled = service.ok_or(Refusal::Unknown)?;
    let known = engine.store.snapshot();
    let (near, destination) = (downstream.vantages(), downstream.destination);
    let chosen = choose(&known, &dialled, &near, destination, &mut rand::rng());
    match chosen {
        Some(endpoint) => Ok(Server {
            endpoint,
            service: Some(dialled),
        }),
        None => Err(Refusal::NoEndpoint(dialled.hostname.clone())),
    }
}

fn outcome(refusal: &Refusal, plane: Layer) -> Outcome {
    let flag = match refusal {
        Refusal::Denied(_) => Flag::Deny,
        Refusal::Open(failure) => failure.flag,
        _ => Flag::Connect,
    };
    Outcome {
        flag,
        layer: Some(refusal.layer(plane)),
        reason: refusal.to_string(),
        policy: refusal.policy().map(str::to_owned),
    }
}

/// Carries a request that has left HTTP, to its end.
pub(crate) async fn switched(
    connection: Arc<Connection>,
    asked: Arc<Asked>,
    (client, server): (Leaving, OnUpgrade),
    mut record: Record,
) {
    let plane = connection.engine.config.plane;
    let left = async { Ok::<_, hyper::Error>(TokioIo::new(server.await?)) };
    let (mut client, mut upstream) =
        match tokio::try_join!(client.left(), left.map_err(|error| error.to_string())) {
            Ok(both) => both,
            Err(error) => return record.broken(Refusal::Broken(error), plane),
        };
    let counters = Counters::default();
    let mut counted = Counted {
        io: &mut client,
        counters: &counters,
    };
    let cut = until_denied(&connection.engine, record.server.clone(), |server| {
        connection.permit(&asked, server).map(|_| ())
    });
    tokio::select! {
        ended = copy_bidirectional(&mut counted, &mut upstream) => match ended {
            Ok(_) => record.completed(),
            // Either end may leave as it likes.
            Err(_) => record.completed(),
        },
        denied = cut => record.broken(denied, plane),
    }
    record.sent = counters.read().1;
}

/// The decision about bytes that nobody reads.
fn authorized(engine: &Shared, downstream: &Downstream, server: &Server) -> Result<Authorized, Refusal> {
    let to = &server.endpoint;
    let source = downstream.source.ip();
    let allowed = authorize(
        &engine.store,
        &downstream.peer,
        &to.workload,
        source,
        to.address,
        policy::Asked::Bytes,
    );
    Ok(allowed?)
}

/// Resolves once `decide` no longer allows what goes to `server`, as it is then known.
async fn until_denied(
    engine: &Shared,
    server: Option<Arc<Server>>,
    decide: impl Fn(&Server) -> Result<(), Refusal>,
) -> Refusal {
    let mut changes = engine.store.changes();
    let Some(server) = server else {
        return std::future::pending().await;
    };
    // At once too: something may have changed since it was decided.
    loop {
        if let Some(now) = as_known(&engine.store, &server)
            && let Err(refusal) = decide(&now)
        {
            return refusal;
        }
        if changes.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// The client's side, counted.
struct Counted<'c, T> {
    io: &'c mut T,
    counters: &'c Counters,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<'_, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut *self.io).poll_read(cx, buffer);
        if let Poll::Ready(Ok(())) = read {
            self.counters.received(buffer.filled().len() - before);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<'_, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut *self.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.counters.sent(count);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_shutdown(cx)
    }
}
