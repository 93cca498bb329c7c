//! The admin interface: HTTP/1.1 over a Unix socket that only its owner may open. A pod's containers share
//! loopback, so it never listens on a port. Planes add their routes; what a route shows holds no keys.

mod ask;
mod log;
mod questions;
mod show;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::UnixListener;

use crate::Readiness;
use trefoil_dataplane_core::Drain;
use trefoil_dataplane_core::proxy::Proxy;
use trefoil_dataplane_state::Store;

pub use ask::{Answer, AskError, ask};
pub use log::{Format, LogError, LogLevel};
pub use questions::QUESTIONS;
pub use show::{policies, settings, workloads};

/// The admin interface being put together.
#[derive(Clone, Debug)]
pub struct Admin {
    routes: Router,
}

impl Admin {
    /// What every process has: `/log-level`, and `/drain`, which begins draining.
    #[must_use]
    pub fn new(drain: Drain, level: LogLevel) -> Self {
        let levels = get(show_level).put(set_level).with_state(level);
        let begin = post(move || async move {
            drain.begin();
            Json(json!({ "draining": true }))
        });
        let routes = Router::new().route("/log-level", levels).route("/drain", begin);
        Self { routes }
    }

    /// Adds `GET path`, answered by what the closure makes each time.
    #[must_use]
    pub fn with<F, Made>(mut self, path: &str, make: F) -> Self
    where
        F: Fn() -> Made + Clone + Send + Sync + 'static,
        Made: Future<Output = Value> + Send + 'static,
    {
        let answer = move || {
            let made = make();
            async move { Json(made.await) }
        };
        self.routes = self.routes.route(path, get(answer));
        self
    }

    /// Adds `/workloads`, `/policies` and `/settings`, of a store.
    #[must_use]
    pub fn with_store(self, store: &Store) -> Self {
        let (for_workloads, for_policies) = (store.clone(), store.clone());
        let for_settings = store.clone();
        self.with("/workloads", move || {
            std::future::ready(workloads(&for_workloads.snapshot()))
        })
        .with("/policies", move || {
            std::future::ready(policies(&for_policies.snapshot()))
        })
        .with("/settings", move || {
            std::future::ready(settings(&for_settings.snapshot()))
        })
    }

    /// Adds what a proxy has, and what it answers about connections.
    #[must_use]
    pub fn with_proxy(mut self, proxy: &Arc<Proxy>) -> Self {
        self.routes = self.routes.merge(questions::routes(proxy.clone()));
        let proxy = proxy.clone();
        self.with("/connections", move || {
            std::future::ready(json!({ "connections": proxy.connections() }))
        })
    }

    /// Adds the readiness route, for those who cannot reach its port.
    #[must_use]
    pub fn with_readiness(mut self, readiness: &Readiness) -> Self {
        self.routes = self.routes.merge(readiness.router());
        self
    }

    /// Changes all routes at once, such as to pass on what is asked of them.
    #[must_use]
    pub fn map_routes(mut self, change: impl FnOnce(Router) -> Router) -> Self {
        self.routes = change(self.routes);
        self
    }

    /// All routes, to be served elsewhere.
    pub fn into_routes(self) -> Router {
        self.routes
    }

    /// Serves on a Unix socket of mode 0600, in place of what a predecessor left there, until the process
    /// ends.
    pub async fn serve(self, socket: &Path) -> io::Result<()> {
        let listener = listen(socket)?;
        axum::serve(listener, self.routes).await
    }
}

/// The socket appears under its name only once its mode is set.
fn listen(socket: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = socket.with_extension(format!("{}.new", std::process::id()));
    match std::fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&beside)?;
    std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&beside, socket)?;
    Ok(listener)
}

async fn show_level(State(level): State<LogLevel>) -> Json<Value> {
    Json(json!({ "level": level.current() }))
}

async fn set_level(State(level): State<LogLevel>, wanted: String) -> (StatusCode, Json<Value>) {
    match level.set(wanted.trim()) {
        Ok(()) => (StatusCode::OK, Json(json!({ "level": level.current() }))),
        Err(error) => {
            let problem = json!({ "error": error.to_string() });
            (StatusCode::BAD_REQUEST, Json(problem))
        }
    }
}
