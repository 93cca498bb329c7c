//! AuthorizationPolicy → `istio.security.Authorization`, for planes that read HTTP; and from that the form for
//! those that do not, which refuses what would have had to be inspected. One walk: the second form is what is
//! left of the first where no request can be read.

use std::collections::BTreeSet;

use ipnet::IpNet;
use prost::Message;
use trefoil_api::crd;
use trefoil_api::names::extension;
use trefoil_api::proto::istio::security as message;
use trefoil_api::proto::istio::security::string_match::MatchType;
use trefoil_api::proto::trefoil::v1::{HttpHeaderMatch, HttpRequestMatch};
use trefoil_api::proto::type_url;

/// What became of a policy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Translated {
    /// What planes enforce that read HTTP.
    pub(crate) http: message::Authorization,
    /// What the others do.
    pub(crate) policy: message::Authorization,
    /// Rules that need a plane that reads HTTP, by index: others enforce them by refusing more.
    pub(crate) needs_http: Vec<usize>,
}

/// The target ports of the Services that a policy names; none for a policy that names no Service.
pub(crate) type ServicePorts = Option<BTreeSet<u16>>;

/// Why a value was refused. Validated objects have none of these.
type Refused = String;

/// Translates a validated policy. `scope` is what its selector, targets and namespace make of it.
pub(crate) fn authorization(
    namespace: &str,
    name: &str,
    spec: &crd::AuthorizationPolicySpec,
    scope: message::Scope,
    ports: &ServicePorts,
) -> Result<Translated, Refused> {
    let rules = spec.rules.iter().map(|rule| {
        let mut clauses = clauses(rule)?;
        clauses.extend(ports.as_ref().map(only_ports));
        Ok(message::Rule { clauses })
    });
    let action = match spec.action {
        crd::Action::Allow => message::Action::Allow,
        crd::Action::Deny | crd::Action::Audit => message::Action::Deny,
    };
    let http = message::Authorization {
        name: name.into(),
        namespace: namespace.into(),
        scope: scope.into(),
        action: action.into(),
        rules: rules.collect::<Result<_, Refused>>()?,
        dry_run: spec.action == crd::Action::Audit,
        ..message::Authorization::default()
    };
    Ok(Translated {
        policy: unread(&http),
        needs_http: needs_http(spec),
        http,
    })
}

/// Rules that ask for something that only a plane that reads HTTP knows, by index.
#[must_use]
pub(crate) fn needs_http(spec: &crd::AuthorizationPolicySpec) -> Vec<usize> {
    let asks = |rule: &crd::Rule| {
        let about_requests = |when: &crd::When| crd::request_subject(&when.key).is_some();
        rule.to.iter().any(reads_http) || rule.when.iter().any(about_requests)
    };
    let rules = spec.rules.iter().enumerate();
    rules
        .filter(|(_, rule)| asks(rule))
        .map(|(index, _)| index)
        .collect()
}

fn reads_http(to: &crd::Operation) -> bool {
    let asked = [
        &to.methods,
        &to.not_methods,
        &to.paths,
        &to.not_paths,
        &to.hosts,
        &to.not_hosts,
    ];
    asked.iter().any(|values| !values.is_empty())
}

/// What is left of a policy where no request can be read: in an Allow policy a match that asks for one is true
/// of nothing; in a Deny policy it is true of whatever the rest of it is true of.
fn unread(http: &message::Authorization) -> message::Authorization {
    let allow = http.action == i32::from(message::Action::Allow);
    let rules = http.rules.iter().filter_map(|rule| {
        let mut clauses = Vec::new();
        for clause in &rule.clauses {
            let mut matches = clause.matches.clone();
            if allow {
                matches.retain(|one| one.extensions.is_empty());
                if matches.is_empty() && !clause.matches.is_empty() {
                    return None;
                }
            }
            matches.iter_mut().for_each(|one| one.extensions.clear());
            // A match of which nothing is left is true of everything, and so is the whole clause.
            if !matches.contains(&message::Match::default()) && !matches.is_empty() {
                clauses.push(message::Clause { matches });
            }
        }
        Some(message::Rule {
            clauses: or_everything(clauses),
        })
    });
    message::Authorization {
        rules: rules.collect(),
        ..http.clone()
    }
}

