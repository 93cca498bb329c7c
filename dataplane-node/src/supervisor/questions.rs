//! Admin questions that a worker was asked, and its answers, which come in pieces. A worker that never
//! answers costs the asker a time-out, and an answer that nobody awaits is dropped.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::Method;
use tokio::sync::{mpsc, oneshot};
use trefoil_api::proto::trefoil::worker::{AdminRequest, AdminResponse};

/// How long a worker has to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer that is put together.
const LARGEST: usize = 64 << 20;

/// Questions to one worker.
#[derive(Debug, Default)]
pub(crate) struct Questions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    waiting: HashMap<u64, Waiting>,
    ask: Option<mpsc::Sender<AdminRequest>>,
}

#[derive(Debug)]
struct Waiting {
    body: Vec<u8>,
    answer: oneshot::Sender<Answer>,
}

/// What a worker answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// As in HTTP.
    pub status: u32,
    /// Its body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum NoAnswer {
    /// There is no process, or it ended.
    #[error("the worker is not running")]
    NotRunning,
    /// It did not answer in time.
    #[error("the worker did not answer within {PATIENCE:?}")]
    Silent,
}

impl Questions {
    /// Connects the questions to a process.
    pub(crate) fn connect(&self, ask: mpsc::Sender<AdminRequest>) {
        self.lock().ask = Some(ask);
    }

    /// The process has ended: nothing that was asked will be answered.
    pub(crate) fn forget(&self) {
        let mut state = self.lock();
        state.ask = None;
        state.waiting.clear();
    }

    /// Asks, and waits for the whole answer.
    pub(crate) async fn ask(&self, method: &Method, path: &str, body: &str) -> Result<Answer, NoAnswer> {
        let (answer, answered) = oneshot::channel();
        let (request, ask) = {
            let mut state = self.lock();
            let ask = state.ask.clone().ok_or(NoAnswer::NotRunning)?;
            state.last += 1;
            let request = state.last;
            let body = Vec::new();
            state.waiting.insert(request, Waiting { body, answer });
            (request, ask)
        };
        let question = AdminRequest {
            request,
            method: method.to_string(),
            path: path.into(),
            body: body.into(),
        };
        let exchange = async {
            ask.send(question).await.map_err(|_| NoAnswer::NotRunning)?;
            answered.await.map_err(|_| NoAnswer::NotRunning)
        };
        let result = tokio::time::timeout(PATIENCE, exchange).await;
        self.lock().waiting.remove(&request);
        result.unwrap_or(Err(NoAnswer::Silent))
    }

    /// Takes a piece of an answer.
    pub(crate) fn answered(&self, piece: AdminResponse) {
        let mut state = self.lock();
        let Some(waiting) = state.waiting.get_mut(&piece.request) else {
            return;
        };
        if waiting.body.len() + piece.body.len() > LARGEST {
            state.waiting.remove(&piece.request);
            return;
        }
        waiting.body.extend_from_slice(&piece.body);
        if piece.last
            && let Some(waiting) = state.waiting.remove(&piece.request)
        {
            let _ = waiting.answer.send(Answer {
                status: piece.status,
                body: waiting.body,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
