//! The one validation, used by the admission webhook and by the embedded store alike. Pure. It reports every
//! fault that it finds, not the first.

use serde_json::Value;

use super::{AuthorizationPolicySpec, Operation, PeerAuthenticationSpec, Rule, Selector, Source, When};
use super::{RequestSubject, Term, address_range, path_pattern, port_number, principal_pattern};
use super::{request_subject, text_pattern, when_subject};
use crate::mesh_config::MeshConfig;
use crate::names::{API_GROUP, MESH_CONFIG, MESH_CONFIG_KEY, MESH_NAMESPACE, label};
use crate::plane::Mode;

/// What is wrong with an object, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// Path of the field, such as `spec.rules[0].from[1].addresses[0]`.
    pub field: String,
    /// What is wrong.
    pub problem: String,
}

impl FieldError {
    /// A fault of a field.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

/// Whether an object may be stored. Kinds that the mesh does not read are not looked into.
pub fn validate(group: &str, kind: &str, object: &Value) -> Result<(), Vec<FieldError>> {
    match (group, kind) {
        (API_GROUP, "AuthorizationPolicy") => authorization_policy(object).map(drop),
        (API_GROUP, "PeerAuthentication") => peer_authentication(object).map(drop),
        (API_GROUP, kind) => Err(one("kind", format!("{kind} is not a kind of {API_GROUP} yet"))),
        ("", "ConfigMap") => config_map(object),
        ("", "Namespace") => labels(object),
        _ => Ok(()),
    }
}

/// Reads an AuthorizationPolicy whole, or says all that is wrong with it.
pub fn authorization_policy(object: &Value) -> Result<AuthorizationPolicySpec, Vec<FieldError>> {
    let spec: AuthorizationPolicySpec = spec(object)?;
    let mut found = Found::default();
    if spec.selector.is_some() && !spec.target_refs.is_empty() {
        found.say("spec", "selector and targetRefs exclude each other");
    }
    selector(&mut found, spec.selector.as_ref());
    for (index, target) in spec.target_refs.iter().enumerate() {
        let at = format!("spec.targetRefs[{index}]");
        if target.name.is_empty() {
            found.say(&format!("{at}.name"), "is empty");
        }
        if !target.is_service() && !target.is_gateway() {
            found.say(
                &at,
                "only Services, and Gateways that are waypoints, can be targets",
            );
        }
    }
    let services = spec
        .target_refs
        .iter()
        .filter(|target| target.is_service())
        .count();
    if services > 0 && services < spec.target_refs.len() {
        found.say(
            "spec.targetRefs",
            "Services and Gateways are not targets of one policy: write two",
        );
    }
    for (index, one) in spec.rules.iter().enumerate() {
        rule(&mut found, one, &format!("spec.rules[{index}]"));
    }
    found.or(spec)
}

/// Reads a PeerAuthentication whole, or says all that is wrong with it.
pub fn peer_authentication(object: &Value) -> Result<PeerAuthenticationSpec, Vec<FieldError>> {
    let spec: PeerAuthenticationSpec = spec(object)?;
    let mut found = Found::default();
    selector(&mut found, spec.selector.as_ref());
    for port in spec.ports.keys() {
        found.check(&format!("spec.ports[{port}]"), port_number(&text(port)));
    }
    found.or(spec)
}

fn rule(found: &mut Found, rule: &Rule, at: &str) {
    for (index, from) in rule.from.iter().enumerate() {
        source(found, from, &format!("{at}.from[{index}]"));
    }
    for (index, to) in rule.to.iter().enumerate() {
        operation(found, to, &format!("{at}.to[{index}]"));
    }
    for (index, condition) in rule.when.iter().enumerate() {
        when(found, condition, &format!("{at}.when[{index}]"));
    }
}

fn source(found: &mut Found, source: &Source, at: &str) {
    if *source == Source::default() {
        found.say(at, "says nothing: leave it out, or name clients");
    }
    let principals = [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
    ];
    for (name, values) in principals {
        found.each(at, name, values, |value| principal_pattern(value));
    }
    let namespaces = [
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
    ];
    for (name, values) in namespaces {
        found.each(at, name, values, |value| text_pattern(value));
    }
    found.each(at, "addresses", &source.addresses, |value| address_range(value));
    found.each(at, "notAddresses", &source.not_addresses, |value| {
        address_range(value)
    });
}

fn operation(found: &mut Found, operation: &Operation, at: &str) {
    if *operation == Operation::default() {
        found.say(at, "says nothing: leave it out, or name operations");
    }
    found.each(at, "ports", &operation.ports, port_number);
    found.each(at, "notPorts", &operation.not_ports, port_number);
    let texts = [
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
    ];
    for (name, values) in texts {
        found.each(at, name, values, |value| text_pattern(value));
    }
    let paths = [("paths", &operation.paths), ("notPaths", &operation.not_paths)];
    for (name, values) in paths {
        found.each(at, name, values, |value| path_pattern(value));
    }
}

fn when(found: &mut Found, when: &When, at: &str) {
    if when.values.is_empty() && when.not_values.is_empty() {
        found.say(at, "has neither values nor notValues");
    }
    match when_subject(&when.key) {
        Err(problem) => found.say(&format!("{at}.key"), problem),
        Ok(subject) => {
            let path = request_subject(&when.key) == Some(RequestSubject::Path);
            let term = |value: &String| match path {
                true => path_pattern(value).map(Term::Text),
                false => subject.term(value),
            };
            found.each(at, "values", &when.values, term);
            found.each(at, "notValues", &when.not_values, term);
        }
    }
}

fn selector(found: &mut Found, selector: Option<&Selector>) {
    if selector.is_some_and(|selector| selector.match_labels.is_empty()) {
        found.say(
            "spec.selector.matchLabels",
            "selects everything: leave the selector out for the whole namespace",
        );
    }
}

fn config_map(object: &Value) -> Result<(), Vec<FieldError>> {
    let metadata = |key: &str| object["metadata"][key].as_str().unwrap_or_default();
    if metadata("name") != MESH_CONFIG || metadata("namespace") != MESH_NAMESPACE {
        return Ok(());
    }
    let field = format!("data[{MESH_CONFIG_KEY}]");
    match object["data"][MESH_CONFIG_KEY].as_str() {
        None => Err(one(&field, "is missing")),
        Some(text) => MeshConfig::parse(text)
            .map(drop)
            .map_err(|error| one(&field, error.to_string())),
    }
}

/// Labels that the mesh reads on namespaces: a misspelt value is better refused than found out about.
fn labels(object: &Value) -> Result<(), Vec<FieldError>> {
    let mut found = Found::default();
    let labels = &object["metadata"]["labels"];
    if let Some(mode) = labels[label::DATAPLANE_MODE].as_str() {
        let only = [(label::DATAPLANE_MODE.to_owned(), mode.to_owned())].into();
        found.check(
            "metadata.labels",
            Mode::of(Some(&only)).map_err(|e| e.to_string()),
        );
    }
    if let Some(isolation) = labels[label::ISOLATION].as_str()
        && !["shared", "namespace", "workload"].contains(&isolation)
    {
        let problem = format!(
            "label {}: {isolation:?} is none of shared, namespace, workload",
            label::ISOLATION
        );
        found.say("metadata.labels", problem);
    }
    found.or(())
}

pub(crate) fn spec<Spec: serde::de::DeserializeOwned>(object: &Value) -> Result<Spec, Vec<FieldError>> {
    let spec = object.get("spec").ok_or_else(|| one("spec", "is missing"))?;
    serde_path_to_error::deserialize(spec).map_err(|error| {
        let path = match error.path().to_string().as_str() {
            "." => "spec".to_owned(),
            path => format!("spec.{path}"),
        };
        one(&path, error.inner().to_string())
    })
}

fn one(field: &str, problem: impl Into<String>) -> Vec<FieldError> {
    vec![FieldError::new(field, problem)]
}

fn text(value: &str) -> k8s_openapi::apimachinery::pkg::util::intstr::IntOrString {
    k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String(value.into())
}

/// Faults as they are found.
#[derive(Default)]
pub(crate) struct Found {
    errors: Vec<FieldError>,
}

impl Found {
    pub(crate) fn say(&mut self, field: &str, problem: impl Into<String>) {
        self.errors.extend(one(field, problem));
    }

    pub(crate) fn check<T>(&mut self, field: &str, outcome: Result<T, String>) {
        if let Err(problem) = outcome {
            self.say(field, problem);
        }
    }

    pub(crate) fn each<V, T>(
        &mut self,
        at: &str,
        name: &str,
        values: &[V],
        read: impl Fn(&V) -> Result<T, String>,
    ) {
        for (index, value) in values.iter().enumerate() {
            self.check(&format!("{at}.{name}[{index}]"), read(value));
        }
    }

    pub(crate) fn or<T>(self, value: T) -> Result<T, Vec<FieldError>> {
        if self.errors.is_empty() {
            Ok(value)
        } else {
            Err(self.errors)
        }
    }
}
