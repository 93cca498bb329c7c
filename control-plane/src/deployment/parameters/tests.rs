use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::{Autoscaling, Parameters};

fn read(data: &[(&str, &str)], replicas: Option<u32>) -> Result<Parameters, String> {
    let data = data.iter().map(|(key, value)| ((*key).into(), (*value).into()));
    let map = ConfigMap {
        data: Some(data.collect()),
        ..ConfigMap::default()
    };
    Parameters::read(&map, replicas).map_err(|refused| refused.to_string())
}

#[test]
fn what_is_said_is_taken() {
    assert_eq!(read(&[], None), Ok(Parameters::default()));
    let own = read(
        &[
            ("replicas", "3"),
            ("cpu-limit", "500m"),
            ("log-level", "debug"),
            ("concurrency", "4"),
        ],
        None,
    )
    .unwrap();
    assert_eq!((own.replicas, own.autoscaling), (Some(3), None));
    assert_eq!(
        own.container.arguments(),
        ["--log-level=debug", "--worker-threads=4"]
    );
    assert_eq!(
        own.container.resources("50m", "64Mi")["limits"],
        json!({"cpu": "500m"})
    );
    let scaled = |least, most, cpu| Some(Autoscaling { least, most, cpu });
    let of = |data: &[(&str, &str)]| read(data, None).unwrap().autoscaling;
    assert_eq!(of(&[("autoscaling-max", "5")]), scaled(1, 5, 80));
    let all = [
        ("autoscaling-min", "2"),
        ("autoscaling-max", "9"),
        ("autoscaling-cpu-percent", "60"),
    ];
    assert_eq!(of(&all), scaled(2, 9, 60));
}

#[test]
fn what_is_not_understood_refuses_the_whole_and_is_named() {
    for (data, replicas, part) in [
        (vec![("replica", "3")], None, "parameter replica is not known"),
        (vec![("Replicas", "3")], None, "parameter Replicas is not known"),
        (vec![("replicas", "-1")], None, "parameter replicas: \"-1\""),
        (vec![("replicas", "")], None, "parameter replicas: \"\""),
        (
            vec![("cpu-request", "much")],
            None,
            "parameter cpu-request: \"much\"",
        ),
        (vec![("log-level", "loud")], None, "parameter log-level: \"loud\""),
        (vec![("concurrency", "0")], None, "parameter concurrency: \"0\""),
        (
            vec![("autoscaling-max", "0")],
            None,
            "parameter autoscaling-max: \"0\"",
        ),
        (
            vec![("autoscaling-max", "1001")],
            None,
            "parameter autoscaling-max: \"1001\"",
        ),
        (vec![("autoscaling-min", "2")], None, "need autoscaling-max"),
        (
            vec![("autoscaling-cpu-percent", "2")],
            None,
            "need autoscaling-max",
        ),
        (
            vec![("autoscaling-min", "3"), ("autoscaling-max", "2")],
            None,
            "not below autoscaling-min",
        ),
        (
            vec![("autoscaling-max", "2"), ("replicas", "2")],
            None,
            "remove parameter replicas",
        ),
        (
            vec![("autoscaling-max", "2")],
            Some(2),
            "remove annotation trefoil.dev/replicas",
        ),
    ] {
        let refused = read(&data, replicas).unwrap_err();
        assert!(refused.contains(part), "{data:?}: {refused}");
    }
}

#[test]
fn bytes_are_no_parameters() {
    let map: ConfigMap = serde_json::from_value(json!({"binaryData": {"blob": ""}})).unwrap();
    assert!(Parameters::read(&map, None).is_err());
}
