use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use serde_json::json;

use super::{Owner, Settings, owner, wanted};
use trefoil_control_plane_index::{Deployable, ObjectKey};

fn waypoint(replicas: Option<u32>) -> Deployable {
    Deployable {
        key: ObjectKey::new("shop", "waypoint"),
        uid: "1234".into(),
        replicas,
        classed: true,
    }
}

fn settings(pull_policy: Option<&str>) -> Settings {
    Settings {
        image: "registry/waypoint:1".into(),
        pull_policy: pull_policy.map(Into::into),
    }
}

#[test]
fn what_a_waypoint_consists_of() {
    let objects = wanted(&waypoint(None), &settings(None), "cluster.local").map(|one| one.object);
    insta::assert_yaml_snapshot!(objects);
}

#[test]
fn replicas_are_said_only_where_the_gateway_says_them() {
    let spec =
        |replicas| wanted(&waypoint(replicas), &settings(None), "cluster.local")[2].object["spec"].clone();
    assert_eq!(spec(None).get("replicas"), None);
    assert_eq!(spec(Some(0))["replicas"], json!(0));
    assert_eq!(spec(Some(3))["replicas"], json!(3));
}

#[test]
fn the_image_is_pulled_as_the_operator_says() {
    let policy = |said| {
        let [_, _, deployment, _] = wanted(&waypoint(None), &settings(said), "cluster.local");
        deployment.object["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"].clone()
    };
    assert_eq!(policy(None), json!(null));
    assert_eq!(policy(Some("Never")), json!("Never"));
}

#[test]
fn an_object_is_ours_by_the_label_that_nobody_else_may_write_and_by_its_owner() {
    let object = |label: Option<&str>, owner: Option<(&str, &str, bool)>| ObjectMeta {
        labels: label.map(|value| [("trefoil.dev/managed-by".to_owned(), value.to_owned())].into()),
        owner_references: owner.map(|(kind, uid, controller)| {
            vec![OwnerReference {
                kind: kind.into(),
                uid: uid.into(),
                controller: Some(controller),
                ..OwnerReference::default()
            }]
        }),
        ..ObjectMeta::default()
    };
    let made = Some("gateway-controller");
    for (object, whose) in [
        (object(made, Some(("Gateway", "1234", true))), Owner::Ours),
        (object(made, Some(("Gateway", "1", true))), Owner::Earlier),
        (object(made, None), Owner::Foreign),
        (object(made, Some(("Deployment", "1234", true))), Owner::Foreign),
        (object(made, Some(("Gateway", "1234", false))), Owner::Foreign),
        (object(None, Some(("Gateway", "1234", true))), Owner::Foreign),
        (
            object(Some("me"), Some(("Gateway", "1234", true))),
            Owner::Foreign,
        ),
        (object(None, None), Owner::Foreign),
    ] {
        assert_eq!(owner(&object, "1234"), whose, "{object:?}");
    }
}
