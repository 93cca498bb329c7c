//! AuthorizationPolicy → `istio.security.Authorization`.
//!
//! No plane of today reads HTTP. A rule with conditions on HTTP therefore never matches in an Allow policy,
//! and loses those conditions in a Deny policy: in both cases what would have had to be inspected is refused.

use std::collections::BTreeSet;

use ipnet::IpNet;
use trefoil_api::crd;
use trefoil_api::proto::istio::security as message;
use trefoil_api::proto::istio::security::string_match::MatchType;

/// What became of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Translated {
    /// What planes enforce.
    pub policy: message::Authorization,
    /// Rules that need a plane that reads HTTP, by index: they are enforced by refusing more.
    pub needs_http: Vec<usize>,
}

/// The target ports of the Services that a policy names; none for a policy that names no Service.
pub type ServicePorts = Option<BTreeSet<u16>>;

/// Why a value was refused. Validated objects have none of these.
type Refused = String;

/// Translates a validated policy. `scope` is what its selector, targets and namespace make of it.
pub fn authorization(
    namespace: &str,
    name: &str,
    spec: &crd::AuthorizationPolicySpec,
    scope: message::Scope,
    ports: &ServicePorts,
) -> Result<Translated, Refused> {
    let allow = spec.action == crd::Action::Allow;
    let mut rules = Vec::new();
    let mut needs_http = Vec::new();
    for (index, rule) in spec.rules.iter().enumerate() {
        if reads_http(rule) {
            needs_http.push(index);
            if allow {
                continue;
            }
        }
        let mut clauses = clauses(rule)?;
        clauses.extend(ports.as_ref().map(only_ports));
        rules.push(message::Rule { clauses });
    }
    let action = if allow {
        message::Action::Allow
    } else {
        message::Action::Deny
    };
    let policy = message::Authorization {
        name: name.into(),
        namespace: namespace.into(),
        scope: scope.into(),
        action: action.into(),
        rules,
        dry_run: spec.action == crd::Action::Audit,
        ..message::Authorization::default()
    };
    Ok(Translated { policy, needs_http })
}

/// Whether a rule asks for something that only a proxy that reads HTTP knows.
fn reads_http(rule: &crd::Rule) -> bool {
    let operation = |to: &crd::Operation| {
        [
            &to.methods,
            &to.not_methods,
            &to.paths,
            &to.not_paths,
            &to.hosts,
            &to.not_hosts,
        ]
        .iter()
        .any(|values| !values.is_empty())
    };
    rule.to.iter().any(operation)
        || rule
            .when
            .iter()
            .any(|when| crd::when_subject(&when.key) == Ok(crd::Subject::Http))
}

fn clauses(rule: &crd::Rule) -> Result<Vec<message::Clause>, Refused> {
    let mut clauses = Vec::new();
    if !rule.from.is_empty() {
        let matches = rule.from.iter().map(source).collect::<Result<_, _>>()?;
        clauses.push(message::Clause { matches });
    }
    let operations = rule.to.iter().map(operation).collect::<Result<Vec<_>, _>>()?;
    // An operation of which nothing is left matches everything, and so does the whole clause.
    if operations.iter().all(|one| *one != message::Match::default()) && !operations.is_empty() {
        clauses.push(message::Clause { matches: operations });
    }
    for condition in &rule.when {
        clauses.extend(when(condition)?.map(|one| message::Clause { matches: vec![one] }));
    }
    if clauses.is_empty() {
        // A rule that says nothing matches everything; said in the one way that everybody reads alike.
        clauses.push(message::Clause::default());
    }
    Ok(clauses)
}

fn source(from: &crd::Source) -> Result<message::Match, Refused> {
    Ok(message::Match {
        principals: texts(&from.principals)?,
        not_principals: texts(&from.not_principals)?,
        namespaces: texts(&from.namespaces)?,
        not_namespaces: texts(&from.not_namespaces)?,
        source_ips: ranges(&from.addresses)?,
        not_source_ips: ranges(&from.not_addresses)?,
        ..message::Match::default()
    })
}

/// What of an operation is seen without reading HTTP.
fn operation(to: &crd::Operation) -> Result<message::Match, Refused> {
    let ports = |values: &[_]| -> Result<Vec<u32>, Refused> {
        values
            .iter()
            .map(|value| crd::port_number(value).map(u32::from))
            .collect()
    };
    Ok(message::Match {
        destination_ports: ports(&to.ports)?,
        not_destination_ports: ports(&to.not_ports)?,
        ..message::Match::default()
    })
}

/// A condition, or none where it is about HTTP.
fn when(when: &crd::When) -> Result<Option<message::Match>, Refused> {
    let (values, not) = (&when.values, &when.not_values);
    let mut one = message::Match::default();
    match crd::when_subject(&when.key)? {
        crd::Subject::Http => return Ok(None),
        crd::Subject::Principal => (one.principals, one.not_principals) = (texts(values)?, texts(not)?),
        crd::Subject::Namespace => (one.namespaces, one.not_namespaces) = (texts(values)?, texts(not)?),
        crd::Subject::SourceAddress => (one.source_ips, one.not_source_ips) = (ranges(values)?, ranges(not)?),
        crd::Subject::DestinationAddress => {
            (one.destination_ips, one.not_destination_ips) = (ranges(values)?, ranges(not)?);
        }
        crd::Subject::DestinationPort => {
            (one.destination_ports, one.not_destination_ports) = (numbers(values)?, numbers(not)?);
        }
    }
    Ok(Some(one))
}

/// The clause that restricts a rule to a Service's target ports. With none known yet it matches no port.
fn only_ports(ports: &BTreeSet<u16>) -> message::Clause {
    let mut one = message::Match {
        destination_ports: ports.iter().copied().map(u32::from).collect(),
        ..message::Match::default()
    };
    if ports.is_empty() {
        // No endpoint yet, so nobody names this policy; port 1 keeps the match from being empty.
        one.destination_ports.push(1);
        one.not_destination_ports.push(1);
    }
    message::Clause { matches: vec![one] }
}

fn texts(values: &[String]) -> Result<Vec<message::StringMatch>, Refused> {
    values
        .iter()
        .map(|value| {
            let kind = match crd::text_pattern(value)? {
                crd::TextPattern::Exact(text) => MatchType::Exact(text),
                crd::TextPattern::Prefix(text) => MatchType::Prefix(text),
                crd::TextPattern::Suffix(text) => MatchType::Suffix(text),
                crd::TextPattern::Present => MatchType::Presence(()),
            };
            Ok(message::StringMatch {
                match_type: Some(kind),
            })
        })
        .collect()
}

fn ranges(values: &[String]) -> Result<Vec<message::Address>, Refused> {
    values
        .iter()
        .map(|value| crd::address_range(value).map(|range| address(&range)))
        .collect()
}

fn address(range: &IpNet) -> message::Address {
    let address = match range.addr() {
        std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
        std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    message::Address {
        address: address.into(),
        length: range.prefix_len().into(),
    }
}

fn numbers(values: &[String]) -> Result<Vec<u32>, Refused> {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    values
        .iter()
        .map(|value| crd::port_number(&IntOrString::String(value.clone())).map(u32::from))
        .collect()
}
