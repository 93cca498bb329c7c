//! The supervisor's admin interface: what it knows itself, and what each worker answers. A worker that
//! does not answer is named, and does not keep the others' answers back.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use futures::future::join_all;
use serde_json::{Value, json};
use trefoil_dataplane_process::admin::Admin;

use super::Shown;

mod about_connections;
use super::worker::Worker;

#[cfg(test)]
mod tests;

/// The longest log level that is read.
const LONGEST_LEVEL: usize = 4096;

/// The interface, to be served.
pub(crate) fn interface(shown: &Shown) -> Admin {
    let (status, config) = (shown.clone(), shown.clone());
    let (connections, certificates) = (shown.clone(), shown.clone());
    let passing_on = shown.clone();
    Admin::new(shown.drain.clone(), shown.level.clone())
        .with_store(&shown.store)
        .with_readiness(&shown.readiness)
        .with("/status", move || std::future::ready(self::status(&status)))
        .with("/config", move || std::future::ready(self::config(&config)))
        .with("/connections", move || {
            gather(connections.clone(), "/connections")
        })
        .with("/certificates", move || {
            gather(certificates.clone(), "/certificates")
        })
        .map_routes(|routes| routes.merge(about_connections::routes(shown)))
        .map_routes(move |routes| routes.layer(from_fn_with_state(passing_on, pass_on_level)))
}

fn status(shown: &Shown) -> Value {
    let workers = shown.fleet.workers();
    let workers: Vec<Value> = workers.iter().map(|worker| worker_status(worker)).collect();
    json!({
        "node": shown.flags.node,
        "pid": std::process::id(),
        "version": env!("CARGO_PKG_VERSION"),
        "awaiting": shown.readiness.pending(),
        "draining": shown.drain.is_draining(),
        "controlPlane": *shown.discovery.borrow(),
        "resources": shown.resources.count(),
        "pods": shown.node.count(),
        "unassigned": shown.node.unassigned(),
        "workers": workers,
    })
}

fn worker_status(worker: &Worker) -> Value {
    let life = worker.life();
    json!({
        "scope": worker.scope.to_string(),
        "pid": life.process,
        "uid": worker.user,
        "ready": life.spoke && life.pending.is_empty(),
        "awaiting": life.pending,
        "restarts": worker.restarts(),
        "pods": worker.pods(),
    })
}

fn config(shown: &Shown) -> Value {
    let flags = &shown.flags;
    json!({
        "plane": "node",
        "node": flags.node,
        "controlPlane": flags.control_plane,
        "controlPlaneName": flags.control_plane_name,
        "token": flags.token,
        "rootCert": flags.root_cert,
        "runDir": flags.run_dir,
        "stateDir": flags.state_dir,
        "metricsListen": flags.metrics_listen,
        "readinessListen": flags.readiness_listen,
        "adminSocket": flags.admin_socket,
        "isolation": format!("{:?}", flags.isolation).to_lowercase(),
        "trustDomain": flags.trust_domain,
        "workerThreads": flags.worker_threads,
        "drainDeadline": flags.drain_deadline,
        "logLevel": shown.level.current(),
    })
}

/// Asks every worker, and puts the answers together.
async fn gather(shown: Shown, path: &'static str) -> Value {
    let workers = shown.fleet.workers();
    let answers = join_all(workers.iter().map(|worker| async move {
        let answer = worker.questions.ask(&Method::GET, path, "").await;
        let answer = answer.map_err(|error| error.to_string()).and_then(|answer| {
            serde_json::from_slice::<Value>(&answer.body).map_err(|error| error.to_string())
        });
        (worker.scope.to_string(), answer)
    }))
    .await;
    together(answers)
}

/// One object of what several workers answered: lists are joined, their items marked with the worker.
fn together(answers: Vec<(String, Result<Value, String>)>) -> Value {
    let mut joined = serde_json::Map::new();
    for (scope, answer) in answers {
        let fields = match answer {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => continue,
            Err(error) => {
                append(
                    &mut joined,
                    "unanswered",
                    vec![json!({ "worker": scope, "error": error })],
                );
                continue;
            }
        };
        for (key, value) in fields {
            match value {
                Value::Array(items) => append(&mut joined, &key, marked(items, &scope)),
                other => {
                    joined.insert(key, other);
                }
            }
        }
    }
    Value::Object(joined)
}

fn append(joined: &mut serde_json::Map<String, Value>, key: &str, items: Vec<Value>) {
    let list = joined.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    if let Value::Array(list) = list {
        list.extend(items);
    }
}

fn marked(mut items: Vec<Value>, scope: &str) -> Vec<Value> {
    for item in &mut items {
        if let Value::Object(fields) = item {
            fields.insert("worker".into(), scope.into());
        }
    }
    items
}

/// A new log level is also the workers'.
async fn pass_on_level(State(shown): State<Shown>, request: Request, next: Next) -> Response {
    if request.method() != Method::PUT || request.uri().path() != "/log-level" {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let Ok(level) = to_bytes(body, LONGEST_LEVEL).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let text = String::from_utf8_lossy(&level).into_owned();
    let response = next.run(Request::from_parts(parts, Body::from(level))).await;
    if response.status().is_success() {
        let workers = shown.fleet.workers();
        let told = workers
            .iter()
            .map(|worker| worker.questions.ask(&Method::PUT, "/log-level", &text));
        for error in join_all(told).await.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "a worker keeps its log level");
        }
    }
    response
}
