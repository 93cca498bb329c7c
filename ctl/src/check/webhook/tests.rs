use k8s_openapi::api::core::v1::Namespace;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use super::{judged, missing, namespace, pod, strange_bundle};

#[test]
fn a_refusal_of_the_dry_run_is_ours_only_if_it_names_our_webhook() {
    for (message, expected) in [
        (
            "Internal error occurred: failed calling webhook \"inject.trefoil.dev\": failed to call webhook: Post \"https://x\": context deadline exceeded",
            Some("does not reach"),
        ),
        (
            "admission webhook \"inject.trefoil.dev\" denied the request: not now; try again",
            Some("refuses every pod"),
        ),
        (
            "Internal error occurred: failed calling webhook \"policy.example.com\": no endpoints",
            None,
        ),
        (
            "pods is forbidden: User \"x\" cannot create resource \"pods\" in API group \"\" in the namespace \"shop\"",
            None,
        ),
        ("pods \"x\" is forbidden: exceeded quota: none", None),
    ] {
        match (judged("shop", message), expected) {
            (Ok((finding, _)), Some(text)) => assert!(finding.contains(text), "{finding}"),
            (Err(unseen), None) => assert!(unseen.contains(message), "{unseen}"),
            (other, _) => panic!("{message}: {other:?}"),
        }
    }
}

#[test]
fn a_bundle_must_hold_a_root_that_is_handed_out() {
    let root = || {
        let params = CertificateParams::default();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    };
    let (ours, other) = (root(), root());
    assert!(strange_bundle("w", ours.as_bytes(), Some(&ours)).is_none());
    assert!(strange_bundle("w", format!("{other}{ours}").as_bytes(), Some(&ours)).is_none());
    assert!(strange_bundle("w", other.as_bytes(), Some(&ours)).is_some());
    assert!(strange_bundle("w", b"", Some(&ours)).is_some());
    assert!(
        strange_bundle("w", b"", None).is_none(),
        "what cannot be seen is not judged"
    );
}

fn namespaces(all: &[(&str, &str)]) -> Vec<Namespace> {
    let one = |(name, mode): &(&str, &str)| {
        let labels = json!({ "trefoil.dev/dataplane-mode": mode });
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap()
    };
    all.iter().map(one).collect()
}

#[test]
fn a_namespace_with_sidecars_is_tried_first() {
    for (all, expected) in [
        (
            &[("default", "none"), ("a", "ambient"), ("s", "sidecar")][..],
            Some("s"),
        ),
        (&[("default", "none"), ("a", "ambient")][..], Some("a")),
        (&[("x", "none"), ("default", "none")][..], Some("default")),
        (&[("x", "none")][..], None),
    ] {
        let all = namespaces(all);
        assert_eq!(
            namespace(&all).and_then(|one| one.metadata.name.as_deref()),
            expected
        );
    }
    assert_eq!(
        missing(&namespaces(&[("s", "sidecar"), ("a", "ambient")])).len(),
        1
    );
}

#[test]
fn the_pod_of_the_dry_run_is_one() {
    assert_eq!(pod().spec.unwrap().containers.len(), 1);
}
