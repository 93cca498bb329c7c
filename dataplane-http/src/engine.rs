//! The engine: connections from downstream in, requests out of them. What a connection speaks is found out, then
//! HTTP is served and anything else passes as bytes, with the same decision. It opens nothing itself and knows no
//! pod: that is the plane's.

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::future::Either;
use http::{HeaderValue, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};
use trefoil_api::Identity;
use trefoil_dataplane_core::telemetry::{self as connections, Layer, Reporter};
use trefoil_dataplane_state::Store;

use crate::bytes::PutBack;
use crate::detect::{Heard, PATIENCE, Spoken, hear};
use crate::head::{FIELDS, SIZE};
use crate::http2;
use crate::identity::Told;
use crate::incoming::Broken;
use crate::request::Connection;
use crate::routing::Routes;
use crate::seam::{Carrier, Downstream};
use crate::telemetry::{Found, Metrics};
use crate::undeclared::Undeclared;
use crate::under_way::reconsidered;
use crate::upgrade;
use crate::upstream::Pool;
use crate::wire::Guarded;

/// How often what is not used is looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// How long a client may take for the head of a request, and between two: longer than clients keep unused connections,
/// so that it is not this end that closes one as it is used again.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);
/// How long a client that is asked to leave may be between two HTTP/1 requests before its connection is ended.
const NOTICE: Duration = Duration::from_secs(3);
/// Copies of requests that are under way.
const MIRRORS: usize = 256;
/// How long upstream connections live, where the mesh does not say.
const MAX_AGE: Duration = Duration::from_secs(3_600);

/// What an engine is, for those who see it from outside.
#[derive(Clone, Debug)]
pub struct Config {
    /// The plane: what its own refusals are blamed on.
    pub plane: Layer,
    /// Which end reports.
    pub reporter: Reporter,
    /// Who receives requests here, as `x-forwarded-client-cert` says.
    pub identity: Option<Identity>,
    /// Counters of requests.
    pub requests: Metrics,
    /// Counters of what passes as bytes.
    pub connections: connections::Metrics,
    /// Where it is noted which clients were waited for in vain.
    pub undeclared: Undeclared,
}

/// The engine. Clones are the same.
#[derive(Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) routes: Routes,
    pub(crate) carrier: Arc<dyn Carrier>,
    pub(crate) config: Config,
    pub(crate) pool: Arc<Pool>,
    pub(crate) mirrors: Arc<Semaphore>,
}

impl Shared {
    /// How old upstream connections may become.
    pub(crate) fn max_age(&self) -> Duration {
        let known = self.store.snapshot();
        known
            .settings()
            .map_or(MAX_AGE, |settings| settings.connection_max_age)
    }
}

impl Engine {
    /// An engine that decides by `store` and `routes`, and reaches endpoints by `carrier`.
    #[must_use]
    pub fn new(store: Store, routes: Routes, carrier: Arc<dyn Carrier>, config: Config) -> Self {
        let shared = Arc::new(Shared {
            store,
            routes,
            carrier,
            config,
            pool: Arc::default(),
            mirrors: Arc::new(Semaphore::new(MIRRORS)),
        });
        tokio::spawn(sweep(Arc::downgrade(&shared)));
        Self { shared }
    }

