use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use serde_json::{Value, json};

use super::parameters::Parameters;
use super::{Owner, Settings, owner, wanted};
use trefoil_control_plane_index::{Deployable, ObjectKey};

fn waypoint(replicas: Option<u32>) -> Deployable {
    Deployable {
        key: ObjectKey::new("shop", "waypoint"),
        uid: "1234".into(),
        replicas,
        parameters: None,
        classed: true,
    }
}

fn settings(pull_policy: Option<&str>) -> Settings {
    Settings {
        image: "registry/waypoint:1".into(),
        pull_policy: pull_policy.map(Into::into),
    }
}

fn objects(replicas: Option<u32>, parameters: &Parameters, pull_policy: Option<&str>) -> Vec<Value> {
    let settings = settings(pull_policy);
    let all = wanted(&waypoint(replicas), parameters, &settings, "cluster.local");
    all.into_iter().map(|one| one.object).collect()
}

fn said(data: &[(&str, &str)]) -> Parameters {
    let map = serde_json::from_value(json!({ "data": data.iter().copied().collect::<BTreeMap<_, _>>() }));
    Parameters::read(&map.unwrap(), None).unwrap()
}

#[test]
fn an_autoscaler_is_the_gateways_and_the_only_one_to_say_how_many_pods_there_are() {
    let scaled = objects(
        None,
        &said(&[("autoscaling-min", "2"), ("autoscaling-max", "5")]),
        None,
    );
    let [account, _, deployment, _, autoscaler] = scaled.as_slice() else {
        panic!("{} objects", scaled.len());
    };
    assert_eq!(deployment["spec"].get("replicas"), None);
    assert_eq!(autoscaler["kind"], "HorizontalPodAutoscaler");
    assert_eq!(autoscaler["apiVersion"], "autoscaling/v2");
    assert_eq!(autoscaler["metadata"], account["metadata"]);
    let target = &autoscaler["spec"]["scaleTargetRef"];
    assert_eq!([&target["kind"], &target["name"]], ["Deployment", "waypoint"]);
    let bounds = ["minReplicas", "maxReplicas"].map(|bound| autoscaler["spec"][bound].clone());
    assert_eq!(bounds, [2, 5]);
}

#[test]
fn parameters_are_taken_and_the_gateways_own_word_on_replicas_goes_first() {
    let parameters = said(&[("replicas", "3"), ("memory-limit", "1Gi"), ("log-level", "debug")]);
    let spec = |replicas| objects(replicas, &parameters, None)[2]["spec"].clone();
    assert_eq!([&spec(None)["replicas"], &spec(Some(4))["replicas"]], [3, 4]);
    let container = spec(None)["template"]["spec"]["containers"][0].clone();
    assert_eq!(container["resources"]["limits"], json!({"memory": "1Gi"}));
    let arguments = container["args"].as_array().unwrap();
    assert!(arguments.contains(&json!("--log-level=debug")), "{arguments:?}");
}

#[test]
fn what_a_waypoint_consists_of() {
    let objects: Vec<_> = objects(None, &Parameters::default(), None);
    insta::assert_yaml_snapshot!(objects);
}

#[test]
fn replicas_are_said_only_where_the_gateway_says_them() {
    let spec = |replicas| objects(replicas, &Parameters::default(), None)[2]["spec"].clone();
    assert_eq!(spec(None).get("replicas"), None);
    assert_eq!(spec(Some(0))["replicas"], json!(0));
    assert_eq!(spec(Some(3))["replicas"], json!(3));
}

#[test]
fn the_image_is_pulled_as_the_operator_says() {
    let policy = |said| {
        objects(None, &Parameters::default(), said)[2]["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"].clone()
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
