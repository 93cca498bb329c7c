//! Policies in the index: what they are for, what planes get of them, and what becomes of one that cannot be
//! understood: its last good version stays in force; with none, what it would have guarded is closed.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use prost::Message;
use serde_json::Value;
use trefoil_api::crd::{self, AuthorizationPolicySpec, FieldError, PeerAuthenticationSpec};
use trefoil_api::names::MESH_NAMESPACE;
use trefoil_api::proto::istio::security::Authorization;

use super::apply::in_namespace;
use super::facts::{Pod, PolicyObject};
use super::report::{PolicyKind, PolicyReport};
use super::snapshot::{Encoded, ResourceKind};
use super::targets::{Subject, Target};
use super::{Index, ObjectKey};
use crate::translate::{self, Effective};

/// A policy, as far as it is understood.
#[derive(Clone, Debug)]
pub(super) struct Entry<Spec> {
    pub(super) target: Target,
    /// The version in force; none if there never was a good one.
    pub(super) spec: Option<Spec>,
    /// It asks for nothing to be refused, whatever else it says.
    audit: bool,
    facts: Facts,
}

/// A kind of policy: how its objects are read.
pub(super) trait Policy: Sized {
    /// Reads it whole, or says all that is wrong with it.
    fn read(object: &Value) -> Result<Self, Vec<FieldError>>;
    /// What it is for.
    fn target(&self, namespace: &str) -> Target;
    /// Whether an object of this kind, understood or not, asks for nothing to be refused.
    fn audits(object: &Value) -> bool;
}

impl Policy for AuthorizationPolicySpec {
    fn read(object: &Value) -> Result<Self, Vec<FieldError>> {
        crd::authorization_policy(object)
    }

    fn target(&self, namespace: &str) -> Target {
        Target::of(namespace, self.selector.as_ref(), &self.target_refs)
    }

    fn audits(object: &Value) -> bool {
        object["spec"]["action"] == "Audit"
    }
}

impl Policy for PeerAuthenticationSpec {
    fn read(object: &Value) -> Result<Self, Vec<FieldError>> {
        crd::peer_authentication(object)
    }

    fn target(&self, namespace: &str) -> Target {
        Target::of(namespace, self.selector.as_ref(), &[])
    }

    fn audits(_object: &Value) -> bool {
        false
    }
}

/// What is known of the object besides.
#[derive(Clone, Debug)]
struct Facts {
    errors: Vec<FieldError>,
    generation: i64,
    created: String,
    conditions: Vec<Condition>,
}

impl Facts {
    fn of(object: PolicyObject, errors: Vec<FieldError>) -> Self {
        Self {
            errors,
            generation: object.generation,
            created: object.created,
            conditions: object.conditions,
        }
    }
}

impl<Spec: Policy> Entry<Spec> {
    pub(super) fn read(key: &ObjectKey, object: PolicyObject, old: Option<Self>) -> Self {
        let audit = Spec::audits(&object.object);
        match Spec::read(&object.object) {
            Ok(spec) => Self {
                target: spec.target(&key.namespace),
                spec: Some(spec),
                audit,
                facts: Facts::of(object, Vec::new()),
            },
            Err(errors) => match old.filter(|old| old.spec.is_some()) {
                Some(old) => Self {
                    facts: Facts::of(object, errors),
                    ..old
                },
                None => Self {
                    target: Target::guess(&key.namespace, &object.object),
                    spec: None,
                    audit,
                    facts: Facts::of(object, errors),
                },
            },
        }
    }
}

/// The resource name of what a PeerAuthentication was made into.
fn strict_name(peer_authentication: &str) -> String {
    format!("peer_authentication_{peer_authentication}")
}