/// A rule that says nothing matches everything; said in the one way that everybody reads alike.
fn or_everything(mut clauses: Vec<message::Clause>) -> Vec<message::Clause> {
    if clauses.is_empty() {
        clauses.push(message::Clause::default());
    }
    clauses
}

fn clauses(rule: &crd::Rule) -> Result<Vec<message::Clause>, Refused> {
    let mut clauses = Vec::new();
    if !rule.from.is_empty() {
        let matches = rule.from.iter().map(source).collect::<Result<_, _>>()?;
        clauses.push(message::Clause { matches });
    }
    if !rule.to.is_empty() {
        let matches = rule.to.iter().map(operation).collect::<Result<_, _>>()?;
        clauses.push(message::Clause { matches });
    }
    for condition in &rule.when {
        let matches = vec![when(condition)?];
        clauses.push(message::Clause { matches });
    }
    Ok(or_everything(clauses))
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

fn operation(to: &crd::Operation) -> Result<message::Match, Refused> {
    let ports = |values: &[_]| -> Result<Vec<u32>, Refused> {
        values
            .iter()
            .map(|value| crd::port_number(value).map(u32::from))
            .collect()
    };
    let request = HttpRequestMatch {
        methods: texts(&to.methods)?,
        not_methods: texts(&to.not_methods)?,
        paths: paths(&to.paths)?,
        not_paths: paths(&to.not_paths)?,
        hosts: texts(&to.hosts)?,
        not_hosts: texts(&to.not_hosts)?,
        headers: Vec::new(),
    };
    Ok(message::Match {
        destination_ports: ports(&to.ports)?,
        not_destination_ports: ports(&to.not_ports)?,
        extensions: reads_http(to).then(|| of_request(&request)).into_iter().collect(),
        ..message::Match::default()
    })
}

fn of_request(request: &HttpRequestMatch) -> message::Extension {
    message::Extension {
        name: extension::HTTP.into(),
        config: Some(prost_types::Any {
            type_url: type_url::HTTP_REQUEST_MATCH.into(),
            value: request.encode_to_vec(),
        }),
    }
}

fn when(when: &crd::When) -> Result<message::Match, Refused> {
    let (values, not) = (&when.values, &when.not_values);
    let mut one = message::Match::default();
    match crd::when_subject(&when.key)? {
        crd::Subject::Http => one.extensions.push(of_request(&request(when)?)),
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
    Ok(one)
}

/// A condition on a request.
fn request(when: &crd::When) -> Result<HttpRequestMatch, Refused> {
    let (values, not_values) = (texts(&when.values)?, texts(&when.not_values)?);
    let mut one = HttpRequestMatch::default();
    match crd::request_subject(&when.key).ok_or_else(|| format!("unknown key {:?}", when.key))? {
        crd::RequestSubject::Method => (one.methods, one.not_methods) = (values, not_values),
        crd::RequestSubject::Path => {
            (one.paths, one.not_paths) = (paths(&when.values)?, paths(&when.not_values)?);
        }
        crd::RequestSubject::Host => (one.hosts, one.not_hosts) = (values, not_values),
        crd::RequestSubject::Header(name) => one.headers.push(HttpHeaderMatch {
            name: name.to_ascii_lowercase(),
            values,
            not_values,
        }),
    }
    Ok(one)
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
    patterns(values, crd::text_pattern)
}

fn paths(values: &[String]) -> Result<Vec<message::StringMatch>, Refused> {
    patterns(values, crd::path_pattern)
}

fn patterns(
    values: &[String],
    read: fn(&str) -> Result<crd::TextPattern, String>,
) -> Result<Vec<message::StringMatch>, Refused> {
    values
        .iter()
        .map(|value| {
            let kind = match read(value)? {
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
