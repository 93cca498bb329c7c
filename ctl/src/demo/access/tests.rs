use super::{parse, plain};

#[test]
fn fields_of_a_line_are_read() {
    let line = parse(
        "2026-11-20T22:53:54Z  INFO access: connection complete src.addr=10.244.2.2:47272 src.workload=\"c1\" \
         src.identity=spiffe://cluster.local/ns/amb/sa/default direction=\"inbound\" policy=no policy applies \
         reason=\"a b\" response_flags=\"-\"",
    )
    .unwrap();
    assert_eq!(line.get("src.addr"), "10.244.2.2:47272");
    assert_eq!(line.get("src.workload"), "c1");
    assert_eq!(line.get("policy"), "no policy applies");
    assert_eq!(line.get("reason"), "a b");
    assert_eq!(line.get("absent"), "");
}

#[test]
fn a_request_is_of_the_direction_that_its_reporter_sees() {
    let client = ["10.244.1.3".parse().unwrap()];
    for (reporter, direction) in [
        ("source", "outbound"),
        ("destination", "inbound"),
        ("waypoint", "through"),
    ] {
        let line = format!(
            "2026-11-20T22:53:54Z  WARN access: request complete src.addr=10.244.1.3:47272 reporter=\"{reporter}\" \
             path=\"/shop.Catalog/Reprice\" code=200 grpc_status=7 reason=denied by policy shop/prices"
        );
        let line = parse(&line).unwrap();
        assert!(line.is_from(direction, &client), "{line:?}");
        assert_eq!(line.get("path"), "/shop.Catalog/Reprice");
        assert_eq!(line.get("reason"), "denied by policy shop/prices");
    }
}

#[test]
fn other_lines_are_none() {
    assert!(parse("2026-11-20T22:53:54Z  INFO trefoil_node: worker started").is_none());
}

#[test]
fn colours_are_no_part_of_a_line() {
    let line = "\u{1b}[32m INFO\u{1b}[0m \u{1b}[2maccess\u{1b}[0m\u{1b}[2m:\u{1b}[0m connection complete \u{1b}[3mpeer\u{1b}[0m\u{1b}[2m=\u{1b}[0m\"none\"";
    assert_eq!(parse(&plain(line)).unwrap().get("peer"), "none");
}
