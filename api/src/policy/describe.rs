//! A compiled policy in words, for people who ask a plane what it holds. What is shown is what is evaluated.

use std::fmt::Display;

use super::http::Http;
use super::{Match, Policy, Text};

impl Policy {
    /// Its rules, one text each; without rules it matches nothing.
    #[must_use]
    pub fn described(&self) -> Vec<String> {
        self.rules.iter().map(|rule| described(rule)).collect()
    }
}

/// All clauses, of each any match.
fn described(rule: &[Vec<Match>]) -> String {
    let clauses: Vec<String> = rule
        .iter()
        .filter(|clause| !clause.is_empty())
        .map(|clause| match clause.as_slice() {
            [one] => one.described(),
            several => {
                let each: Vec<String> = several.iter().map(Match::described).collect();
                format!("({})", each.join("; or "))
            }
        })
        .collect();
    if clauses.is_empty() {
        return "any connection".into();
    }
    clauses.join(" and ")
}

impl Match {
    fn described(&self) -> String {
        let accounts = |accounts: &[(String, String)]| -> Vec<String> {
            accounts
                .iter()
                .map(|(namespace, account)| format!("{namespace}/{account}"))
                .collect()
        };
        let kinds = [
            kind("principal", &self.principals, &self.not_principals),
            kind("namespace", &self.namespaces, &self.not_namespaces),
            kind(
                "service account",
                &accounts(&self.service_accounts),
                &accounts(&self.not_service_accounts),
            ),
            kind("source address", &self.source_ips, &self.not_source_ips),
            kind(
                "destination address",
                &self.destination_ips,
                &self.not_destination_ips,
            ),
            kind("port", &self.destination_ports, &self.not_destination_ports),
        ];
        let of_http = self.http.iter().flat_map(Http::described);
        let said: Vec<String> = kinds.into_iter().flatten().chain(of_http).collect();
        if said.is_empty() {
            return "nothing".into();
        }
        said.join(" and ")
    }
}

impl Http {
    fn described(&self) -> Vec<String> {
        let kinds = [
            kind("method", &self.methods, &self.not_methods),
            kind("path", &self.paths, &self.not_paths),
            kind("host", &self.hosts, &self.not_hosts),
        ];
        let headers = self.headers.iter().map(|header| {
            let name = format!("header {}", header.name);
            kind(&name, &header.values, &header.not_values)
        });
        kinds.into_iter().chain(headers).flatten().collect()
    }
}

fn kind(name: &str, values: &[impl Display], not: &[impl Display]) -> Option<String> {
    let is = (!values.is_empty()).then(|| format!("{name} is {}", listed(values)));
    let is_not = (!not.is_empty()).then(|| format!("{name} is not {}", listed(not)));
    let both: Vec<String> = is.into_iter().chain(is_not).collect();
    (!both.is_empty()).then(|| both.join(" and "))
}

fn listed(values: &[impl Display]) -> String {
    let texts: Vec<String> = values.iter().map(ToString::to_string).collect();
    texts.join(" or ")
}

impl Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Suffix(text) => write!(f, "*{text}"),
            Self::Present => f.write_str("present"),
        }
    }
}
