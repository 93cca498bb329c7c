//! Routes in the index: which services they are for, where their backends are, and what becomes of one that
//! cannot be understood: its last good version stays in force.

use std::collections::BTreeSet;

use prost::Message;
use serde_json::{Value, json};
use trefoil_api::crd::FieldError;
use trefoil_api::names::GATEWAY_CONTROLLER;
use trefoil_api::proto::trefoil::v1::{HttpRoute, RouteParent};
use trefoil_api::routes::{self, GATEWAY_GROUP, GrpcSpec, HttpSpec, MirrorRef, ParentRef};

use super::apply::in_namespace;
use super::facts::RouteObject;
use super::report::some_of;
use super::services::resource_name;
use super::snapshot::{Encoded, ResourceKind};
use super::statuses::{ObjectStatus, StatusKind, condition};
use super::{Index, ObjectKey};
use crate::translate;

/// The condition of ours: whether some plane applies the route.
const APPLIED: &str = "trefoil.dev/Applied";

/// A kind of route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteKind {
    /// HTTPRoute.
    Http,
    /// GRPCRoute.
    Grpc,
}

impl RouteKind {
    /// As objects name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.status().name()
    }

    fn status(self) -> StatusKind {
        match self {
            Self::Http => StatusKind::HttpRoute,
            Self::Grpc => StatusKind::GrpcRoute,
        }
    }
}

/// Kind, namespace and name of a route.
pub(super) type RouteKey = (RouteKind, ObjectKey);

/// A route that was understood.
#[derive(Clone, Debug, PartialEq)]
enum Spec {
    Http(HttpSpec),
    Grpc(GrpcSpec),
}

/// A route.
#[derive(Clone, Debug)]
pub struct RouteEntry {
    /// The version in force; none if there never was a good one.
    spec: Option<Spec>,
    errors: Vec<FieldError>,
    facts: RouteObject,
}

impl Spec {
    fn read(kind: RouteKind, object: &Value) -> Result<Self, Vec<FieldError>> {
        match kind {
            RouteKind::Http => routes::http_route(object).map(Self::Http),
            RouteKind::Grpc => routes::grpc_route(object).map(Self::Grpc),
        }
    }

    fn parents(&self) -> &[ParentRef] {
        match self {
            Self::Http(spec) => &spec.parent_refs,
            Self::Grpc(spec) => &spec.parent_refs,
        }
    }

    fn hostnames(&self) -> &[String] {
        match self {
            Self::Http(spec) => &spec.hostnames,
            Self::Grpc(spec) => &spec.hostnames,
        }
    }

    fn rules(
        &self,
        resolve: &mut translate::Resolve<'_>,
    ) -> Vec<trefoil_api::proto::trefoil::v1::HttpRouteRule> {
        match self {
            Self::Http(spec) => translate::http_rules(&spec.rules, resolve),
            Self::Grpc(spec) => translate::grpc_rules(&spec.rules, resolve),
        }
    }
}

impl RouteEntry {
    pub(super) fn read(kind: RouteKind, object: RouteObject, old: Option<Self>) -> Self {
        let (spec, errors) = match Spec::read(kind, &object.object) {
            Ok(spec) => (Some(spec), Vec::new()),
            Err(errors) => (old.and_then(|old| old.spec), errors),
        };
        Self {
            spec,
            errors,
            facts: object,
        }
    }

    /// The parents that the object names now, whether or not the rest of it is understood.
    fn named_parents(&self) -> Vec<ParentRef> {
        let parents = self.facts.object["spec"]["parentRefs"].as_array();
        let read = |one: &Value| serde_json::from_value(one.clone()).ok();
        parents.into_iter().flatten().filter_map(read).collect()
    }

    /// The services that it speaks of.
    pub(super) fn services(&self, namespace: &str) -> BTreeSet<ObjectKey> {
        let mut services: BTreeSet<ObjectKey> = self
            .named_parents()
            .iter()
            .filter(|parent| parent.is_service())
            .map(|parent| parent_key(namespace, parent))
            .collect();
        if let Some(spec) = &self.spec {
            let of_spec = spec.parents().iter().filter(|parent| parent.is_service());
            services.extend(of_spec.map(|parent| parent_key(namespace, parent)));
            spec.rules(&mut |target| {
                services.insert(target_key(namespace, target));
                String::new()
            });
        }
        services
    }
}

