//! Questions about one connection, answered by the proxy that would serve it, for `trefoilctl why`. What only
//! looks is asked with GET; what makes a connection, with POST.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Serialize;
use serde_json::json;
use trefoil_api::question::{Arriving, Leaving};
use trefoil_dataplane_core::proxy::{NotAnswered, Proxy};

/// Paths of the questions, for those who pass them on.
pub const QUESTIONS: [&str; 4] = ["/evaluate", "/route", "/probe", "/reach"];

fn answer(answered: Result<impl Serialize, NotAnswered>) -> Response {
    let error = match answered {
        Ok(answer) => return Json(answer).into_response(),
        Err(error) => error,
    };
    let status = match error {
        NotAnswered::NotServed(_) | NotAnswered::NotKnown(_) => StatusCode::NOT_FOUND,
        NotAnswered::Identity(_) => StatusCode::BAD_REQUEST,
        NotAnswered::Busy => StatusCode::TOO_MANY_REQUESTS,
    };
    (status, Json(json!({ "error": error.to_string() }))).into_response()
}

type Asked = State<Arc<Proxy>>;

pub(super) fn routes(proxy: Arc<Proxy>) -> Router {
    let evaluate =
        get(async |State(proxy): Asked, Query(question): Query<Arriving>| answer(proxy.evaluate(&question)));
    let route =
        get(async |State(proxy): Asked, Query(question): Query<Leaving>| answer(proxy.route(&question)));
    let probe = post(async |State(proxy): Asked, Query(question): Query<Leaving>| {
        answer(proxy.probe(&question).await)
    });
    let reach = post(async |State(proxy): Asked, Query(question): Query<Arriving>| {
        answer(proxy.reach(&question).await)
    });
    Router::new()
        .route(QUESTIONS[0], evaluate)
        .route(QUESTIONS[1], route)
        .route(QUESTIONS[2], probe)
        .route(QUESTIONS[3], reach)
        .with_state(proxy)
}
