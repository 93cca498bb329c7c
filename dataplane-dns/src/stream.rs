//! Queries over TCP: any number on a connection, one after the other. The resolver gets those that are passed on over
//! one connection too.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use trefoil_dataplane_core::sockets::{canonical, reset};

use crate::forward::{Connection, read, splice, write};
use crate::message::{self, Transport, Wanted};
use crate::metrics::Outcome;
use crate::pod::{Asked, Served};

/// Takes connections until the pod leaves.
pub(crate) async fn accept(pod: Arc<Served>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(pod.config.connections));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = pod.drain.draining() => match timeout(pod.config.quiet, listener.accept()).await {
                Ok(accepted) => accepted,
                Err(_) => return,
            },
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = pod.clone();
                drop(pod.drain.spawn(async move {
                    if let Err(error) = serve(&serving, stream).await {
                        tracing::debug!(%error, "a connection with queries ended");
                    }
                    drop(place);
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection with queries could not be taken");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(pod: &Served, mut stream: TcpStream) -> io::Result<()> {
    let destination = pod.sockets.original_destination(&stream)?;
    if destination == canonical(stream.local_addr()?) {
        pod.metrics.count(Outcome::Misdirected, Transport::Stream);
        reset(stream);
        return Ok(());
    }
    stream.set_nodelay(true)?;
    converse(pod, &mut stream, destination).await
}

async fn converse(pod: &Served, stream: &mut TcpStream, resolver: SocketAddr) -> io::Result<()> {
    let mut upstream = Connection::new(&*pod.sockets, resolver);
    loop {
        let query = match timeout(pod.config.idle, read(stream)).await {
            Ok(Ok(query)) => query,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let Ok(question) = message::read(&query) else {
            pod.metrics.count(Outcome::Malformed, Transport::Stream);
            return Ok(());
        };
        let transfer = question
            .as_ref()
            .is_some_and(|question| question.wanted == Wanted::Transfer);
        let asked = Asked::now(question, resolver.ip(), Transport::Stream);
        if transfer {
            let spliced = splice(&*pod.sockets, resolver, &query, stream).await;
            let outcome = match spliced {
                Ok(()) => Outcome::Forwarded,
                Err(_) => Outcome::Failed,
            };
            pod.done(&asked, outcome, None);
            return spliced.map_err(io::Error::other);
        }
        let response = match pod.answer(&query, &asked) {
            Some(answer) => {
                pod.done(&asked, Outcome::Answered, None);
                Some(answer)
            }
            None => {
                let response = upstream.ask(&query, pod.config.patience).await;
                pod.conclude(&query, &asked, response)
            }
        };
        if let Some(response) = response {
            write(stream, &response).await?;
        }
    }
}
