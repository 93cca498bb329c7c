//! Parsers of foreign bytes: understood or refused, never a panic.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::patch::Patch;
use crate::{body, kinds, lifecycle, metadata, protobuf, route};

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z$./-]{0,6}".prop_map(Value::from),
    ];
    let names = prop_oneof![
        Just("metadata"),
        Just("labels"),
        Just("name"),
        Just("conditions"),
        Just("type"),
        Just("ports"),
        Just("$patch"),
        Just("$retainKeys"),
        Just("$setElementOrder/conditions"),
        Just("finalizers"),
        Just("spec"),
    ];
    leaf.prop_recursive(4, 32, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(names.clone(), inner, 0..4).prop_map(|fields| json!(fields)),
        ]
    })
}

proptest! {
    #[test]
    fn bodies(bytes in proptest::collection::vec(any::<u8>(), 0..200), magic in any::<bool>()) {
        let mut text = if magic { protobuf::MAGIC.to_vec() } else { Vec::new() };
        text.extend(bytes);
        let _ = body::parse(&text);
    }

    #[test]
    fn paths_and_queries(path in "(/|api|apis|v1|namespaces|pods|status|\\PC){0,12}", query in "\\PC{0,60}") {
        let _ = route::parse(&path);
        let _ = route::Query::parse(Some(&query));
    }

    #[test]
    fn patches_and_objects(object in json(), patch in json()) {
        for kind in [&kinds::POD, &kinds::NAMESPACE, &kinds::SERVICE, &kinds::SECRET, &kinds::EVENT] {
            let birth = lifecycle::Birth { now: "t".into(), uid: "u".into(), suffix: "s".into() };
            let namespace = kind.namespaced.then_some("shop");
            let _ = metadata::check(&object, kind.resource);
            let made = lifecycle::create(kind, namespace, object.clone(), &birth, &|_, _, _| Ok(()));
            let existing = made.unwrap_or_else(|_| json!({ "metadata": { "name": "a" } }));
            for patch in [Patch::Merge(patch.clone()), Patch::Strategic(patch.clone())] {
                let Ok(patched) = patch.apply(kind, &existing) else { continue };
                let part = lifecycle::Part::Main;
                let Ok(updated) = lifecycle::update(kind, &existing, patched, part, &|_, _, _| Ok(())) else { continue };
                prop_assert_eq!(&updated["metadata"]["uid"], &existing["metadata"]["uid"]);
            }
        }
    }
}
