//! The accept loop, the same for all that arrives. Connections are taken only while the pod's budget lasts;
//! a flood waits at its own listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::pod::Served;
use super::requests::Reader;
use super::tunnels::Streams;
use super::{Proxy, inbound, outbound, tunnels};
use crate::sockets::canonical;

/// How a connection came here.
#[derive(Clone)]
pub(super) enum Capture {
    /// The pod dialled.
    Outbound(Reader),
    /// Somebody dialled the pod.
    Plaintext(Reader),
    /// Somebody's plane dialled this one, for what becomes of such streams.
    Hbone(Streams),
}

/// A pod that leaves is served for so many quiet times at most, should its listener never be quiet.
const IMPATIENCE: u32 = 10;

/// Takes connections until the pod is drained and its listener quiet.
pub(super) async fn accept(proxy: Arc<Proxy>, pod: Arc<Served>, listener: TcpListener, capture: Capture) {
    let mut last = None;
    loop {
        let permit = permit(&proxy, &pod, &capture).await;
        let next = tokio::select! {
            biased;
            next = listener.accept(), if last.is_none() => next,
            () = pod.drain.draining() => {
                let last = *last.get_or_insert(Instant::now() + IMPATIENCE * proxy.config.quiet);
                match timeout_at(last.min(Instant::now() + quiet(&proxy)), listener.accept()).await {
                    Ok(next) => next,
                    Err(_) => return,
                }
            }
        };
        match next {
            Ok((stream, source)) => start(&proxy, &pod, &capture, stream, canonical(source), permit),
            Err(error) => refused(&error).await,
        }
    }
}

/// How long a listener must be quiet to be given up. When the whole process leaves, those who queue later
/// wait for its successor, who has the same listeners: taking what is here now is enough.
fn quiet(proxy: &Proxy) -> Duration {
    if proxy.drain.is_draining() {
        return Duration::ZERO;
    }
    proxy.config.quiet
}

fn start(
    proxy: &Arc<Proxy>,
    pod: &Arc<Served>,
    capture: &Capture,
    stream: TcpStream,
    source: SocketAddr,
    permit: Option<OwnedSemaphorePermit>,
) {
    let (proxy, serving) = (proxy.clone(), pod.clone());
    let tasks = &pod.drain;
    match capture {
        Capture::Outbound(reader) => {
            let reader = reader.clone();
            drop(tasks.spawn(async move {
                outbound::serve(proxy, serving, reader, stream, source).await;
                drop(permit);
            }));
        }
        Capture::Plaintext(reader) => {
            let reader = reader.clone();
            drop(tasks.spawn(async move {
                inbound::serve(proxy, serving, reader, stream, source).await;
                drop(permit);
            }));
        }
        Capture::Hbone(streams) => {
            let streams = streams.clone();
            drop(tasks.spawn(async move {
                tunnels::serve(proxy, serving, streams, stream, source, permit).await;
            }));
        }
    }
}

/// Leave to take one more connection. None if the budget was closed, which it never is.
async fn permit(proxy: &Proxy, pod: &Served, capture: &Capture) -> Option<OwnedSemaphorePermit> {
    let (budget, name): (&Arc<Semaphore>, _) = match capture {
        Capture::Outbound(_) => (&pod.budget.outbound, "outbound"),
        Capture::Plaintext(_) => (&pod.budget.inbound, "inbound"),
        Capture::Hbone(_) => (&pod.budget.strangers, "strangers"),
    };
    if let Ok(permit) = budget.clone().try_acquire_owned() {
        return Some(permit);
    }
    proxy.metrics.exhausted(&pod.workload_uid, name);
    tracing::warn!(
        workload = pod.workload_uid,
        budget = name,
        "budget used up: connections wait"
    );
    budget.clone().acquire_owned().await.ok()
}

/// Errors of one connection that ended before it was taken, and of the process, such as no descriptors left:
/// those pass only with time.
async fn refused(error: &io::Error) {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
        _ => {
            tracing::warn!(%error, "a connection could not be taken");
            sleep(Duration::from_millis(50)).await;
        }
    }
}
