use proptest::prelude::*;
use serde_json::{Value, json};

use crate::selector::Selector;

fn selects(labels: &str, object: &Value) -> bool {
    Selector::parse(Some(labels), None).unwrap().matches(object)
}

#[test]
fn labels_are_selected_as_kubectl_writes_them() {
    let object = json!({ "metadata": { "labels": { "app": "web", "tier": "front", "empty": "" } } });
    let table = [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app!=web", false),
        ("app=db", false),
        ("missing!=x", true),
        ("app", true),
        ("missing", false),
        ("!missing", true),
        ("!app", false),
        ("app in (web, db)", true),
        ("app in (db)", false),
        ("app notin (db)", true),
        ("missing notin (db)", true),
        ("app in (web),tier=front", true),
        ("app=web,tier=back", false),
        ("empty=", true),
        ("trefoil.dev/x!=y , app", true),
    ];
    for (selector, expected) in table {
        assert_eq!(selects(selector, &object), expected, "{selector:?}");
    }
}

#[test]
fn nonsense_is_refused_and_never_selects() {
    for text in [
        "=x",
        "a b",
        "app in web",
        "app in (a",
        "a=b=c",
        "!",
        "a=-",
        "app in (a,(b))",
        "a//b",
        "UPPER/x/y",
    ] {
        assert!(Selector::parse(Some(text), None).is_err(), "{text:?}");
    }
    for text in ["spec.bogus=1", "metadata.name", "=x"] {
        assert!(Selector::parse(None, Some(text)).is_err(), "{text:?}");
    }
}

#[test]
fn fields_are_selected() {
    let object = json!({ "metadata": { "name": "p" }, "spec": { "nodeName": "n1" }, "status": { "phase": "Running" } });
    let table = [
        ("spec.nodeName=n1", true),
        ("spec.nodeName!=n1", false),
        ("spec.nodeName=n1,status.phase!=Failed", true),
        ("metadata.namespace=", true),
        ("metadata.name==q", false),
    ];
    for (selector, expected) in table {
        assert_eq!(
            Selector::parse(None, Some(selector)).unwrap().matches(&object),
            expected,
            "{selector:?}"
        );
    }
}

/// What a requirement means, in the slowest way to say it.
#[derive(Debug, Clone)]
enum Meaning {
    Equals(String, String),
    Differs(String, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Meaning {
    fn written(&self) -> String {
        match self {
            Self::Equals(key, value) => format!("{key}={value}"),
            Self::Differs(key, value) => format!("{key} != {value}"),
            Self::In(key, values) => format!("{key} in ({})", values.join(", ")),
            Self::NotIn(key, values) => format!("{key} notin ({})", values.join(",")),
            Self::Exists(key) => key.clone(),
            Self::Absent(key) => format!("!{key}"),
        }
    }

    fn holds(&self, labels: &Value) -> bool {
        let value = |key: &String| labels.get(key).and_then(Value::as_str).map(str::to_owned);
        match self {
            Self::Equals(key, wanted) => value(key).as_ref() == Some(wanted),
            Self::Differs(key, wanted) => value(key).as_ref() != Some(wanted),
            Self::In(key, values) => value(key).is_some_and(|value| values.contains(&value)),
            Self::NotIn(key, values) => !value(key).is_some_and(|value| values.contains(&value)),
            Self::Exists(key) => value(key).is_some(),
            Self::Absent(key) => value(key).is_none(),
        }
    }
}

fn meaning() -> impl Strategy<Value = Meaning> {
    let key = || {
        prop_oneof![Just("a"), Just("b"), Just("in"), Just("notin"), Just("x.dev/c")].prop_map(String::from)
    };
    let value = || "[a-c]{0,2}";
    let values = || proptest::collection::vec(value(), 1..4);
    prop_oneof![
        (key(), value()).prop_map(|(key, value)| Meaning::Equals(key, value)),
        (key(), value()).prop_map(|(key, value)| Meaning::Differs(key, value)),
        (key(), values()).prop_map(|(key, values)| Meaning::In(key, values)),
        (key(), values()).prop_map(|(key, values)| Meaning::NotIn(key, values)),
        key().prop_map(Meaning::Exists),
        key().prop_map(Meaning::Absent),
    ]
}

proptest! {
    #[test]
    fn a_selector_means_what_its_parts_mean(
        meanings in proptest::collection::vec(meaning(), 0..5),
        labels in proptest::collection::btree_map(
            prop_oneof![Just("a"), Just("b"), Just("in"), Just("notin"), Just("x.dev/c")], "[a-c]{0,2}", 0..4),
    ) {
        let written: Vec<String> = meanings.iter().map(Meaning::written).collect();
        let labels = json!(labels);
        let object = json!({ "metadata": { "labels": labels } });
        let selector = Selector::parse(Some(&written.join(",")), None).unwrap();
        prop_assert_eq!(selector.matches(&object), meanings.iter().all(|meaning| meaning.holds(&labels)));
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,40}") {
        let _ = Selector::parse(Some(&text), Some(&text));
    }
}
