use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::type_url::{ADDRESS, AUTHORIZATION, MESH_SETTINGS};

use super::Resources;

fn response(url: &str, resources: &[(&str, &str)], removed: &[&str]) -> DeltaDiscoveryResponse {
    let resource = |(name, version): &(&str, &str)| Resource {
        name: (*name).into(),
        version: (*version).into(),
        ..Default::default()
    };
    DeltaDiscoveryResponse {
        type_url: url.into(),
        resources: resources.iter().map(resource).collect(),
        removed_resources: removed.iter().map(ToString::to_string).collect(),
        ..Default::default()
    }
}

fn told(response: &DeltaDiscoveryResponse) -> Vec<String> {
    let resources = response.resources.iter();
    let present = resources.map(|resource| format!("{}@{}", resource.name, resource.version));
    let absent = response.removed_resources.iter().map(|name| format!("-{name}"));
    present.chain(absent).collect()
}

#[test]
fn a_new_follower_is_told_everything_policies_first() {
    let resources = Resources::default();
    resources.accept(&response(ADDRESS, &[("w", "1")], &[]));
    resources.accept(&response(AUTHORIZATION, &[("p", "1")], &[]));
    let pending = resources.follow();
    let first = resources.next(&pending).unwrap();
    assert_eq!(
        (first.type_url.as_str(), told(&first)),
        (AUTHORIZATION, vec!["p@1".into()])
    );
    let second = resources.next(&pending).unwrap();
    assert_eq!(
        (second.type_url.as_str(), told(&second)),
        (ADDRESS, vec!["w@1".into()])
    );
    assert!(resources.next(&pending).is_none());
}

#[test]
fn a_slow_follower_is_told_the_end_not_the_story() {
    let resources = Resources::default();
    let pending = resources.follow();
    for version in ["1", "2", "3"] {
        resources.accept(&response(ADDRESS, &[("w", version), ("gone", version)], &[]));
    }
    resources.accept(&response(ADDRESS, &[], &["gone"]));
    let all = resources.next(&pending).unwrap();
    assert_eq!(told(&all), ["w@3", "-gone"]);
    assert!(resources.next(&pending).is_none());
}

#[test]
fn an_empty_answer_is_passed_on_once() {
    let resources = Resources::default();
    let pending = resources.follow();
    resources.accept(&response(AUTHORIZATION, &[], &[]));
    resources.accept(&response(AUTHORIZATION, &[], &[]));
    assert!(told(&resources.next(&pending).unwrap()).is_empty());
    assert!(resources.next(&pending).is_none());
    assert!(!resources.complete());
    resources.accept(&response(ADDRESS, &[], &[]));
    assert!(resources.complete());
}

#[test]
fn settings_are_told_before_workloads_and_nobody_waits_for_them() {
    let resources = Resources::default();
    resources.accept(&response(MESH_SETTINGS, &[("mesh", "1")], &[]));
    assert!(!resources.complete(), "they are not enough");
    resources.accept(&response(ADDRESS, &[("w", "1")], &[]));
    resources.accept(&response(AUTHORIZATION, &[], &[]));
    assert!(resources.complete());
    let pending = resources.follow();
    let order: Vec<String> = std::iter::from_fn(|| resources.next(&pending))
        .map(|response| response.type_url)
        .collect();
    assert_eq!(order, [AUTHORIZATION, MESH_SETTINGS, ADDRESS]);
    resources.accept(&response(MESH_SETTINGS, &[("mesh", "2")], &[]));
    assert_eq!(told(&resources.next(&pending).unwrap()), ["mesh@2"]);

    let without = Resources::default();
    without.accept(&response(ADDRESS, &[], &[]));
    without.accept(&response(AUTHORIZATION, &[], &[]));
    assert!(without.complete());
}

#[test]
fn a_policy_goes_after_the_workloads_that_named_it() {
    let resources = Resources::default();
    resources.accept(&response(AUTHORIZATION, &[("old", "1"), ("back", "1")], &[]));
    resources.accept(&response(ADDRESS, &[("w", "names old")], &[]));
    let pending = resources.follow();
    while resources.next(&pending).is_some() {}

    resources.accept(&response(AUTHORIZATION, &[], &["back"]));
    resources.accept(&response(ADDRESS, &[("w", "names new")], &[]));
    resources.accept(&response(AUTHORIZATION, &[("new", "1"), ("back", "2")], &["old"]));
    let mut story = Vec::new();
    while let Some(next) = resources.next(&pending) {
        story.push((next.type_url.clone(), told(&next)));
    }
    let expected = [
        (AUTHORIZATION, vec!["back@2", "new@1"]),
        (ADDRESS, vec!["w@names new"]),
        (AUTHORIZATION, vec!["-old"]),
    ];
    let expected = expected.map(|(url, told)| {
        let told: Vec<String> = told.into_iter().map(String::from).collect();
        (url.to_string(), told)
    });
    assert_eq!(story, expected);
}
