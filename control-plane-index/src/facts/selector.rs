//! Selectors of labels in one form for all that say the same. One that cannot be understood is none.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde::Serialize;

use super::Labels;

#[cfg(test)]
mod tests;

/// What labels are to be like, all of it; nothing: any labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Selector(BTreeSet<Requirement>);

/// What one label is to be like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Requirement(String, Operator);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
enum Operator {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    DoesNotExist,
}

impl Selector {
    /// Of an object's; an error says why the API server would have refused it.
    pub fn of(selector: &LabelSelector) -> Result<Self, String> {
        let exact = selector.match_labels.iter().flatten();
        let exact = exact.map(|(key, value)| {
            let values = BTreeSet::from([value.clone()]);
            Ok(Requirement(key.clone(), Operator::In(values)))
        });
        let expressions = selector.match_expressions.iter().flatten().map(requirement);
        exact.chain(expressions).collect::<Result<_, _>>().map(Self)
    }

    /// Whether these labels are so.
    #[must_use]
    pub fn selects(&self, labels: &Labels) -> bool {
        self.0.iter().all(|Requirement(key, operator)| {
            let value = labels.get(key);
            match operator {
                Operator::In(values) => value.is_some_and(|value| values.contains(value)),
                Operator::NotIn(values) => !value.is_some_and(|value| values.contains(value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

fn requirement(from: &LabelSelectorRequirement) -> Result<Requirement, String> {
    let (key, operator) = (&from.key, from.operator.as_str());
    let values: BTreeSet<String> = from.values.iter().flatten().cloned().collect();
    let operator = match (operator, values.is_empty()) {
        ("In", false) => Operator::In(values),
        ("NotIn", false) => Operator::NotIn(values),
        ("Exists", true) => Operator::Exists,
        ("DoesNotExist", true) => Operator::DoesNotExist,
        ("In" | "NotIn", true) => return Err(format!("{operator} of {key:?} has no values")),
        ("Exists" | "DoesNotExist", false) => return Err(format!("{operator} of {key:?} has values")),
        _ => return Err(format!("{operator:?} of {key:?} is no operator")),
    };
    Ok(Requirement(key.clone(), operator))
}
