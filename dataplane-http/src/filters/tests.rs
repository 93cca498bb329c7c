use http::HeaderMap;
use message::http_path_change::Kind as Change;
use message::http_route_filter::Kind;

use super::*;

fn one(kind: Kind) -> Result<Filters, Problem> {
    compile(&[message::HttpRouteFilter { kind: Some(kind) }], "filters")
}

fn header(name: &str, value: &str) -> message::HttpHeader {
    message::HttpHeader {
        name: name.into(),
        value: value.into(),
    }
}

fn path(kind: Change) -> Option<message::HttpPathChange> {
    Some(message::HttpPathChange { kind: Some(kind) })
}

#[test]
fn headers_are_set_added_and_removed() {
    let change = message::HttpHeaderChange {
        set: vec![header("A", "new")],
        add: vec![header("b", "two")],
        remove: vec!["C".into()],
    };
    let filters = one(Kind::RequestHeaders(change)).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in [("a", "1"), ("a", "2"), ("b", "one"), ("c", "3")] {
        headers.append(name, HeaderValue::from_static(value));
    }
    filters.request[0].apply(&mut headers);
    let all = |name: &str| headers.get_all(name).iter().cloned().collect::<Vec<_>>();
    assert_eq!(all("a"), ["new"]);
    assert_eq!(all("b"), ["one", "two"]);
    assert!(all("c").is_empty());
}

#[test]
fn a_route_says_neither_who_the_client_is_nor_where_a_message_ends() {
    for name in [
        "x-forwarded-client-cert",
        "Trefoil-Peer",
        "content-length",
        "Host",
        "connection",
        "a b",
    ] {
        let change = message::HttpHeaderChange {
            set: vec![header("fine", "1"), header(name, "1")],
            ..message::HttpHeaderChange::default()
        };
        let (field, _) = one(Kind::RequestHeaders(change)).expect_err(name);
        assert_eq!(field, "filters[0].request_headers.set[1].name");
    }
}

#[test]
fn prefixes_are_replaced_by_segments() {
    // The table of the Gateway API, HTTPPathModifier.replacePrefixMatch.
    for (given, matched, by, expected) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
        ("/bar", "/", "/xyz", "/xyz/bar"),
    ] {
        let change = path_change(&path(Change::Prefix(by.into())).unwrap(), "path").unwrap();
        let matched = matched.strip_suffix('/').unwrap_or(matched);
        assert_eq!(
            change.apply(given, Some(matched)),
            expected,
            "{given} {matched} {by}"
        );
    }
}

#[test]
fn redirects_lead_where_they_say() {
    let to = |redirect: message::HttpRedirect, port| {
        let filters = one(Kind::Redirect(redirect)).unwrap();
        let uri = Uri::from_static("/old/x?q=1");
        let (status, location) = filters
            .redirect
            .unwrap()
            .answer("a.shop", port, &uri, Some("/old"));
        (status.as_u16(), location)
    };
    let blank = message::HttpRedirect::default;
    let https = message::HttpRedirect {
        scheme: "https".into(),
        status: 301,
        ..blank()
    };
    let with_port = message::HttpRedirect {
        scheme: "https".into(),
        port: 8443,
        ..blank()
    };
    let moved = message::HttpRedirect {
        host: "b.shop".into(),
        path: path(Change::Prefix("/new".into())),
        status: 308,
        ..blank()
    };
    let full = message::HttpRedirect {
        path: path(Change::Full("/all".into())),
        ..blank()
    };
    assert_eq!(to(https, 8080), (301, "https://a.shop/old/x?q=1".into()));
    assert_eq!(to(with_port, 80), (302, "https://a.shop:8443/old/x?q=1".into()));
    assert_eq!(to(moved, 80), (308, "http://b.shop/new/x?q=1".into()));
    assert_eq!(to(full, 8080), (302, "http://a.shop:8080/all?q=1".into()));
}

#[test]
fn what_cannot_be_understood_is_refused_with_its_field() {
    let redirect = |change: &dyn Fn(&mut message::HttpRedirect)| {
        let mut redirect = message::HttpRedirect::default();
        change(&mut redirect);
        one(Kind::Redirect(redirect)).expect_err("not understood").0
    };
    assert_eq!(redirect(&|of| of.status = 200), "filters[0].redirect.status");
    assert_eq!(
        redirect(&|of| of.scheme = "ftp".into()),
        "filters[0].redirect.scheme"
    );
    assert_eq!(redirect(&|of| of.host = "a/b".into()), "filters[0].redirect.host");
    assert_eq!(
        redirect(&|of| of.path = path(Change::Full("x".into()))),
        "filters[0].redirect.path.full"
    );
    let mirror = message::HttpMirror {
        backend: None,
        ..message::HttpMirror::default()
    };
    assert_eq!(
        one(Kind::Mirror(mirror)).expect_err("no backend").0,
        "filters[0].mirror.backend"
    );
    let nothing = compile(&[message::HttpRouteFilter { kind: None }], "filters");
    assert_eq!(nothing.expect_err("unknown").0, "filters[0]");
}
