use super::probe::{Outcome, Probe};
use super::{Layer, of_probe};
use crate::demo::access::parse;

fn line(rest: &str) -> crate::demo::access::Line {
    parse(&format!(
        "now  WARN access: connection complete src.addr=10.0.0.1:5 {rest}"
    ))
    .unwrap()
}

fn probe(outcome: Outcome, outbound: Option<&str>, inbound: Option<&str>) -> Probe {
    Probe {
        outcome,
        outbound: outbound.map(line),
        inbound: inbound.map(line),
    }
}

#[test]
fn the_servers_plane_is_believed_first() {
    let outbound = "layer=\"node\" response_flags=\"CONNECT\" reason=\"refused with 401\"";
    let inbound = "layer=\"policy\" response_flags=\"DENY\" reason=\"policy shop/deny\"";
    let (layer, reason) = of_probe(&probe(Outcome::Closed, Some(outbound), Some(inbound))).unwrap();
    assert_eq!((layer, reason.as_str()), (Layer::Policy, "policy shop/deny"));
}

#[test]
fn each_layer_is_told_from_the_others() {
    for (said, layer) in [
        (
            "layer=\"redirection\" response_flags=\"CONNECT\" reason=\"loop\"",
            Layer::Redirection,
        ),
        (
            "layer=\"node\" response_flags=\"IDENTITY_ERROR\" reason=\"expired\"",
            Layer::Certificate,
        ),
        (
            "layer=\"sidecar\" response_flags=\"TLS_FAILURE\" reason=\"expired\"",
            Layer::Certificate,
        ),
        (
            "layer=\"node\" response_flags=\"CONNECT\" reason=\"no socket\"",
            Layer::Plane,
        ),
        (
            "layer=\"application\" response_flags=\"CONNECT\" reason=\"service x has no healthy endpoint\"",
            Layer::Endpoint,
        ),
        (
            "layer=\"application\" response_flags=\"CONNECT\" reason=\"refused\"",
            Layer::Application,
        ),
    ] {
        assert_eq!(
            of_probe(&probe(Outcome::Closed, Some(said), None)).unwrap().0,
            layer,
            "{said}"
        );
    }
}

#[test]
fn without_planes_the_client_says_what_it_saw() {
    assert_eq!(
        of_probe(&probe(Outcome::Refused("refused".into()), None, None))
            .unwrap()
            .0,
        Layer::Application
    );
    assert_eq!(
        of_probe(&probe(Outcome::Silent, None, None)).unwrap().0,
        Layer::Endpoint
    );
    assert!(of_probe(&probe(Outcome::Open, None, None)).is_none());
}
