//! What the control plane says has become of a policy: the conditions of its status.

use serde_json::Value;

use crate::config::text;

#[cfg(test)]
mod tests;

/// A condition that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unmet {
    /// `Accepted` or `Enforced`.
    pub(crate) kind: String,
    /// In one word.
    pub(crate) reason: String,
    /// For people.
    pub(crate) message: String,
}

fn all(policy: &Value) -> impl Iterator<Item = &Value> {
    let conditions = policy.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten()
}

/// Those that do not hold.
pub(crate) fn unmet(policy: &Value) -> Vec<Unmet> {
    all(policy)
        .filter(|condition| text(condition, "status") == "False")
        .map(|condition| Unmet {
            kind: text(condition, "type").into(),
            reason: text(condition, "reason").into(),
            message: text(condition, "message").into(),
        })
        .collect()
}

/// Whether they are about the policy as it is now.
pub(crate) fn are_current(policy: &Value) -> bool {
    let generation = policy.pointer("/metadata/generation").and_then(Value::as_i64);
    let mut conditions = all(policy).peekable();
    conditions.peek().is_some()
        && conditions
            .all(|condition| condition.get("observedGeneration").and_then(Value::as_i64) == generation)
}

/// In a cell: what does not hold, else the last that holds.
pub(crate) fn shown(policy: &Value) -> String {
    let unmet = unmet(policy);
    if unmet.is_empty() {
        let last = all(policy).last();
        return last.map_or_else(|| "-".into(), |condition| text(condition, "type").into());
    }
    let unmet: Vec<String> = unmet
        .iter()
        .map(|one| format!("not {}: {}", one.kind, one.reason))
        .collect();
    unmet.join(", ")
}
