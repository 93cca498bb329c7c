use super::{Table, causes, width};

#[test]
fn columns_are_aligned_and_colour_has_no_width() {
    let mut table = Table::new(&["A", "B"]);
    table.row(["long".into(), "x".into()]);
    table.row(["\u{1b}[32mok\u{1b}[0m".into(), "y".into()]);
    let text = table.render();
    let columns: Vec<usize> = text.lines().map(|line| width(line) - 1).collect();
    assert_eq!(columns, [6, 6, 6]);
}

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
