mod reference;
mod spellings;

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use trefoil_api::proto::trefoil::v1 as message;

use super::*;
use crate::spelling::{respell, respelling};

fn exact(path: &str) -> message::HttpPathMatch {
    message::HttpPathMatch {
        kind: Some(message::http_path_match::Kind::Exact(path.into())),
    }
}

fn prefix(path: &str) -> message::HttpPathMatch {
    message::HttpPathMatch {
        kind: Some(message::http_path_match::Kind::Prefix(path.into())),
    }
}

fn regular(pattern: &str) -> message::HttpPathMatch {
    message::HttpPathMatch {
        kind: Some(message::http_path_match::Kind::RegularExpression(pattern.into())),
    }
}

fn value(name: &str, value: &str) -> message::HttpValueMatch {
    message::HttpValueMatch {
        name: name.into(),
        kind: Some(message::http_value_match::Kind::Exact(value.into())),
    }
}

fn of_path(path: message::HttpPathMatch) -> message::HttpRouteMatch {
    message::HttpRouteMatch {
        path: Some(path),
        ..message::HttpRouteMatch::default()
    }
}

fn rule(name: &str, matches: &[message::HttpRouteMatch]) -> message::HttpRouteRule {
    message::HttpRouteRule {
        name: name.into(),
        matches: matches.to_vec(),
        ..message::HttpRouteRule::default()
    }
}

const SERVICE: &str = "shop/cart.shop.svc.cluster.local";

fn route(name: &str, rules: &[message::HttpRouteRule]) -> message::HttpRoute {
    message::HttpRoute {
        kind: "HTTPRoute".into(),
        namespace: "shop".into(),
        name: name.into(),
        parents: vec![message::RouteParent {
            service: SERVICE.into(),
            port: 0,
        }],
        rules: rules.to_vec(),
        ..message::HttpRoute::default()
    }
}

/// The name of the rule that a request finds, or why it finds none.
fn found(routes: &[message::HttpRoute], port: u16, head: &RequestHead<'_>) -> String {
    let table = Routes::default();
    for route in routes {
        table.insert(compile(route).expect("understood"));
    }
    let Some(of) = table.of(SERVICE) else {
        return "no routes".into();
    };
    match of.find(port, head) {
        Found::Rule(rule, _) => rule.name.rsplit('/').next().unwrap_or_default().into(),
        Found::NoMatch => "no match".into(),
        Found::NoRoutes => "no routes".into(),
    }
}

fn asked<'a>(host: &'a str, path: &'a str, headers: &'a HeaderMap) -> RequestHead<'a> {
    RequestHead {
        host,
        path,
        query: None,
        method: "GET",
        headers,
    }
}

#[test]
fn the_more_specific_rule_wins() {
    let rules = [
        rule("everything", &[]),
        rule("api", &[of_path(prefix("/api/"))]),
        rule("api-v1", &[of_path(prefix("/api/v1"))]),
        rule("one", &[of_path(exact("/api/v1/one"))]),
        rule("number", &[of_path(regular("/api/v1/[0-9]+"))]),
    ];
    let headers = HeaderMap::new();
    for (path, expected) in [
        ("/", "everything"),
        ("/apis", "everything"),
        ("/api", "api"),
        ("/api/", "api"),
        ("/api/v1", "api-v1"),
        ("/api/v1x", "api"),
        ("/api/v1/one", "one"),
        ("/api/v1/one/", "api-v1"),
        ("/api/v1/12", "number"),
        ("/api/v1/12x", "api-v1"),
    ] {
        let name = found(&[route("r", &rules)], 80, &asked("a", path, &headers));
        assert_eq!(name, expected, "{path}");
    }
}

#[test]
fn the_older_route_wins_then_the_name() {
    let headers = HeaderMap::new();
    let head = asked("a", "/", &headers);
    let made = |name: &str, created| {
        let mut made = route(name, &[rule(name, &[])]);
        made.created = created;
        made
    };
    assert_eq!(found(&[made("a", 2), made("b", 1)], 80, &head), "b");
    assert_eq!(found(&[made("b", 1), made("a", 1)], 80, &head), "a");
}

