use super::*;

fn parsed(text: &str) -> (Meant, String, Option<u16>) {
    let name = Name::parse(text, "shop").expect(text);
    (name.meant, format!("{}/{}", name.namespace, name.name), name.port)
}

#[test]
fn a_name_may_say_what_it_is_of() {
    assert_eq!(parsed("web/cart"), (Meant::Either, "web/cart".into(), None));
    assert_eq!(
        parsed("web/cart:80"),
        (Meant::Either, "web/cart".into(), Some(80))
    );
    assert_eq!(
        parsed("svc/cart:80"),
        (Meant::Service, "shop/cart".into(), Some(80))
    );
    assert_eq!(parsed("pod/web/cart"), (Meant::Pod, "web/cart".into(), None));
    for wrong in [
        "cart",
        "a/b/c/d",
        "node/web/cart",
        "web/",
        "web/cart:http",
        "web/cart:99999",
    ] {
        assert!(Name::parse(wrong, "shop").is_err(), "{wrong}");
    }
}

fn service() -> Service {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {
            "clusterIP": "10.96.0.1",
            "ports": [{"port": 80, "targetPort": "web"}, {"port": 6379}],
        },
    }))
    .expect("a service")
}

fn pod(name: &str, ready: &str) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name},
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "main", "ports": [{"name": "web", "containerPort": 8080}]}],
        },
        "status": {
            "phase": "Running", "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }))
    .expect("a pod")
}

#[test]
fn a_service_leads_to_the_ports_of_the_pods_that_are_ready() {
    let pods = [pod("a", "False"), pod("b", "True")];
    let target = Target::of_service(&service(), &pods, None).expect("a target");
    assert_eq!(target.address, "10.96.0.1:80".parse().ok());
    assert_eq!(target.selected, Some(2));
    let behind: Vec<(&str, String)> = target
        .behind
        .iter()
        .map(|(end, address)| (end.name.as_str(), address.to_string()))
        .collect();
    assert_eq!(behind, [("shop/b", "10.0.0.1:8080".to_owned())]);
    let target = Target::of_service(&service(), &pods, Some(6379)).expect("a target");
    assert_eq!(target.behind[0].1.port(), 6379);
    let refused = Target::of_service(&service(), &pods, Some(81)).expect_err("a port that it has not");
    assert!(refused.to_string().contains("80, 6379"), "{refused}");
}
