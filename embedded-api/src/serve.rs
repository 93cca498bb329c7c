//! Accepting connections: TLS, then HTTP/1.1 or HTTP/2, each connection a task of its own.

use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::server::Server;

const CONNECTIONS: usize = 4096;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long requests in progress may take once the server stops.
const GRACE: Duration = Duration::from_secs(5);

/// Serves a listener until told to stop.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: TlsAcceptor,
    server: Arc<Server>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => return,
            place = places.clone().acquire_owned() => place,
        };
        let stream = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an API connection");
                    // Usually out of descriptors: a loop would make it worse.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (tls, server, stop) = (tls.clone(), server.clone(), stop.clone());
        tasks.spawn(async move {
            connection(stream, tls, server, stop).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, server: Arc<Server>, stop: CancellationToken) {
    // Only latency is lost if this fails.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await else {
        tracing::debug!("an API connection ended in its TLS handshake");
        return;
    };
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(30));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30));
    let service = service_fn(move |request| server.clone().answer(request));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "an API connection ended");
    }
}
