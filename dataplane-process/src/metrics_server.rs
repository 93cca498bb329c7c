//! `GET /metrics` in the OpenMetrics text format. It serves and never changes what is measured.

use std::sync::Arc;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

#[cfg(test)]
mod tests;

/// The media type of OpenMetrics text.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The routes: `/metrics`, and `/stats/prometheus` for scrapers that are set up for other meshes.
pub fn router(registry: Arc<Registry>) -> Router {
    let other = registry.clone();
    Router::new()
        .route("/metrics", get(move || async move { text(&registry) }))
        .route("/stats/prometheus", get(move || async move { text(&other) }))
}

/// Serves routes on a listener until the process ends.
pub async fn serve(listener: TcpListener, routes: Router) -> std::io::Result<()> {
    axum::serve(listener, routes).await
}

fn text(registry: &Registry) -> Response {
    let mut body = String::new();
    match encode(&mut body, registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
