//! From the message to a compiled policy.

use std::net::IpAddr;

use ipnet::IpNet;
use prost::Message;

use super::http::{Header, Http};
use super::{Action, Match, Policy, Rule, Scope, Text};
use crate::names::extension;
use crate::path::{Part, comparable};
use crate::proto::istio::security as message;
use crate::proto::trefoil::v1::{HttpHeaderMatch, HttpRequestMatch};
use crate::proto::type_url;

/// Why a policy was refused: the field and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy {policy}: {field}: {problem}")]
pub struct InvalidPolicy {
    policy: String,
    field: String,
    problem: String,
}

/// A path into the message, for errors.
type Problem = (String, String);

/// Compiles a policy, or refuses it whole.
pub fn compile(policy: &message::Authorization) -> Result<Policy, InvalidPolicy> {
    let name = format!("{}/{}", policy.namespace, policy.name);
    body(policy, &name).map_err(|(field, problem)| InvalidPolicy {
        policy: name,
        field,
        problem,
    })
}

fn body(policy: &message::Authorization, name: &str) -> Result<Policy, Problem> {
    let scope = match message::Scope::try_from(policy.scope) {
        Ok(message::Scope::Global) => Scope::Mesh,
        Ok(message::Scope::Namespace) => Scope::Namespace,
        Ok(message::Scope::WorkloadSelector) => Scope::Workload,
        Err(_) => return Err(("scope".into(), format!("unknown value {}", policy.scope))),
    };
    let action = match message::Action::try_from(policy.action) {
        Ok(message::Action::Allow) => Action::Allow,
        Ok(message::Action::Deny) => Action::Deny,
        Err(_) => return Err(("action".into(), format!("unknown value {}", policy.action))),
    };
    no_extensions(&policy.extensions, "extensions")?;
    Ok(Policy {
        name: name.into(),
        namespace: policy.namespace.clone(),
        scope,
        action,
        dry_run: policy.dry_run,
        rules: each(&policy.rules, "rules", rule)?,
    })
}

fn rule(rule: &message::Rule, at: &str) -> Result<Rule, Problem> {
    each(&rule.clauses, &format!("{at}.clauses"), |clause, at| {
        each(&clause.matches, &format!("{at}.matches"), one_match)
    })
}

fn one_match(from: &message::Match, at: &str) -> Result<Match, Problem> {
    let field = |name: &str| format!("{at}.{name}");
    Ok(Match {
        namespaces: each(&from.namespaces, &field("namespaces"), text)?,
        not_namespaces: each(&from.not_namespaces, &field("not_namespaces"), text)?,
        principals: each(&from.principals, &field("principals"), text)?,
        not_principals: each(&from.not_principals, &field("not_principals"), text)?,
        source_ips: each(&from.source_ips, &field("source_ips"), network)?,
        not_source_ips: each(&from.not_source_ips, &field("not_source_ips"), network)?,
        destination_ips: each(&from.destination_ips, &field("destination_ips"), network)?,
        not_destination_ips: each(&from.not_destination_ips, &field("not_destination_ips"), network)?,
        destination_ports: each(&from.destination_ports, &field("destination_ports"), port)?,
        not_destination_ports: each(&from.not_destination_ports, &field("not_destination_ports"), port)?,
        service_accounts: each(&from.service_accounts, &field("service_accounts"), account)?,
        not_service_accounts: each(
            &from.not_service_accounts,
            &field("not_service_accounts"),
            account,
        )?,
        http: http(&from.extensions, &field("extensions"))?,
    })
}

fn each<From, To>(
    items: &[From],
    at: &str,
    convert: impl Fn(&From, &str) -> Result<To, Problem>,
) -> Result<Vec<To>, Problem> {
    items
        .iter()
        .enumerate()
        .map(|(index, item)| convert(item, &format!("{at}[{index}]")))
        .collect()
}

fn text(from: &message::StringMatch, at: &str) -> Result<Text, Problem> {
    use message::string_match::MatchType;
    match &from.match_type {
        // An absent identity reads as the empty text: an empty pattern would let it in.
        Some(MatchType::Exact(value) | MatchType::Prefix(value) | MatchType::Suffix(value))
            if value.is_empty() =>
        {
            Err((at.into(), "an empty text matches nobody or everybody".into()))
        }
        Some(MatchType::Exact(value)) => Ok(Text::Exact(value.clone())),
        Some(MatchType::Prefix(value)) => Ok(Text::Prefix(value.clone())),
        Some(MatchType::Suffix(value)) => Ok(Text::Suffix(value.clone())),
        Some(MatchType::Presence(())) => Ok(Text::Present),
        None => Err((at.into(), "no known kind of match".into())),
    }
}

