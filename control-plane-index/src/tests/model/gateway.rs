//! Random Gateways, routes and grants.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::facts::{Allowed, Gateway, GatewayClass, Labels, Listener, ReferenceGrant, RouteObject};
use crate::{Change, Hindrance, ObjectKey, RouteKind};

/// Where waypoints may be.
pub(in crate::tests) const WAYPOINTS: [(&str, &str); 3] = [("shop", "w"), ("shop", "x"), ("other", "w")];

/// Labels that choose a waypoint, or say that something is one's own.
pub(super) fn choice() -> impl Strategy<Value = Labels> {
    let labels = |pairs: &[(&str, &str)]| -> Labels {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    prop::sample::select(vec![
        labels(&[("trefoil.dev/use-waypoint", "w")]),
        labels(&[("trefoil.dev/use-waypoint", "x")]),
        labels(&[("trefoil.dev/use-waypoint", "none")]),
        labels(&[
            ("trefoil.dev/use-waypoint", "w"),
            ("trefoil.dev/use-waypoint-namespace", "other"),
        ]),
        labels(&[("gateway.networking.k8s.io/gateway-name", "w")]),
    ])
}

fn gateway() -> impl Strategy<Value = Gateway> {
    let class = prop::sample::select(&["trefoil-waypoint", "trefoil-waypoint", "istio"][..]);
    let serves =
        prop::sample::select(&[None, Some("service"), Some("workload"), Some("all"), Some("odd")][..]);
    let allowed = prop::sample::select(vec![Allowed::Same, Allowed::All]);
    let status = prop::sample::select(vec![
        Value::Null,
        json!({"conditions": [{"type": "Programmed", "status": "True"}]}),
    ]);
    (class, serves, allowed, prop::bool::weighted(0.9), status).prop_map(
        |(class, serves, allowed, listens, status)| Gateway {
            class: class.into(),
            serves: serves.map(Into::into),
            listeners: vec![Listener {
                name: "mesh".into(),
                port: 15008,
                protocol: if listens { "HBONE" } else { "HTTP" }.into(),
                allowed,
            }],
            generation: 1,
            status,
            ..Gateway::default()
        },
    )
}

fn route(kind: RouteKind) -> impl Strategy<Value = RouteObject> {
    let parent = |name: &str| json!({"group": "", "kind": "Service", "name": name});
    let elsewhere = json!({"group": "", "kind": "Service", "name": "web", "namespace": "other", "port": 80});
    let backend = |name: &str| json!({"name": name, "port": 80});
    let foreign = json!({"name": "api", "namespace": "other", "port": 80, "weight": 3});
    let specs = vec![
        json!({"parentRefs": [parent("web")], "rules": [{"backendRefs": [backend("api")]}]}),
        json!({"parentRefs": [parent("web"), elsewhere], "rules": [{"backendRefs": [foreign]}]}),
        json!({"parentRefs": [parent("api")], "rules": [{"backendRefs": [{"name": "api", "port": 81}]}]}),
        json!({"parentRefs": [parent("api")], "rules": [{"misspelt": 1}]}),
        json!({"parentRefs": [{"name": "w"}]}),
        match kind {
            RouteKind::Http => {
                json!({"parentRefs": [parent("web")], "rules": [{"matches": [{"path": {"value": "/a"}}]}]})
            }
            RouteKind::Grpc => {
                json!({"parentRefs": [parent("web")], "rules": [{"matches": [{"method": {"service": "a.B"}}]}]})
            }
        },
    ];
    (prop::sample::select(specs), 0i64..3).prop_map(|(spec, created)| RouteObject {
        object: json!({"spec": spec}),
        generation: 1,
        created,
        status: Value::Null,
    })
}

fn grant() -> impl Strategy<Value = ReferenceGrant> {
    let from = prop::sample::select(&["shop", "trefoil-system"][..]);
    let name = prop::sample::select(&[None, Some("api"), Some("db")][..]);
    (from, name).prop_map(|(namespace, name)| ReferenceGrant {
        from: vec![(
            "gateway.networking.k8s.io".into(),
            "HTTPRoute".into(),
            namespace.into(),
        )],
        to: vec![(String::new(), "Service".into(), name.map(Into::into))],
    })
}

pub(super) fn change() -> impl Strategy<Value = Change> {
    let waypoint =
        prop::sample::select(&WAYPOINTS[..]).prop_map(|(namespace, name)| ObjectKey::new(namespace, name));
    let kind = prop::sample::select(&[RouteKind::Http, RouteKind::Grpc][..]);
    let class = prop::sample::select(&["trefoil-waypoint", "mine"][..]);
    let facts = prop::sample::select(&["trefoil.dev/gateway-controller", "istio.io/gateway-controller"][..])
        .prop_map(|controller| GatewayClass {
            controller: controller.into(),
            ..GatewayClass::default()
        });
    let hindrance = prop::option::of(prop_oneof![
        Just(Hindrance::Objects("its name is taken".into())),
        Just(Hindrance::Parameters("they are not known".into())),
    ]);
    prop_oneof![
        1 => (waypoint.clone(), hindrance).prop_map(|(key, why)| Change::Hindered(key, why)),
        4 => (waypoint, prop::option::weighted(0.8, gateway())).prop_map(|(key, facts)| Change::Gateway(key, facts)),
        3 => kind.prop_flat_map(|kind| (Just(kind), super::key(), prop::option::weighted(0.8, route(kind))))
            .prop_map(|(kind, key, object)| Change::Route(kind, key, object)),
        1 => (super::key(), prop::option::of(grant())).prop_map(|(key, facts)| Change::ReferenceGrant(key, facts)),
        1 => (class, prop::option::of(facts)).prop_map(|(name, facts)| Change::GatewayClass(name.into(), facts)),
    ]
}
