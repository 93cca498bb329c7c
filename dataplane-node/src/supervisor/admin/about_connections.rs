//! Questions about one connection go to the worker that serves the pod they are about, and to no other.

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::any;
use serde::Deserialize;
use serde_json::json;
use trefoil_api::names::workload_uid;
use trefoil_dataplane_process::admin::QUESTIONS;

use crate::supervisor::Shown;

/// Whom a question is about.
#[derive(Deserialize)]
struct About {
    workload: String,
}

pub(super) fn routes(shown: &Shown) -> Router {
    let router = QUESTIONS
        .iter()
        .fold(Router::new(), |router, path| router.route(path, any(pass_on)));
    router.with_state(shown.clone())
}

async fn pass_on(
    State(shown): State<Shown>,
    Query(About { workload }): Query<About>,
    request: Request,
) -> Response {
    let workers = shown.fleet.workers();
    let serving = workers.iter().find(|worker| {
        let pods = worker.pods();
        let mut served = pods.iter().filter(|pod| pod.state == "serving");
        served.any(|pod| workload_uid(&pod.namespace, &pod.name) == workload)
    });
    let Some(worker) = serving else {
        let error = format!("workload {workload} is served by no worker of this node");
        return refused(StatusCode::NOT_FOUND, &error);
    };
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    match worker.questions.ask(request.method(), path, "").await {
        Ok(answer) => {
            let status = u16::try_from(answer.status).ok();
            let status = status.and_then(|status| StatusCode::from_u16(status).ok());
            let json = [(axum::http::header::CONTENT_TYPE, "application/json")];
            (status.unwrap_or(StatusCode::BAD_GATEWAY), json, answer.body).into_response()
        }
        Err(error) => refused(StatusCode::GATEWAY_TIMEOUT, &error.to_string()),
    }
}

fn refused(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}
