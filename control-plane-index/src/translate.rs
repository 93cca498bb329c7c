//! From the policies that users write to the L4 policies that planes enforce. Pure. What a plane cannot
//! inspect is refused by it, never let pass: translation may close more than was written, never less.

mod authorization;
mod peer_authentication;
mod routes;
#[cfg(test)]
mod tests;

pub(crate) use authorization::{ServicePorts, authorization, needs_http};
pub(crate) use peer_authentication::{Effective, peer_authentication};
pub(crate) use routes::{Resolve, grpc_rules, http_rules};

use trefoil_api::proto::istio::security::{Action, Authorization, Clause, Rule, Scope};

/// A policy that denies everything in its scope: what stands in for one that was never understood.
#[must_use]
pub(crate) fn closed(namespace: &str, name: &str, scope: Scope) -> Authorization {
    Authorization {
        name: name.into(),
        namespace: namespace.into(),
        scope: scope.into(),
        action: Action::Deny.into(),
        // A clause without matches matches everything.
        rules: vec![Rule {
            clauses: vec![Clause::default()],
        }],
        ..Authorization::default()
    }
}
