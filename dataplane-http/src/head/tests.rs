use http::Request;
use trefoil_api::policy::Headers;

use super::*;

fn parts(version: Version, target: &str, fields: &[(&'static str, &'static str)]) -> Parts {
    let mut request = Request::builder().version(version).uri(target);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn host_of(version: Version, target: &str, hosts: &[&'static str]) -> Result<String, HeadRefused> {
    let fields: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
    read(&mut parts(version, target, &fields), "cart.shop").map(|head| head.host)
}

#[test]
fn there_is_one_definition_of_the_host() {
    use HeadRefused::{HostMismatch, InvalidHost, NoHost, SeveralHosts};
    let (one, two) = (Version::HTTP_11, Version::HTTP_2);
    for (version, target, hosts, expected) in [
        (one, "/", &["Cart.Shop:8080"][..], Ok("cart.shop")),
        (one, "/", &["cart."], Ok("cart")),
        (one, "/", &["[::1]:80"], Ok("[::1]")),
        (one, "/", &[], Err(NoHost)),
        (one, "/", &["a", "a"], Err(SeveralHosts)),
        (one, "/", &[""], Err(InvalidHost)),
        (one, "/", &["a b"], Err(InvalidHost)),
        (one, "/", &["user@a"], Err(InvalidHost)),
        (one, "/", &["a:b"], Err(InvalidHost)),
        (one, "/", &["a:"], Err(InvalidHost)),
        (one, "/", &["a/b"], Err(InvalidHost)),
        (one, "/", &["a,b"], Err(InvalidHost)),
        (one, "http://a/x", &["a"], Ok("a")),
        (one, "http://a/x", &["A:80"], Ok("a")),
        (one, "http://a/x", &["b"], Err(HostMismatch)),
        (one, "http://a:81/x", &["a"], Err(HostMismatch)),
        (one, "http://u@a/x", &["a"], Err(InvalidHost)),
        (two, "http://a/x", &[], Ok("a")),
        (two, "http://a/x", &["b"], Err(HostMismatch)),
        (two, "/x", &[], Err(NoHost)),
        (Version::HTTP_10, "/", &[], Ok("cart.shop")),
    ] {
        let expected = expected.map(str::to_owned);
        assert_eq!(host_of(version, target, hosts), expected, "{target} {hosts:?}");
    }
}

#[test]
fn what_goes_on_is_the_normalised_path_and_the_query_as_it_was() {
    for (target, expected) in [
        ("/a/../b?x=%2F..", "/b?x=%2F.."),
        ("http://a", "/"),
        ("http://a?x", "/?x"),
        ("http://a/%41//c", "/A/c"),
        ("/plain?", "/plain?"),
    ] {
        let mut parts = parts(Version::HTTP_11, target, &[("host", "a")]);
        read(&mut parts, "a").unwrap();
        assert_eq!(parts.uri.to_string(), expected, "{target}");
        assert!(!parts.headers.contains_key("host"));
    }
    let refused = read(&mut parts(Version::HTTP_11, "/a%2fb", &[("host", "a")]), "a");
    assert_eq!(refused, Err(HeadRefused::Path(PathRefused::EncodedSlash)));
}

#[test]
fn fields_of_one_hop_stay_there() {
    let mut headers = parts(
        Version::HTTP_11,
        "/",
        &[
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("te", "deflate, Trailers"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("content-length", "3"),
            ("x-yours", "2"),
        ],
    )
    .headers;
    strip_hop(&mut headers);
    let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["content-length", "te", "x-yours"]);
    assert_eq!(headers["te"], "trailers");
}

#[test]
fn an_upgrade_to_requests_that_nobody_reads_is_none() {
    let asked = |connection, to| {
        upgrade(
            &parts(
                Version::HTTP_11,
                "/",
                &[("connection", connection), ("upgrade", to)],
            )
            .headers,
        )
    };
    assert_eq!(asked("Upgrade", "websocket").unwrap(), "websocket");
    assert_eq!(asked("keep-alive, upgrade", "websocket").unwrap(), "websocket");
    assert_eq!(asked("keep-alive", "websocket"), None);
    assert_eq!(asked("Upgrade", "H2C"), None);
}

#[test]
fn nobody_else_speaks_for_the_mesh() {
    let fields = [
        ("x-forwarded-client-cert", "URI=spiffe://a"),
        ("x-forwarded-client-cert", "URI=spiffe://b"),
        ("trefoil-peer", "spiffe://a"),
        ("trefoil-new", "1"),
        // The same to CGI.
        ("x_forwarded_client_cert", "URI=spiffe://c"),
        ("x-forwarded_client-cert", "URI=spiffe://d"),
        ("trefoil_peer", "spiffe://a"),
        ("x-mine", "1"),
        ("x_mine", "1"),
        ("x-forwarded-client-cert-2", "1"),
    ];
    let mut headers = parts(Version::HTTP_11, "/", &fields).headers;
    strip_ours(&mut headers);
    let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["x-forwarded-client-cert-2", "x-mine", "x_mine"]);
}

#[test]
fn several_fields_of_a_name_are_one_value() {
    let fields = [("a", "1"), ("a", "2"), ("cookie", "x=1"), ("cookie", "y=2")];
    let mut parts = parts(Version::HTTP_2, "http://a/", &fields);
    read(&mut parts, "").unwrap();
    assert_eq!(Fields(&parts.headers).value("a").unwrap(), "1,2");
    assert_eq!(Fields(&parts.headers).value("cookie").unwrap(), "x=1; y=2");
    assert_eq!(Fields(&parts.headers).value("b"), None);
}