#[test]
fn a_route_of_one_port_is_not_for_another() {
    let headers = HeaderMap::new();
    let head = asked("a", "/x", &headers);
    let mut of_port = route("r", &[rule("named", &[of_path(exact("/y"))])]);
    of_port.parents[0].port = 80;
    assert_eq!(found(std::slice::from_ref(&of_port), 81, &head), "no routes");
    assert_eq!(found(&[of_port], 80, &head), "no match");
}

#[test]
fn a_removed_route_is_gone_and_a_changed_one_has_moved() {
    let table = Routes::default();
    let mut one = route("r", &[rule("a", &[])]);
    table.insert(compile(&one).unwrap());
    one.parents[0].service = "shop/other".into();
    table.insert(compile(&one).unwrap());
    assert!(table.of(SERVICE).is_none());
    assert!(table.of("shop/other").is_some());
    table.remove("HTTPRoute/shop/r");
    assert!(table.of("shop/other").is_none());
}

#[test]
fn what_cannot_be_understood_refuses_the_route_and_names_the_field() {
    let refused = |change: &dyn Fn(&mut message::HttpRoute)| {
        let mut changed = route("r", &[rule("a", &[of_path(prefix("/a"))])]);
        change(&mut changed);
        compile(&changed).expect_err("not understood").field
    };
    let path = |path| move |route: &mut message::HttpRoute| route.rules[0].matches[0].path = Some(path);
    assert_eq!(refused(&|route| route.kind = "TCPRoute".into()), "kind");
    assert_eq!(
        refused(&|route| route.hostnames = vec!["a*".into()]),
        "hostnames[0]"
    );
    assert_eq!(
        refused(&|route| route.parents[0].port = 70_000),
        "parents[0].port"
    );
    let at = |name: &str| format!("rules[0].matches[0].path.{name}");
    let broken = regular("(");
    assert_eq!(
        refused(&|route| path(broken.clone())(route)),
        at("regular_expression")
    );
    // Out of the group that is put around it.
    let escaping = regular("a)|(b");
    assert_eq!(
        refused(&|route| path(escaping.clone())(route)),
        at("regular_expression")
    );
    let large = regular("(a{1000}){1000}");
    assert_eq!(
        refused(&|route| path(large.clone())(route)),
        at("regular_expression")
    );
    let above = exact("/a/../..");
    assert_eq!(refused(&|route| path(above.clone())(route)), at("exact"));
    let empty = message::HttpPathMatch { kind: None };
    assert_eq!(
        refused(&|route| path(empty.clone())(route)),
        "rules[0].matches[0].path"
    );
    let code = |route: &mut message::HttpRoute| {
        route.rules[0].retry = Some(message::HttpRetry {
            codes: vec![503, 200],
            ..message::HttpRetry::default()
        });
    };
    assert_eq!(refused(&code), "rules[0].retry.codes[1]");
}

#[test]
fn shares_are_as_weighted() {
    let mut one = rule("a", &[]);
    let backend = |service: &str, weight| message::HttpRouteBackend {
        service: service.into(),
        port: 80,
        weight,
        filters: Vec::new(),
    };
    one.backends = vec![backend("a", 3), backend("b", 0), backend("", 1)];
    let compiled = compile(&route("r", &[one])).unwrap();
    let rule = &compiled.rules[0].1;
    let shares: Vec<_> = (0..rule.weight())
        .map(|at| rule.backend(at).unwrap().service.as_deref())
        .collect();
    assert_eq!(shares, [Some("a"), Some("a"), Some("a"), None]);
    assert!(rule.backend(4).is_none());
}

fn any_path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "a%20b", "12"]), 0..4)
        .prop_flat_map(|segments| any::<bool>().prop_map(move |slash| (segments.clone(), slash)))
        .prop_map(|(segments, slash)| {
            let path = format!("/{}", segments.join("/"));
            if slash && path.len() > 1 { path + "/" } else { path }
        })
}

