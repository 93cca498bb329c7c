use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use prometheus_client::metrics::counter::Counter;
use tower::ServiceExt;

use super::*;

#[tokio::test]
async fn shows_what_is_registered() {
    let mut registry = Registry::default();
    let counter: Counter = Counter::default();
    registry.register("knots", "Knots tied", counter.clone());
    counter.inc_by(3);
    let routes = router(Arc::new(registry));
    for path in ["/metrics", "/stats/prometheus"] {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = routes.clone().oneshot(request).await.expect("an answer");
        assert_eq!(response.headers()[header::CONTENT_TYPE], OPEN_METRICS);
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains("knots_total 3"), "{text}");
    }
}
