//! Readiness as values: whatever must happen first holds a [`BlockReady`]; dropping it says that it has. The
//! names still pending are the body of the answer to a probe.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::sync::watch;

#[cfg(test)]
mod tests;

/// What is still awaited before the process is ready. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    pending: Arc<Mutex<BTreeMap<String, usize>>>,
    ticks: Arc<watch::Sender<()>>,
}

/// Something that must happen first. Dropping it says that it has.
#[derive(Debug)]
pub struct BlockReady {
    name: String,
    readiness: Readiness,
}

impl Readiness {
    /// Nothing is awaited.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Something more is awaited, under a name that tells an operator what.
    #[must_use]
    pub fn block(&self, name: impl Into<String>) -> BlockReady {
        let name = name.into();
        *self.lock().entry(name.clone()).or_default() += 1;
        self.ticks.send_replace(());
        BlockReady {
            name,
            readiness: self.clone(),
        }
    }

    /// Names of what is awaited, in their order; empty: ready.
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Resolves once nothing is awaited.
    pub async fn ready(&self) {
        let mut ticks = self.ticks.subscribe();
        // The sender lives in `self`: it cannot be gone.
        let _ = ticks.wait_for(|()| self.lock().is_empty()).await;
    }

    /// `GET /healthz/ready`: 200 when ready, else 503 and a line for each name that is awaited.
    pub fn router(&self) -> Router {
        let readiness = self.clone();
        let answer = move || async move {
            let pending = readiness.pending();
            if pending.is_empty() {
                (StatusCode::OK, "ready\n".to_owned())
            } else {
                let body = format!("awaiting:\n{}\n", pending.join("\n"));
                (StatusCode::SERVICE_UNAVAILABLE, body)
            }
        };
        Router::new().route("/healthz/ready", get(answer))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, usize>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for BlockReady {
    fn drop(&mut self) {
        let mut pending = self.readiness.lock();
        if let Some(count) = pending.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                pending.remove(&self.name);
            }
        }
        drop(pending);
        self.readiness.ticks.send_replace(());
    }
}
