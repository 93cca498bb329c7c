//! Questions about one connection, answered by the proxy that would serve it, for `trefoilctl why`. What only
//! looks is asked with GET; what makes a connection, with POST.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::json;
use trefoil_api::question::{Arriving, Leaving};

use crate::proxy::{NotAnswered, Proxy};

/// Paths of the questions, for those who pass them on.
pub const QUESTIONS: [&str; 4] = ["/evaluate", "/route", "/probe", "/reach"];

impl IntoResponse for NotAnswered {
    fn into_response(self) -> Response {
        let status = match self {
            Self::NotServed(_) | Self::NotKnown(_) => StatusCode::NOT_FOUND,
            Self::Identity(_) => StatusCode::BAD_REQUEST,
            Self::Busy => StatusCode::TOO_MANY_REQUESTS,
        };
        (status, Json(json!({ "error": self.to_string() }))).into_response()
    }
}

type Asked = State<Arc<Proxy>>;

pub(super) fn routes(proxy: Arc<Proxy>) -> Router {
    let evaluate = get(async |State(proxy): Asked, Query(question): Query<Arriving>| {
        proxy.evaluate(&question).map(Json)
    });
    let route =
        get(async |State(proxy): Asked, Query(question): Query<Leaving>| proxy.route(&question).map(Json));
    let probe = post(async |State(proxy): Asked, Query(question): Query<Leaving>| {
        proxy.probe(&question).await.map(Json)
    });
    let reach = post(async |State(proxy): Asked, Query(question): Query<Arriving>| {
        proxy.reach(&question).await.map(Json)
    });
    Router::new()
        .route(QUESTIONS[0], evaluate)
        .route(QUESTIONS[1], route)
        .route(QUESTIONS[2], probe)
        .route(QUESTIONS[3], reach)
        .with_state(proxy)
}
