//! The verdict. Any matching Deny denies; with no Allow policies it is allowed; else one must match.

use ipnet::IpNet;

use super::{Action, Connection, Match, Policy, Reason, Text, Verdict};

/// The verdict over the policies that apply to a workload. Dry-run policies have no say.
pub fn evaluate<'p>(policies: impl IntoIterator<Item = &'p Policy>, connection: &Connection<'_>) -> Verdict {
    let principal = connection.peer.map(crate::Identity::principal);
    let mut allowed_by = None;
    let mut allow_policies = Vec::new();
    for policy in policies.into_iter().filter(|policy| !policy.dry_run) {
        match policy.action {
            Action::Deny if policy.matches(connection, principal.as_deref()) => {
                return Verdict::Deny(Reason::Matched(policy.name.clone()));
            }
            Action::Deny => {}
            Action::Allow => {
                if allowed_by.is_none() && policy.matches(connection, principal.as_deref()) {
                    allowed_by = Some(policy);
                }
                allow_policies.push(policy);
            }
        }
    }
    match allowed_by {
        Some(policy) => Verdict::Allow(Reason::Matched(policy.name.clone())),
        None if allow_policies.is_empty() => Verdict::Allow(Reason::NoPolicy),
        None => Verdict::Deny(Reason::NoneMatched(
            allow_policies.into_iter().map(|p| p.name.clone()).collect(),
        )),
    }
}

/// Names of the dry-run policies of which each would have denied what the others allow, were it in force. They
/// have no say: this is only to be reported.
pub fn audit<'p>(policies: impl IntoIterator<Item = &'p Policy>, connection: &Connection<'_>) -> Vec<String> {
    let policies: Vec<&Policy> = policies.into_iter().collect();
    if !policies.iter().any(|policy| policy.dry_run) {
        return Vec::new();
    }
    let principal = connection.peer.map(crate::Identity::principal);
    let matches = |policy: &Policy| policy.matches(connection, principal.as_deref());
    let allow = |policy: &&&Policy| policy.action == Action::Allow && !policy.dry_run;
    // With one Allow policy in force that matches, another that does not takes nothing away.
    let allowed = policies.iter().filter(allow).any(|policy| matches(policy));
    let would_deny = |policy: &&&Policy| match policy.action {
        Action::Deny => matches(policy),
        Action::Allow => !allowed && !matches(policy),
    };
    let dry = policies.iter().filter(|policy| policy.dry_run);
    dry.filter(would_deny).map(|policy| policy.name.clone()).collect()
}

impl Policy {
    /// Whether any rule matches. A policy without rules matches nothing.
    fn matches(&self, connection: &Connection<'_>, principal: Option<&str>) -> bool {
        self.rules.iter().any(|rule| {
            rule.iter().all(|clause| {
                clause.is_empty()
                    || clause
                        .iter()
                        .any(|one| one.matches(connection, principal.unwrap_or(""), self.action))
            })
        })
    }
}

impl Match {
    fn matches(&self, connection: &Connection<'_>, principal: &str, action: Action) -> bool {
        let namespace = connection.peer.map_or("", crate::Identity::namespace);
        let contains = |network: &IpNet, address| network.contains(address);
        let account = |(namespace, account): &(String, String)| {
            connection.peer.is_some_and(|peer| {
                peer.namespace() == namespace.as_str() && peer.service_account() == account.as_str()
            })
        };
        !self.is_empty()
            && kind(&self.namespaces, &self.not_namespaces, |text| {
                text.matches(namespace)
            })
            && kind(&self.principals, &self.not_principals, |text| {
                text.matches(principal)
            })
            && kind(&self.source_ips, &self.not_source_ips, |net| {
                contains(net, &connection.source)
            })
            && kind(&self.destination_ips, &self.not_destination_ips, |net| {
                contains(net, &connection.destination)
            })
            && kind(&self.destination_ports, &self.not_destination_ports, |port| {
                *port == connection.port
            })
            && kind(&self.service_accounts, &self.not_service_accounts, account)
            && (self.http.as_ref()).is_none_or(|http| http.matches(&connection.asked, action))
    }

    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One of `values` must match, where there are any, and none of `not`.
pub(super) fn kind<T>(values: &[T], not: &[T], matches: impl Fn(&T) -> bool) -> bool {
    (values.is_empty() || values.iter().any(&matches)) && !not.iter().any(&matches)
}

impl Text {
    pub(super) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => value == exact,
            Self::Prefix(prefix) => value.starts_with(prefix.as_str()),
            Self::Suffix(suffix) => value.ends_with(suffix.as_str()),
            Self::Present => !value.is_empty(),
        }
    }
}
