use super::*;

fn found(layer: Layer, well: bool) -> Finding {
    Finding {
        layer,
        of: "shop/cart".into(),
        well,
        detail: format!("{layer:?}"),
    }
}

fn probed(outcome: Outcome, fault: Option<(&str, &str, &str)>) -> Result<Probed, String> {
    Ok(Probed {
        outcome,
        fault: fault.map(|(layer, flag, reason)| Fault {
            layer: layer.into(),
            flag: flag.into(),
            reason: reason.into(),
        }),
        path: "mutual_tls".into(),
        address: "10.0.0.1:80".parse().ok(),
        workload: None,
    })
}

#[test]
fn the_first_layer_that_is_held_at_fault_is_the_one() {
    let findings = [
        found(Layer::Policy, false),
        found(Layer::Redirection, true),
        found(Layer::Plane, false),
    ];
    let verdict = judge(&findings, None);
    assert_eq!(verdict.layer, Some(Layer::Plane));
    assert_eq!(verdict.reason, "shop/cart: Plane");
}

#[test]
fn a_connection_that_contradicts_what_is_held_is_mentioned() {
    let findings = [found(Layer::Policy, false)];
    let verdict = judge(&findings, Some(&probed(Outcome::Open, None)));
    assert_eq!(verdict.layer, Some(Layer::Policy));
    assert!(verdict.reason.contains("got through"), "{}", verdict.reason);
}

#[test]
fn where_nothing_is_held_at_fault_the_connection_says_which_layer() {
    for (fault, layer) in [
        (("redirection", "CONNECT", "loop"), Layer::Redirection),
        (("node", "IDENTITY_ERROR", "expired"), Layer::Certificate),
        (("sidecar", "TLS_FAILURE", "expired"), Layer::Certificate),
        (("node", "CONNECT", "no socket"), Layer::Plane),
        (("policy", "DENY", "policy shop/deny"), Layer::Policy),
        (
            ("application", "CONNECT", "service x has no healthy endpoint"),
            Layer::Endpoint,
        ),
        (("application", "CONNECT", "refused"), Layer::Application),
        (
            (
                "application",
                "CONNECT",
                "the server's plane answered 503 Service Unavailable",
            ),
            Layer::Application,
        ),
    ] {
        let verdict = judge(
            &[found(Layer::Policy, true)],
            Some(&probed(Outcome::Failed, Some(fault))),
        );
        assert_eq!(verdict.layer, Some(layer), "{fault:?}");
    }
}

#[test]
fn all_is_well_only_after_a_connection_or_where_there_is_no_mesh() {
    let well = [found(Layer::Policy, true)];
    for (outcome, layer) in [
        (Outcome::Open, None),
        (Outcome::Answered, None),
        (Outcome::Closed, Some(Layer::Application)),
        (Outcome::Failed, Some(Layer::Plane)),
    ] {
        assert_eq!(judge(&well, Some(&probed(outcome, None))).layer, layer);
    }
    let silent = judge(&well, Some(&Err("too busy".into())));
    assert_eq!(silent.layer, Some(Layer::Plane));
    let unmeshed = judge(&well, None);
    assert!(
        unmeshed.reason.contains("nothing was tried"),
        "{}",
        unmeshed.reason
    );
}
