use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Command, PluginError, Request, serve};

const ENVIRONMENT: [(&str, &str); 4] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "c1"),
    ("CNI_NETNS", "/run/netns/x"),
    (
        "CNI_ARGS",
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u-1",
    ),
];

fn environment(name: &str) -> Option<String> {
    let found = ENVIRONMENT.iter().find(|(key, _)| *key == name);
    found.map(|(_, value)| (*value).to_string())
}

fn configuration(more: &Value) -> Vec<u8> {
    let folder = "/nonexistent/trefoil";
    let mut whole = json!({
        "cniVersion": "1.1.0", "name": "n", "type": "trefoil-cni", "runDir": folder, "stateDir": folder,
        "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.0.0.5/24"}], "vendor": {"kept": true}},
    });
    for (key, value) in more.as_object().unwrap() {
        whole[key] = value.clone();
    }
    whole.to_string().into_bytes()
}

#[test]
fn a_call_is_read_with_what_kubernetes_adds() {
    let request = Request::parse(environment, &configuration(&json!({}))).unwrap();
    assert_eq!(request.command, Command::Add);
    assert_eq!(request.arguments.pod.as_deref(), Some("web"));
    assert_eq!(request.arguments.uid.as_deref(), Some("u-1"));
}

#[tokio::test]
async fn without_an_agent_excluded_pods_pass_unchanged_and_others_wait() {
    let excluded = configuration(&json!({"excludeNamespaces": ["shop"]}));
    let request = Request::parse(environment, &excluded).unwrap();
    let result = serve(&request).await.unwrap();
    assert_eq!(&result, request.previous_result().unwrap());
    assert_eq!(result["vendor"]["kept"], true);

    let request = Request::parse(environment, &configuration(&json!({}))).unwrap();
    let error = serve(&request).await.unwrap_err();
    assert_eq!(error.code(), 11);
}

#[tokio::test]
async fn a_plugin_that_is_not_chained_says_so() {
    let alone = configuration(&json!({"prevResult": null}));
    let request = Request::parse(environment, &alone).unwrap();
    assert_eq!(serve(&request).await.unwrap_err().code(), 7);
}

#[test]
fn what_is_missing_or_unknown_has_its_code() {
    let without =
        |absent: &'static str| move |name: &'static str| environment(name).filter(|_| name != absent);
    let input = configuration(&json!({}));
    for name in ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS"] {
        let error = Request::parse(without(name), &input).unwrap_err();
        assert_eq!(error, PluginError::Environment(name));
    }
    assert_eq!(Request::parse(environment, b"{").unwrap_err().code(), 6);
    let future = configuration(&json!({"cniVersion": "2.0.0"}));
    assert_eq!(Request::parse(environment, &future).unwrap_err().code(), 1);
}

proptest! {
    #[test]
    fn standard_input_and_arguments_never_panic(input in any::<Vec<u8>>(), arguments in ".{0,80}", command in "ADD|DEL|GC|X") {
        let foreign = |name: &'static str| match name {
            "CNI_COMMAND" => Some(command.clone()),
            "CNI_ARGS" => Some(arguments.clone()),
            _ => Some("x".into()),
        };
        let _ = Request::parse(foreign, &input);
        let _ = Request::parse(foreign, &configuration(&json!({"cni.dev/valid-attachments": [{"containerID": arguments}]})));
    }
}
