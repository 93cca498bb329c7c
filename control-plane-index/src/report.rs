//! What became of a policy, as the conditions of its status say it. Whether and when a condition changed is
//! for the writer of the status to find out.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use trefoil_api::crd::{Action, FieldError};

use super::ObjectKey;

/// Which kind of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyKind {
    /// AuthorizationPolicy.
    Authorization,
    /// PeerAuthentication.
    PeerAuthentication,
}

/// What became of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyReport {
    /// Its kind.
    pub kind: PolicyKind,
    /// Which one.
    pub key: ObjectKey,
    /// The generation that the statements are about.
    pub generation: i64,
    /// What is to be said.
    pub statements: Vec<Statement>,
    /// What its status says now.
    pub current: Vec<Condition>,
}

/// A condition, but for its times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// `Accepted` or `Enforced`.
    pub kind: &'static str,
    /// True or False.
    pub holds: bool,
    /// In one word.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl PolicyReport {
    pub(super) fn new(kind: PolicyKind, key: &ObjectKey, generation: i64) -> Self {
        Self {
            kind,
            key: key.clone(),
            generation,
            statements: Vec::new(),
            current: Vec::new(),
        }
    }

    fn say(&mut self, kind: &'static str, holds: bool, reason: &'static str, message: impl Into<String>) {
        self.statements.push(Statement {
            kind,
            holds,
            reason,
            message: message.into(),
        });
    }

    pub(super) fn accepted(&mut self, errors: &[FieldError], in_force: bool) {
        if errors.is_empty() {
            self.say("Accepted", true, "Accepted", "understood whole");
            return;
        }
        let faults: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let consequence = if in_force {
            "the last good version stays in force"
        } else {
            "what it is for is closed until it is corrected"
        };
        self.say(
            "Accepted",
            false,
            "Malformed",
            format!("{}; {consequence}", faults.join("; ")),
        );
    }

    pub(super) fn enforced(
        &mut self,
        needs_http: &[usize],
        uninspected: &[&ObjectKey],
        action: Option<Action>,
        closes_others: bool,
    ) {
        if !uninspected.is_empty() {
            let rules: Vec<String> = needs_http.iter().map(|index| format!("rules[{index}]")).collect();
            let effect = match action {
                Some(Action::Allow) => "never match",
                _ => "match whatever the HTTP request is",
            };
            let message = format!(
                "no plane reads HTTP on the way to {}: there {} {effect}, so that nothing passes uninspected; give them a waypoint or sidecars",
                some_of(uninspected),
                rules.join(", ")
            );
            self.say("Enforced", false, "NeedsHttp", message);
        } else if closes_others {
            let message = "as an Allow policy it also closes the other ports of the services' endpoints";
            self.say("Enforced", true, "Enforced", message);
        } else if action.is_some() {
            self.say("Enforced", true, "Enforced", "in force as written");
        }
    }

    /// Whether the status already says it.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.statements.len() == self.current.len()
            && self.statements.iter().all(|one| {
                self.current.iter().any(|condition| {
                    condition.type_ == one.kind
                        && (condition.status == "True") == one.holds
                        && condition.reason == one.reason
                        && condition.message == one.message
                        && condition.observed_generation == Some(self.generation)
                })
            })
    }
}

/// The first few by name, and how many more.
pub(super) fn some_of(keys: &[impl ToString]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = keys.iter().take(SHOWN).map(ToString::to_string).collect();
    match keys.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
