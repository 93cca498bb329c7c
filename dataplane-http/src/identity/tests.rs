use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

fn told(certificate: Option<&'static str>, fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let told = Told {
        certificate: certificate.map(HeaderValue::from_static),
        source: Some(HeaderValue::from_static("10.0.0.1")),
    };
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    told.tell(&mut headers, &mut StdRng::seed_from_u64(1));
    headers
}

#[test]
fn an_identity_is_the_proven_one_or_none() {
    let forged = [
        ("x-forwarded-client-cert", "URI=spiffe://admin"),
        ("trefoil-peer", "spiffe://admin"),
    ];
    let headers = told(Some("By=spiffe://w;URI=spiffe://web"), &forged);
    let all: Vec<_> = headers.get_all(CLIENT_CERTIFICATE).iter().collect();
    assert_eq!(all, ["By=spiffe://w;URI=spiffe://web"]);
    assert!(!headers.contains_key("trefoil-peer"));
    assert!(!told(None, &forged).contains_key(CLIENT_CERTIFICATE));
}

#[test]
fn what_names_the_request_is_kept_where_it_is_there_and_made_where_not() {
    const TRACED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = told(
        None,
        &[
            ("x-request-id", "mine"),
            ("traceparent", TRACED),
            ("x-forwarded-for", "1.2.3.4"),
        ],
    );
    assert_eq!(headers["x-request-id"], "mine");
    assert_eq!(headers["traceparent"], TRACED);
    assert_eq!(headers["x-forwarded-for"], "1.2.3.4, 10.0.0.1");
    let made = told(None, &[("traceparent", "nonsense")]);
    assert!(is_trace(made["traceparent"].as_bytes()));
    assert_eq!(made["x-request-id"].len(), 36);
    assert_eq!(made["x-forwarded-for"], "10.0.0.1");
    assert_eq!(made["x-forwarded-proto"], "http");
}

#[test]
fn where_it_came_from_is_said_behind_all_that_was_said_and_in_one_way() {
    let headers = told(
        None,
        &[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "5.6.7.8, 9.9.9.9"),
            ("forwarded", "for=10.0.0.7;by=10.0.0.8"),
            ("forwarded", "for=127.0.0.1"),
        ],
    );
    let all: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    assert_eq!(all, ["1.2.3.4, 5.6.7.8, 9.9.9.9, 10.0.0.1"]);
    assert!(!headers.contains_key("forwarded"));
}

#[test]
fn a_trace_of_zeroes_is_none() {
    let zero = format!("00-{}-{}-01", "0".repeat(32), "1".repeat(16));
    assert!(!is_trace(zero.as_bytes()));
    assert!(!is_trace(b"00-"));
}
