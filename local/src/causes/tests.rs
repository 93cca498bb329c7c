use super::causes;

#[test]
fn what_an_api_server_refuses_is_said_once() {
    let status: kube::core::Status = serde_json::from_value(serde_json::json!({
        "status": "Failure", "message": "pods \"x\" not found", "reason": "NotFound", "code": 404,
    }))
    .unwrap();
    let error = anyhow::Error::from(kube::Error::Api(Box::new(status))).context("deleting pod/x");
    assert_eq!(causes(&error), "deleting pod/x: pods \"x\" not found");
}

#[test]
fn a_cause_that_is_said_already_is_not_said_again() {
    let error = anyhow::anyhow!("no route")
        .context("connecting: no route")
        .context("asking");
    assert_eq!(causes(&error), "asking: connecting: no route");
}
