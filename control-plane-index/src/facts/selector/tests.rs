use proptest::prelude::*;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use super::super::{Labels, selector_selects};
use super::Selector;

fn expression(key: &str, operator: &str, values: &[&str]) -> LabelSelectorRequirement {
    LabelSelectorRequirement {
        key: key.into(),
        operator: operator.into(),
        values: Some(values.iter().map(|one| (*one).to_owned()).collect()),
    }
}

fn of(expressions: Vec<LabelSelectorRequirement>) -> Result<Selector, String> {
    Selector::of(&LabelSelector {
        match_expressions: Some(expressions),
        ..LabelSelector::default()
    })
}

#[test]
fn what_says_the_same_is_the_same() {
    let exact = Selector::of(&LabelSelector {
        match_labels: Some([("app".to_owned(), "web".to_owned())].into()),
        ..LabelSelector::default()
    });
    assert_eq!(exact, of(vec![expression("app", "In", &["web", "web"])]));
    assert_ne!(exact, of(vec![expression("app", "NotIn", &["web"])]));
}

#[test]
fn what_no_api_server_takes_is_no_selector() {
    for (operator, values, expected) in [
        ("Like", &["web"][..], "is no operator"),
        ("In", &[], "has no values"),
        ("NotIn", &[], "has no values"),
        ("Exists", &["web"], "has values"),
        ("DoesNotExist", &["web"], "has values"),
    ] {
        let refused = of(vec![expression("app", operator, values)]).expect_err(operator);
        assert!(refused.contains(expected), "{refused}");
    }
}

fn value() -> impl Strategy<Value = String> {
    "[ab]"
}

fn labels() -> impl Strategy<Value = Labels> {
    prop::collection::btree_map("[xy]", value(), 0..3)
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    let listed = (
        "[xy]",
        prop::sample::select(vec!["In", "NotIn"]),
        prop::collection::vec(value(), 1..3),
    );
    let bare = (
        "[xy]",
        prop::sample::select(vec!["Exists", "DoesNotExist"]),
        Just(Vec::new()),
    );
    let one = prop_oneof![listed, bare].prop_map(|(key, operator, values)| LabelSelectorRequirement {
        key,
        operator: operator.into(),
        values: Some(values),
    });
    (labels(), prop::collection::vec(one, 0..4)).prop_map(|(labels, expressions)| LabelSelector {
        match_labels: Some(labels),
        match_expressions: Some(expressions),
    })
}

proptest! {
    /// The canonical form selects what the object does, and its text is the same however the object is written.
    #[test]
    fn the_form_keeps_the_meaning_and_forgets_the_order(one in selector(), labels in labels()) {
        let selector = Selector::of(&one).expect("understood");
        prop_assert_eq!(selector.selects(&labels), selector_selects(&one, &labels));
        let mut other = one.clone();
        for expressions in other.match_expressions.iter_mut() {
            expressions.reverse();
            for values in expressions.iter_mut().filter_map(|one| one.values.as_mut()) {
                values.reverse();
            }
        }
        // An exact label is a list of one.
        let exact = other.match_labels.take().into_iter().flatten();
        let exact = exact.map(|(key, value)| expression(&key, "In", &[&value]));
        other.match_expressions.get_or_insert_default().extend(exact);
        prop_assert_eq!(&Selector::of(&other).expect("understood"), &selector);
    }

    /// Two selectors with the same text select the same.
    #[test]
    fn one_text_is_one_selector(one in selector(), other in selector()) {
        let (one, other) = (Selector::of(&one).expect("understood"), Selector::of(&other).expect("understood"));
        let text = |selector: &Selector| serde_json::to_string(selector).expect("text");
        prop_assert_eq!(text(&one) == text(&other), one == other);
    }
}