fn parent_key(namespace: &str, parent: &ParentRef) -> ObjectKey {
    ObjectKey::new(
        parent.namespace.as_deref().unwrap_or(namespace),
        parent.name.as_str(),
    )
}

fn target_key(namespace: &str, target: &MirrorRef) -> ObjectKey {
    ObjectKey::new(
        target.namespace.as_deref().unwrap_or(namespace),
        target.name.as_str(),
    )
}

/// Why a backend gets nothing: the reason of the Gateway API, and a message.
type Unresolved = (&'static str, String);

impl Index {
    pub(super) fn compute_route(&mut self, route: &RouteKey) {
        let (kind, key) = route;
        let mut resource = None;
        let mut status = None;
        if let Some(entry) = self.routes.get(route) {
            let (message, unresolved) = self.route_message(*kind, key, entry);
            let wanted = self.route_status(key, entry, unresolved.as_ref());
            status = Some(ObjectStatus {
                kind: kind.status(),
                key: key.clone(),
                wanted,
                current: entry.facts.status.clone(),
            });
            resource = message;
        }
        let name = format!("{}/{key}", kind.name());
        let resource = resource.map(|message| {
            let value = message.encode_to_vec();
            Encoded::new(ResourceKind::HttpRoute, &name, Vec::new(), Vec::new(), value)
        });
        let changes = &mut self.changes;
        self.snapshot
            .set(changes, ResourceKind::HttpRoute, &name, resource);
        // With no parent of ours nothing is said, unless something is to be taken back.
        let silent = |status: &ObjectStatus| {
            let ours = |parents: &Value| {
                let parents = parents["parents"].as_array().into_iter().flatten();
                parents
                    .into_iter()
                    .any(|one| one["controllerName"] == GATEWAY_CONTROLLER)
            };
            !ours(&status.wanted) && !ours(&status.current)
        };
        self.keep_status(kind.status(), key, status.filter(|status| !silent(status)));
    }

    /// What planes are told, and the first thing that is wrong with a backend.
    fn route_message(
        &self,
        kind: RouteKind,
        key: &ObjectKey,
        entry: &RouteEntry,
    ) -> (Option<HttpRoute>, Option<Unresolved>) {
        let Some(spec) = &entry.spec else {
            return (None, None);
        };
        let mut unresolved = None;
        let rules = spec.rules(&mut |target| match self.backend(kind, key, target) {
            Ok(service) => service,
            Err(problem) => {
                unresolved.get_or_insert(problem);
                String::new()
            }
        });
        let known = |parent: &&ParentRef| {
            parent.is_service() && self.service_of_parent(&key.namespace, parent).is_ok()
        };
        let parents: Vec<RouteParent> = spec
            .parents()
            .iter()
            .filter(known)
            .map(|parent| RouteParent {
                service: resource_name(&parent_key(&key.namespace, parent)),
                port: self
                    .service_of_parent(&key.namespace, parent)
                    .unwrap_or_default()
                    .into(),
            })
            .collect();
        let message = (!parents.is_empty()).then(|| HttpRoute {
            kind: kind.name().into(),
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            parents,
            hostnames: spec.hostnames().to_vec(),
            rules,
            created: entry.facts.created,
        });
        (message, unresolved)
    }

    /// The port of a Service that a route is attached to, 0 for all; or why it is to none.
    fn service_of_parent(&self, namespace: &str, parent: &ParentRef) -> Result<u16, String> {
        let key = parent_key(namespace, parent);
        let service = self
            .services
            .get(&key)
            .ok_or_else(|| format!("there is no Service {key}"))?;
        let mut ports = service.ports.iter().filter(|port| {
            parent.port.is_none_or(|number| port.port == number)
                && parent.section_name.as_ref().is_none_or(|name| port.name == *name)
        });
        if parent.port.is_none() && parent.section_name.is_none() {
            return Ok(0);
        }
        ports
            .next()
            .map(|port| port.port)
            .ok_or_else(|| format!("Service {key} has no such port"))
    }

    /// The resource name of a backend.
    fn backend(&self, kind: RouteKind, route: &ObjectKey, target: &MirrorRef) -> Result<String, Unresolved> {
        if !target.is_service() {
            let group = target.group.as_deref().unwrap_or_default();
            let kind = target.kind.as_deref().unwrap_or("Service");
            return Err(("InvalidKind", format!("{kind} of group {group:?} is no backend")));
        }
        let key = target_key(&route.namespace, target);
        let granted = key.namespace == route.namespace
            || in_namespace(&self.grants, &key.namespace)
                .any(|(_, grant)| grant.permits(GATEWAY_GROUP, kind.name(), &route.namespace, &key.name));
        if !granted {
            let message = format!(
                "no ReferenceGrant in {} lets this route use Service {key}",
                key.namespace
            );
            return Err(("RefNotPermitted", message));
        }
        let missing = |message| ("BackendNotFound", message);
        let service = self
            .services
            .get(&key)
            .ok_or_else(|| missing(format!("there is no Service {key}")))?;
        let named = |port: &super::facts::ServicePort| Some(port.port) == target.port;
        if !service.ports.iter().any(named) {
            return Err(missing(format!(
                "Service {key} has no port {}",
                target.port.unwrap_or_default()
            )));
        }
        Ok(resource_name(&key))
    }

    fn route_status(&self, key: &ObjectKey, entry: &RouteEntry, unresolved: Option<&Unresolved>) -> Value {
        let named = entry.named_parents();
        let parents = named.iter().filter(|parent| parent.is_service()).map(|parent| {
            let conditions = self.parent_conditions(key, entry, parent, unresolved);
            json!({
                "parentRef": parent, "controllerName": GATEWAY_CONTROLLER, "conditions": conditions,
            })
        });
        json!({ "parents": parents.collect::<Vec<_>>() })
    }

    fn parent_conditions(
        &self,
        key: &ObjectKey,
        entry: &RouteEntry,
        parent: &ParentRef,
        unresolved: Option<&Unresolved>,
    ) -> Vec<Value> {
        let say = |kind: &str, holds: bool, reason: &str, message: String| {
            condition(kind, holds, reason, message, entry.facts.generation)
        };
        let found = self.service_of_parent(&key.namespace, parent);
        let accepted = match &found {
            _ if !entry.errors.is_empty() => say("Accepted", false, "UnsupportedValue", entry.malformed()),
            Err(problem) => say("Accepted", false, "NoMatchingParent", problem.clone()),
            Ok(_) => say("Accepted", true, "Accepted", "understood whole".into()),
        };
        let resolved = match unresolved {
            None => say(
                "ResolvedRefs",
                true,
                "ResolvedRefs",
                "all backends are known".into(),
            ),
            Some((reason, problem)) => {
                let message = format!("{problem}; its share of requests is answered with 500");
                say("ResolvedRefs", false, reason, message)
            }
        };
        let mut conditions = vec![accepted, resolved];
        if found.is_ok() && entry.spec.is_some() {
            let (applied, reason, message) = self.applied(key, parent);
            conditions.push(say(APPLIED, applied, reason, message));
        }
        conditions
    }

    /// Whether a plane on the path applies the route, and which clients it is not applied for.
    fn applied(&self, key: &ObjectKey, parent: &ParentRef) -> (bool, &'static str, String) {
        let service = parent_key(&key.namespace, parent);
        let consumer = service.namespace != key.namespace;
        let waypoint = self.service_waypoints.get(&service).filter(|_| !consumer);
        if let Some(waypoint) = waypoint {
            let message = format!("by waypoint {waypoint}; clients outside of the mesh are not routed by it");
            return (true, "Applied", message);
        }
        let (whose, remedy) = match consumer {
            true => (
                format!("clients in {}", key.namespace),
                "give them sidecars".to_owned(),
            ),
            false => (
                "its clients".to_owned(),
                format!("give Service {service} a waypoint"),
            ),
        };
        let of = |namespace: &&String| !consumer || **namespace == key.namespace;
        let unread: Vec<&str> = self.unread.keys().filter(of).map(String::as_str).collect();
        if unread.is_empty() {
            let message =
                format!("by the sidecars of {whose}; clients outside of the mesh are not routed by it");
            return (true, "Applied", message);
        }
        let message = format!(
            "by the sidecars of {whose} only: no plane reads the requests of ambient clients in {}, nor of those outside of the mesh, which are not routed by it; {remedy}",
            some_of(&unread)
        );
        (false, "NoPlane", message)
    }
}

impl RouteEntry {
    fn malformed(&self) -> String {
        let faults: Vec<String> = self.errors.iter().map(ToString::to_string).collect();
        let consequence = match self.spec {
            Some(_) => "the last good version stays in force",
            None => "it routes nothing",
        };
        format!("{}; {consequence}", faults.join("; "))
    }
}
