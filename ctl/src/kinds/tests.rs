use super::Kind;

#[test]
fn kinds_are_found_by_every_name_that_people_type() {
    for text in ["pods", "pod", "po", "Pod"] {
        assert_eq!(Kind::named(text).unwrap().name(), "Pod", "{text}");
    }
    for text in ["authorizationpolicy", "ap", "authorizationpolicies.trefoil.dev"] {
        assert_eq!(
            Kind::named(text).unwrap().api_version(),
            "trefoil.dev/v1alpha1",
            "{text}"
        );
    }
}

#[test]
fn an_unknown_kind_is_refused_with_what_there_is() {
    let error = Kind::named("deployments").unwrap_err().to_string();
    assert!(error.contains("pods"), "{error}");
}