    /// Serves a connection to its end. Once `leave` resolves, the client is asked to go elsewhere and what is under
    /// way runs to its end.
    pub async fn serve<T>(&self, mut io: T, downstream: Downstream, leave: impl Future<Output = ()> + Send)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let heard = match hear(&mut io, downstream.declared(), PATIENCE).await {
            Ok(heard) => heard,
            Err(error) => {
                tracing::debug!(source = %downstream.source, %error, "the client's connection broke");
                return;
            }
        };
        if heard.silent {
            self.shared.config.undeclared.waited(&downstream);
        }
        if heard.spoken == Spoken::Bytes {
            let io = PutBack::new(heard.read, io);
            return upgrade::bytes(&self.shared, io, downstream).await;
        }
        self.requests(heard, io, downstream, leave).await;
    }

    /// Serves a connection that speaks HTTP, of which so much was heard, likewise.
    pub async fn requests<T>(
        &self,
        heard: Heard,
        io: T,
        downstream: Downstream,
        leave: impl Future<Output = ()> + Send,
    ) where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (spoken, io) = (heard.spoken, PutBack::new(heard.read, io));
        let connection = self.connection(downstream);
        // From before anything is decided.
        let changes = self.shared.store.changes();
        let left_http = LeftHttp(&connection);
        let serving = async {
            match spoken {
                Spoken::Http2 => {
                    let answer = |asking| connection.clone().answer_two(asking);
                    http2::serve(io, answer, leave).await.map_err(Broken::from)
                }
                Spoken::Http1 | Spoken::Bytes => {
                    one(connection.clone(), io, leave).await.map_err(Broken::from)
                }
            }
            .inspect_err(|error| tracing::debug!(%error, "the client's connection ended"))
        };
        let served = tokio::select! {
            biased;
            served = serving => served,
            never = reconsidered(&connection, changes) => match never {},
        };
        connection.malformed(served.as_ref().err());
        left_http.ended().await;
    }

    fn connection(&self, downstream: Downstream) -> Arc<Connection> {
        let config = &self.shared.config;
        let downstream = Arc::new(downstream);
        Arc::new(Connection {
            told: match config.reporter {
                // Who the client is, its server's plane finds out.
                Reporter::Source => Told::default(),
                _ => Told::of(&downstream, config.identity.as_ref()),
            },
            found: Arc::new(Found::new(&config.requests, config.reporter, &downstream)),
            owner: Arc::new(downstream.owner()),
            pool: match config.reporter {
                Reporter::Waypoint => self.shared.pool.clone(),
                // At the ends connections upstream end with the client's, as they would without a plane.
                Reporter::Source | Reporter::Destination => Arc::default(),
            },
            left_http: Mutex::default(),
            engine: self.shared.clone(),
            wire: Arc::default(),
            under_way: Arc::default(),
            asked: AtomicBool::new(false),
            downstream,
        })
    }
}

/// The requests of a connection that have left HTTP; they end with it if it is given up.
struct LeftHttp<'c>(&'c Connection);

impl LeftHttp<'_> {
    fn take(&self) -> JoinSet<()> {
        let mut held = self.0.left_http.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *held)
    }

    /// Resolves once they have all ended by themselves.
    async fn ended(&self) {
        let mut all = self.take();
        while all.join_next().await.is_some() {}
    }
}

impl Drop for LeftHttp<'_> {
    fn drop(&mut self) {
        // They hold the connection that holds them.
        drop(self.take());
    }
}

async fn one<T>(
    connection: Arc<Connection>,
    io: PutBack<T>,
    leave: impl Future<Output = ()> + Send,
) -> hyper::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let io = Guarded::new(io, &connection.wire);
    let last = AtomicBool::new(false);
    let service = service_fn(|request: http::Request<Incoming>| {
        let answering = connection.clone().answer_one(request);
        let last = &last;
        async move {
            let mut answer = answering.await?;
            if last.load(Ordering::Relaxed) && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                let headers = answer.headers_mut();
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_header_size(SIZE)
        .max_headers(FIELDS)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(serving, leave);
    match futures::future::select(serving.as_mut(), leave).await {
        Either::Left((result, _)) => result,
        Either::Right(((), _)) => {
            // A client between two requests hears of it with its next answer: an end before that would meet the
            // request on its way, which is then lost.
            last.store(true, Ordering::Relaxed);
            if let Ok(result) = timeout(NOTICE, serving.as_mut()).await {
                return result;
            }
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    }
}

/// Lets go of unused connections, for as long as there is an engine.
async fn sweep(shared: Weak<Shared>) {
    let mut ticks = interval(SWEEP);
    loop {
        ticks.tick().await;
        match shared.upgrade() {
            Some(shared) => shared.pool.sweep(),
            None => return,
        }
    }
}