fn any_values(names: &'static [&'static str]) -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let one = (prop::sample::select(names), prop::sample::select(vec!["1", "2"]));
    prop::collection::vec(one, 0..3)
}

const HEADERS: &[&str] = &["x-a", "x-b"];
const QUERY: &[&str] = &["p", "q"];

fn any_match() -> impl Strategy<Value = message::HttpRouteMatch> {
    let path = prop_oneof![
        any_path().prop_map(|path| Some(exact(&path))),
        any_path().prop_map(|path| Some(prefix(&path))),
        prop::sample::select(vec!["/a.*", "/(a|b)/?", "/[0-9]+"]).prop_map(|path| Some(regular(path))),
        Just(None),
    ];
    let method = prop::sample::select(vec!["", "GET", "POST"]);
    (path, method, any_values(HEADERS), any_values(QUERY)).prop_map(|(path, method, headers, query)| {
        let values = |from: Vec<(&str, &str)>| from.into_iter().map(|(name, of)| value(name, of)).collect();
        message::HttpRouteMatch {
            path,
            headers: values(headers),
            query: values(query),
            method: method.into(),
        }
    })
}

fn any_routes() -> impl Strategy<Value = Vec<message::HttpRoute>> {
    let hosts = prop::collection::vec(
        prop::sample::select(vec!["a.shop", "b.shop", "*.shop", "*.a.shop"]),
        0..3,
    );
    let rules = prop::collection::vec(prop::collection::vec(any_match(), 0..3), 1..4);
    let one = (hosts, rules, 0..3_i64, prop::sample::select(vec![0_u32, 80, 81]));
    prop::collection::vec(one, 1..4).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        numbered
            .map(|(number, (hosts, rules, created, port))| {
                let named = rules.iter().enumerate();
                let rules: Vec<_> = named
                    .map(|(at, matches)| rule(&format!("{number}-{at}"), matches))
                    .collect();
                let mut made = route(&format!("r{number}"), &rules);
                made.hostnames = hosts.into_iter().map(str::to_owned).collect();
                made.created = created;
                made.parents[0].port = port;
                made
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_table_finds_what_the_specification_says(
        routes in any_routes(),
        host in prop::sample::select(vec!["a.shop", "b.shop", "c.a.shop", "shop"]),
        path in any_path(),
        method in prop::sample::select(vec!["GET", "POST"]),
        fields in any_values(HEADERS),
        pairs in any_values(QUERY),
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in &fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let query: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let query = query.join("&");
        let head = RequestHead { host, path: &path, query: Some(&query), method, headers: &headers };
        let expected = reference::found(&routes, SERVICE, 80, &head, &pairs);
        prop_assert_eq!(found(&routes, 80, &head), expected);
    }
}

#[test]
fn routes_of_clients_are_theirs_alone() {
    let table = Routes::default();
    let own = route("own", &[rule("own", &[])]);
    let mut theirs = route("theirs", &[rule("theirs", &[])]);
    theirs.namespace = "books".into();
    theirs.parents[0].port = 80;
    for one in [&own, &theirs] {
        table.insert(compile(one).expect("understood"));
    }
    let head = RequestHead {
        host: "cart",
        path: "/",
        query: None,
        method: "GET",
        headers: &HeaderMap::new(),
    };
    let of = |routes: Option<Arc<ServiceRoutes>>| match routes?.find(80, &head) {
        Found::Rule(rule, _) => Some(rule.name.clone()),
        Found::NoMatch | Found::NoRoutes => None,
    };
    assert_eq!(of(table.of(SERVICE)).as_deref(), Some("HTTPRoute/shop/own/own"));
    let clients = || table.of_clients(SERVICE, "books");
    assert_eq!(of(clients()).as_deref(), Some("HTTPRoute/books/theirs/theirs"));
    assert!(table.of_clients(SERVICE, "shop").is_none());
    assert!(clients().is_some_and(|routes| routes.are_for(80) && !routes.are_for(81)));
    table.remove("HTTPRoute/books/theirs");
    assert!(clients().is_none());
    assert!(table.of(SERVICE).is_some());
}
