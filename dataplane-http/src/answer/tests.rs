use trefoil_api::policy::Reason;

use super::*;

#[tokio::test]
async fn a_refusal_names_its_layer_and_reason() {
    let denied = Refusal::Denied(Denied::Policy(Reason::Matched("shop/no-admin".into())));
    let response = denied.answer(Layer::Waypoint, false);
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8(body.to_vec()).unwrap();
    assert!(
        text.starts_with("policy: ") && text.contains("shop/no-admin"),
        "{text}"
    );
    assert_eq!(denied.policy(), Some("shop/no-admin"));
}

#[test]
fn grpc_is_answered_as_grpc() {
    let response = Refusal::NoEndpoint("é".into()).answer(Layer::Waypoint, true);
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["grpc-status"], "14");
    assert_eq!(
        response.headers()["grpc-message"],
        "application: service %C3%A9 has no healthy endpoint"
    );
    assert_eq!(Refusal::TimedOut("1 s").grpc_status(), 4);
}

#[test]
fn grpc_is_told_by_its_content_type() {
    for (value, expected) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc;x", true),
        ("application/grpc-web", false),
        ("text/plain", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
        assert_eq!(is_grpc(&headers), expected, "{value}");
    }
}
