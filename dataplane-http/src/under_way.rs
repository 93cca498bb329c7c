//! The requests that are under way on one connection: what each asked, and where it went. Whenever policy or workloads
//! change, all of them are decided about again, by one future of the connection; one that is no longer allowed ends
//! with the policy's reason. It holds no lock while it decides, and nothing that others than this connection wait for.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;
use http::{HeaderMap, Response, StatusCode};
use tokio::sync::watch;
use trefoil_dataplane_state::Store;

use crate::answer::Refusal;
use crate::interim;
use crate::request::{Asked, Connection};
use crate::seam::Server;

/// Interim responses that wait to be passed on.
const INTERIM: usize = 16;

/// All requests under way on one connection.
#[derive(Default)]
pub(crate) struct UnderWay {
    passages: Mutex<Passages>,
}

#[derive(Default)]
struct Passages {
    next: u64,
    held: HashMap<u64, Held>,
}

#[derive(Clone)]
struct Held {
    asked: Arc<Asked>,
    server: Arc<Server>,
    passage: Weak<Passage>,
}

/// The passage of one attempt, from before it is decided about until both of its bodies have ended.
pub(crate) struct Passage {
    of: Arc<UnderWay>,
    number: u64,
    refusal: OnceLock<Refusal>,
    /// Interim responses that were not passed on yet.
    interim: Mutex<Vec<Response<()>>>,
    /// Who waits with the request's body, and who with the response or its body.
    request: AtomicWaker,
    response: AtomicWaker,
}

impl UnderWay {
    /// To be called before it is decided about: a change that comes between the two is not missed then.
    pub(crate) fn enter(self: &Arc<Self>, asked: &Arc<Asked>, server: &Arc<Server>) -> Arc<Passage> {
        let mut passages = self.lock();
        let number = passages.next;
        passages.next += 1;
        let passage = Arc::new(Passage {
            of: self.clone(),
            number,
            refusal: OnceLock::new(),
            interim: Mutex::default(),
            request: AtomicWaker::new(),
            response: AtomicWaker::new(),
        });
        let held = Held {
            asked: asked.clone(),
            server: server.clone(),
            passage: Arc::downgrade(&passage),
        };
        passages.held.insert(number, held);
        passage
    }

    /// Ends what `decide` no longer allows.
    fn reconsider(&self, decide: impl Fn(&Asked, &Server) -> Result<(), Refusal>) {
        let all: Vec<Held> = self.lock().held.values().cloned().collect();
        for held in all {
            if let Err(refusal) = decide(&held.asked, &held.server)
                && let Some(passage) = held.passage.upgrade()
            {
                passage.end(refusal);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Passages> {
        self.passages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `server` is by now; none where it is gone, or its address another's.
pub(crate) fn as_known(store: &Store, server: &Server) -> Option<Server> {
    let mut now = server.clone();
    let workload = store.workload(&server.endpoint.workload.uid)?;
    let there = workload.addresses.contains(&server.endpoint.address.ip());
    now.endpoint.workload = workload;
    there.then_some(now)
}

/// Decides again about what is under way on `connection`, on each of these changes. Never resolves.
pub(crate) async fn reconsidered(connection: &Connection, mut changes: watch::Receiver<u64>) -> Infallible {
    while changes.changed().await.is_ok() {
        connection
            .under_way
            .reconsider(|asked, server| connection.still_authorized(asked, server));
    }
    std::future::pending().await
}

impl Passage {
    /// Ends it in both directions.
    pub(crate) fn end(&self, refusal: Refusal) {
        // The first reason stays.
        if self.refusal.set(refusal).is_ok() {
            self.request.wake();
            self.response.wake();
        }
    }

    /// An interim response came. More than a few that nobody takes are dropped.
    pub(crate) fn interim(&self, status: StatusCode, headers: &HeaderMap) {
        let Some(head) = interim::passed_on(status, headers) else {
            return;
        };
        let mut waiting = self.interim.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < INTERIM {
            waiting.push(head);
            self.response.wake();
        }
    }

    /// Those that came, for the one who waits for the response.
    pub(crate) fn take_interim(&self) -> Vec<Response<()>> {
        std::mem::take(&mut *self.interim.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ready once the request is no longer allowed: for whoever sends its body.
    pub(crate) fn poll_request(&self, cx: &Context<'_>) -> Poll<Refusal> {
        self.poll(&self.request, cx)
    }

    /// The same, for whoever waits for the response or passes on its body.
    pub(crate) fn poll_response(&self, cx: &Context<'_>) -> Poll<Refusal> {
        self.poll(&self.response, cx)
    }

    fn poll(&self, waiting: &AtomicWaker, cx: &Context<'_>) -> Poll<Refusal> {
        waiting.register(cx.waker());
        match self.refusal.get() {
            Some(refusal) => Poll::Ready(refusal.clone()),
            None => Poll::Pending,
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.of.lock().held.remove(&self.number);
    }
}