fn network(from: &message::Address, at: &str) -> Result<IpNet, Problem> {
    let bytes = from.address.as_ref();
    let address = if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        IpAddr::from(v4)
    } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        IpAddr::from(v6)
    } else {
        return Err((
            at.into(),
            format!("an address has 4 or 16 bytes, not {}", bytes.len()),
        ));
    };
    let length = u8::try_from(from.length).map_err(|_| (at.into(), prefix_problem(from.length)))?;
    IpNet::new(address, length).map_err(|_| (at.into(), prefix_problem(from.length)))
}

fn prefix_problem(length: u32) -> String {
    format!("prefix length {length} is longer than the address")
}

fn port(from: &u32, at: &str) -> Result<u16, Problem> {
    match u16::try_from(*from) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err((at.into(), format!("{from} is not a port (1 to 65535)"))),
    }
}

fn account(from: &message::ServiceAccountMatch, at: &str) -> Result<(String, String), Problem> {
    if from.service_account.is_empty() {
        return Err((at.into(), "service account is empty".into()));
    }
    Ok((from.namespace.clone(), from.service_account.clone()))
}

/// An extension is a condition that is not understood here: ignoring it would change the meaning.
/// What is asked of HTTP, the one extension of a match that is understood.
fn http(extensions: &[message::Extension], at: &str) -> Result<Option<Http>, Problem> {
    let config = match extensions {
        [] => return Ok(None),
        [one] if one.name == extension::HTTP => one.config.as_ref(),
        _ => return Err((at.into(), "not understood here".into())),
    };
    let config = config.filter(|config| config.type_url == type_url::HTTP_REQUEST_MATCH);
    let bytes = &config
        .ok_or_else(|| (at.into(), "has another type than its name says".into()))?
        .value;
    let from = HttpRequestMatch::decode(bytes.as_slice()).map_err(|error| (at.into(), error.to_string()))?;
    let field = |name: &str| format!("{at}.{name}");
    let understood = Http {
        methods: each(&from.methods, &field("methods"), text)?,
        not_methods: each(&from.not_methods, &field("not_methods"), text)?,
        paths: each(&from.paths, &field("paths"), path)?,
        not_paths: each(&from.not_paths, &field("not_paths"), path)?,
        hosts: each(&from.hosts, &field("hosts"), host)?,
        not_hosts: each(&from.not_hosts, &field("not_hosts"), host)?,
        headers: each(&from.headers, &field("headers"), header)?,
    };
    match understood == Http::default() {
        true => Err((at.into(), "asks nothing".into())),
        false => Ok(Some(understood)),
    }
}

fn header(from: &HttpHeaderMatch, at: &str) -> Result<Header, Problem> {
    if from.name.is_empty() {
        return Err((format!("{at}.name"), "is empty".into()));
    }
    if from.values.is_empty() && from.not_values.is_empty() {
        return Err((at.into(), "asks nothing".into()));
    }
    Ok(Header {
        name: from.name.to_ascii_lowercase(),
        values: each(&from.values, &format!("{at}.values"), text)?,
        not_values: each(&from.not_values, &format!("{at}.not_values"), text)?,
    })
}

/// Requests' paths come in one spelling.
fn path(from: &message::StringMatch, at: &str) -> Result<Text, Problem> {
    let text = text(from, at)?;
    let compared = match &text {
        Text::Exact(value) => comparable(value, Part::Whole),
        Text::Prefix(value) => comparable(value, Part::Beginning),
        Text::Suffix(value) => comparable(value, Part::End),
        Text::Present => Ok(()),
    };
    compared.map(|()| text).map_err(|problem| (at.into(), problem))
}

/// Hosts are the same in either case (RFC 9110, section 4.2.3).
fn host(from: &message::StringMatch, at: &str) -> Result<Text, Problem> {
    Ok(match text(from, at)? {
        Text::Exact(value) => Text::Exact(value.to_ascii_lowercase()),
        Text::Prefix(value) => Text::Prefix(value.to_ascii_lowercase()),
        Text::Suffix(value) => Text::Suffix(value.to_ascii_lowercase()),
        Text::Present => Text::Present,
    })
}

fn no_extensions<T>(extensions: &[T], at: &str) -> Result<(), Problem> {
    if extensions.is_empty() {
        Ok(())
    } else {
        Err((at.into(), "not understood here".into()))
    }
}