/// The namespace and the name of what these PeerAuthentications come to, the most specific first, for
/// workloads of a namespace. All of them are in the name, or else two contents would share it. Names of
/// objects have neither `+` nor `_` in them.
fn strict_resource<'a>(
    namespace: &'a str,
    chain: &[(&'a ObjectKey, &PeerAuthenticationSpec)],
) -> (&'a str, String) {
    match chain {
        [] => (MESH_NAMESPACE, strict_name("default")),
        [(policy, spec)] if spec.selector.is_none() || policy.namespace == namespace => {
            (policy.namespace.as_str(), strict_name(&policy.name))
        }
        _ => {
            let names = chain.iter().map(|(policy, _)| {
                let prefix = if policy.namespace == namespace {
                    ""
                } else {
                    "mesh_"
                };
                format!("{prefix}{}", policy.name)
            });
            let names: Vec<String> = names.collect();
            (namespace, strict_name(&names.join("+")))
        }
    }
}

impl Index {
    pub(super) fn compute_authorization(&mut self, key: &ObjectKey) {
        let mut resource = None;
        let mut report = None;
        if let Some(entry) = self.authorization.get(key) {
            let ports = self.service_ports(key, &entry.target);
            let scope = entry.target.scope();
            let translated = entry
                .spec
                .as_ref()
                .map(|spec| translate::authorization(&key.namespace, &key.name, spec, scope, &ports));
            let needs_http = match translated {
                Some(Ok(translated)) => {
                    resource = Some((translated.policy, translated.http));
                    translated.needs_http
                }
                // A validated object translates; if it ever did not, closing is the safe side.
                Some(Err(_)) | None => {
                    let closed = || translate::closed(&key.namespace, &key.name, scope);
                    resource = (!entry.audit).then(|| (closed(), closed()));
                    Vec::new()
                }
            };
            let facts = &entry.facts;
            let mut one = PolicyReport::new(PolicyKind::Authorization, key, facts.generation);
            one.accepted(&facts.errors, entry.spec.is_some());
            let others = matches!(entry.target, Target::Services(_))
                && entry
                    .spec
                    .as_ref()
                    .is_some_and(|spec| spec.action == crd::Action::Allow);
            let action = entry.spec.as_ref().map(|spec| spec.action);
            let uninspected: Vec<&ObjectKey> = self.uninspected.naming(key).collect();
            one.enforced(&needs_http, &uninspected, action, others);
            one.current.clone_from(&facts.conditions);
            report = Some(one);
        }
        let (policy, http) = resource.unzip();
        self.publish_form(ResourceKind::Authorization, &key.to_string(), policy);
        self.publish_form(ResourceKind::HttpAuthorization, &key.to_string(), http);
        self.keep_report(PolicyKind::Authorization, key, report);
    }

    /// A PeerAuthentication becomes part of what its workloads name; on its own it is a resource only where
    /// it was never understood.
    pub(super) fn compute_peer_authentication(&mut self, key: &ObjectKey) {
        let mut resource = None;
        let mut report = None;
        let name = format!("malformed_{}", strict_name(&key.name));
        if let Some(entry) = self.peer_authentication.get(key) {
            if entry.spec.is_none() {
                resource = Some(translate::closed(&key.namespace, &name, entry.target.scope()));
            }
            let mut one = PolicyReport::new(PolicyKind::PeerAuthentication, key, entry.facts.generation);
            one.accepted(&entry.facts.errors, entry.spec.is_some());
            one.current.clone_from(&entry.facts.conditions);
            report = Some(one);
        }
        self.publish_policy(&format!("{}/{name}", key.namespace), resource);
        self.keep_report(PolicyKind::PeerAuthentication, key, report);
    }

    /// The target ports of the services that a policy names, as their endpoints have them.
    fn service_ports(&self, key: &ObjectKey, target: &Target) -> translate::ServicePorts {
        let Target::Services(services) = target else {
            return None;
        };
        let mut ports = BTreeSet::new();
        for service in services {
            let service = ObjectKey::new(key.namespace.clone(), service.clone());
            for slice in self.slices_by_service.get(&service).into_iter().flatten() {
                let slice = self.slices.get(slice).into_iter();
                ports.extend(slice.flat_map(|slice| slice.ports.iter().map(|(_, port)| *port)));
            }
        }
        Some(ports)
    }

    /// Policies that a workload has to name, besides the one against plaintext.
    pub(super) fn selected_policies(&self, subject: &Subject<'_>) -> Vec<String> {
        let mut names = BTreeSet::new();
        for namespace in scopes(subject) {
            for (policy, entry) in in_namespace(&self.authorization, namespace) {
                let closes = entry.spec.is_some() || !entry.audit;
                if closes && entry.target.selects(policy, subject) {
                    names.insert(policy.to_string());
                }
            }
            for (policy, entry) in in_namespace(&self.peer_authentication, namespace) {
                if entry.spec.is_none() && entry.target.selects(policy, subject) {
                    let name = strict_name(&policy.name);
                    names.insert(format!("{}/malformed_{name}", policy.namespace));
                }
            }
        }
        names.into_iter().collect()
    }

    /// Policies about a workload that ask something of HTTP requests.
    pub(super) fn policies_that_need_http(&self, subject: &Subject<'_>) -> BTreeSet<ObjectKey> {
        let policies = scopes(subject)
            .into_iter()
            .flat_map(|namespace| in_namespace(&self.authorization, namespace));
        let asking = policies.filter(|(policy, entry)| {
            let spec = entry.spec.as_ref();
            spec.is_some_and(|spec| !translate::needs_http(spec).is_empty())
                && entry.target.is_about(policy, subject)
        });
        asking.map(|(policy, _)| policy.clone()).collect()
    }

    /// The policy against plaintext that holds for a workload, if any does.
    pub(super) fn strict_policy(&self, key: &ObjectKey, pod: &Pod) -> Option<Authorization> {
        let none = BTreeSet::new();
        let subject = Subject {
            pod: key,
            labels: &pod.labels,
            services: &none,
            waypoints: &none,
        };
        let selects = |policy: &ObjectKey, target: &Target| {
            matches!(target, Target::Selector(_)) && target.selects(policy, &subject)
        };
        let levels = [
            self.oldest(&key.namespace, selects),
            self.oldest(MESH_NAMESPACE, selects),
            self.oldest(&key.namespace, |_, target| *target == Target::Namespace),
            self.oldest(MESH_NAMESPACE, |_, target| *target == Target::Mesh),
        ];
        let chain: Vec<_> = levels.into_iter().flatten().collect();
        let specs: Vec<&PeerAuthenticationSpec> = chain.iter().map(|(_, spec)| *spec).collect();
        let effective = Effective::of(specs.iter().copied(), self.config.default_mtls);
        let (namespace, name) = strict_resource(&key.namespace, &chain);
        translate::peer_authentication(namespace, &name, &effective)
    }

    /// The oldest understood PeerAuthentication of a namespace that `wanted` takes.
    fn oldest<'a>(
        &'a self,
        namespace: &'a str,
        wanted: impl Fn(&ObjectKey, &Target) -> bool,
    ) -> Option<(&'a ObjectKey, &'a PeerAuthenticationSpec)> {
        in_namespace(&self.peer_authentication, namespace)
            .filter(|(key, entry)| wanted(key, &entry.target))
            .filter_map(|(key, entry)| Some((&entry.facts.created, key, entry.spec.as_ref()?)))
            .min_by_key(|(created, key, _)| (*created, *key))
            .map(|(_, key, spec)| (key, spec))
    }

    /// Says which policy against plaintext a workload names from now on.
    pub(super) fn set_strict(&mut self, workload: &str, policy: Option<Authorization>) -> Option<String> {
        let name = policy
            .as_ref()
            .map(|one| format!("{}/{}", one.namespace, one.name));
        if let Some(old) = self.strict_of.get(workload).cloned()
            && Some(&old) != name.as_ref()
        {
            self.strict_of.remove(workload);
            let unused = self.strict.get_mut(&old).is_some_and(|(_, users)| {
                users.remove(workload);
                users.is_empty()
            });
            if unused {
                self.strict.remove(&old);
                self.dirty.strict.insert(old);
            }
        }
        let (policy, name) = (policy?, name?);
        self.strict_of.insert(workload.to_owned(), name.clone());
        let (known, users) = self.strict.entry(name.clone()).or_default();
        users.insert(workload.to_owned());
        if *known != policy {
            *known = policy;
            self.dirty.strict.insert(name.clone());
        }
        Some(name)
    }

    /// Publishes the policies against plaintext once all workloads have said which they name.
    pub(super) fn compute_strict(&mut self) {
        for name in std::mem::take(&mut self.dirty.strict) {
            let policy = self.strict.get(&name).map(|(policy, _)| policy.clone());
            self.publish_policy(&name, policy);
        }
    }

    /// Publishes a policy that reads alike in every plane.
    fn publish_policy(&mut self, name: &str, policy: Option<Authorization>) {
        for kind in ResourceKind::POLICIES {
            self.publish_form(kind, name, policy.clone());
        }
    }

    fn publish_form(&mut self, kind: ResourceKind, name: &str, policy: Option<Authorization>) {
        let resource =
            policy.map(|policy| Encoded::new(kind, name, Vec::new(), Vec::new(), policy.encode_to_vec()));
        self.snapshot.set(&mut self.changes, kind, name, resource);
    }

    fn keep_report(&mut self, kind: PolicyKind, key: &ObjectKey, report: Option<PolicyReport>) {
        self.news = true;
        match report {
            Some(report) => self.reports.insert((kind, key.clone()), report),
            None => self.reports.remove(&(kind, key.clone())),
        };
    }
}

/// The namespaces whose policies may be about a workload.
fn scopes<'a>(subject: &Subject<'a>) -> BTreeSet<&'a str> {
    let waypoints = subject.waypoints.iter().map(|key| key.namespace.as_str());
    let own = [subject.pod.namespace.as_str(), MESH_NAMESPACE];
    own.into_iter().chain(waypoints).collect()
}
