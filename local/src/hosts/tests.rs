use super::render;
use crate::services::{Endpoint, ServiceView};

fn service(headless: bool) -> ServiceView {
    ServiceView {
        namespace: "shop".into(),
        name: "cache".into(),
        addresses: if headless {
            Vec::new()
        } else {
            vec!["10.96.0.2".parse().unwrap()]
        },
        headless,
        endpoints: vec![Endpoint {
            address: "10.244.1.2".parse().unwrap(),
            node: "n1".into(),
            pod: "cache-0".into(),
            hostname: headless.then(|| "cache-0".into()),
            ready: true,
        }],
        ports: Vec::new(),
    }
}

#[test]
fn short_names_only_in_the_own_namespace() {
    let own = render("shop", "client", &["10.244.1.9".into()], &[service(false)]);
    assert!(
        own.contains("10.96.0.2 cache.shop.svc.cluster.local cache.shop.svc cache.shop cache\n"),
        "{own}"
    );
    assert!(own.contains("10.244.1.9 client\n"));
    let other = render("other", "client", &[], &[service(false)]);
    assert!(
        other.contains("10.96.0.2 cache.shop.svc.cluster.local cache.shop.svc cache.shop\n"),
        "{other}"
    );
}

#[test]
fn headless_services_name_their_pods() {
    let text = render("other", "client", &[], &[service(true)]);
    assert!(text.contains("10.244.1.2 cache.shop.svc.cluster.local"), "{text}");
    assert!(
        text.contains("10.244.1.2 cache-0.cache.shop.svc.cluster.local"),
        "{text}"
    );
}
