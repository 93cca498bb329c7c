//! What is to be said in the status of services and of the Gateway API's objects. Times are for the writer to fill
//! in; what others say in the same status is left as it is.

use serde_json::{Value, json};
use trefoil_api::names::{GATEWAY_CONTROLLER, WAYPOINT_CLASS, port};

use super::facts::Gateway;
use super::services::hostname;
use super::waypoints::{Hindrance, NotProgrammed, Use};
use super::{Index, ObjectKey};

/// The condition of a service that names a waypoint.
pub(super) const WAYPOINT_BOUND: &str = "trefoil.dev/WaypointBound";
/// So many pods are named in it.
const SHOWN: usize = 3;

/// A kind that is said something of in its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StatusKind {
    /// Service.
    Service,
    /// GatewayClass.
    GatewayClass,
    /// Gateway.
    Gateway,
    /// HTTPRoute.
    HttpRoute,
    /// GRPCRoute.
    GrpcRoute,
}

impl StatusKind {
    /// As objects name it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::GatewayClass => "GatewayClass",
            Self::Gateway => "Gateway",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
        }
    }
}

/// What is to be said in the status of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectStatus {
    /// Its kind.
    pub kind: StatusKind,
    /// Which one; of a GatewayClass only the name.
    pub key: ObjectKey,
    /// The status without times.
    pub wanted: Value,
    /// What its status says now.
    pub current: Value,
}

/// A condition, but for its time.
pub(super) fn condition(
    kind: &str,
    holds: bool,
    reason: &str,
    message: impl Into<String>,
    generation: i64,
) -> Value {
    let message: String = message.into();
    json!({
        "type": kind, "status": if holds { "True" } else { "False" }, "reason": reason, "message": message,
        "observedGeneration": generation,
    })
}

impl ObjectStatus {
    /// Whether the status already says it.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.merged(&self.current, "") == self.current
    }

    /// The status that is to be written over `live`. Conditions that still say the same keep their time.
    #[must_use]
    pub fn merged(&self, live: &Value, now: &str) -> Value {
        let mut merged = live.as_object().cloned().unwrap_or_default();
        for (name, wanted) in self.wanted.as_object().into_iter().flatten() {
            let old = &live[name];
            let new = match name.as_str() {
                "parents" => parents(wanted, old, now),
                "conditions" if self.kind == StatusKind::Service => among_others(wanted, old, now),
                _ => timed(wanted, old, now),
            };
            merged.insert(name.clone(), new);
        }
        merged.into()
    }
}

/// Ours, beside those that others answer for.
fn parents(wanted: &Value, old: &Value, now: &str) -> Value {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (ours, mut others): (Vec<Value>, Vec<Value>) = items(old)
        .into_iter()
        .partition(|one| one["controllerName"] == GATEWAY_CONTROLLER);
    let wanted = items(wanted).into_iter().map(|one| {
        let known = ours.iter().find(|old| old["parentRef"] == one["parentRef"]);
        timed(&one, known.unwrap_or(&Value::Null), now)
    });
    others.extend(wanted);
    others.into()
}

/// The condition of ours, or none, among those of others: in its place if it has one.
fn among_others(wanted: &Value, old: &Value, now: &str) -> Value {
    let old = old.as_array().map(Vec::as_slice).unwrap_or_default();
    let ours = |one: &Value| one["type"] == WAYPOINT_BOUND;
    let known = old.iter().find(|one| ours(one));
    let mut new = wanted
        .get(0)
        .map(|one| timed(one, known.unwrap_or(&Value::Null), now));
    let mut all: Vec<Value> = Vec::with_capacity(old.len() + 1);
    for one in old {
        match ours(one) {
            true => all.extend(new.take()),
            false => all.push(one.clone()),
        }
    }
    all.extend(new);
    all.into()
}

/// A value with times in its conditions: those of the old value where it says the same.
fn timed(wanted: &Value, old: &Value, now: &str) -> Value {
    match wanted {
        Value::Array(items) => {
            let same = |one: &Value, old: &Value| {
                let key = if one["type"].is_string() { "type" } else { "name" };
                one[key].is_string() && one[key] == old[key]
            };
            let olds = old.as_array();
            let of = |one: &Value| olds.into_iter().flatten().find(|old| same(one, old)).cloned();
            let items = items
                .iter()
                .map(|one| timed(one, &of(one).unwrap_or_default(), now));
            items.collect()
        }
        Value::Object(fields) => {
            let mut new: serde_json::Map<_, _> = fields
                .iter()
                .map(|(name, value)| (name.clone(), timed(value, &old[name], now)))
                .collect();
            if fields.contains_key("type") && fields.contains_key("status") {
                let kept = old["status"] == fields["status"] && old["lastTransitionTime"].is_string();
                let time = if kept {
                    old["lastTransitionTime"].clone()
                } else {
                    now.into()
                };
                new.insert("lastTransitionTime".into(), time);
            }
            new.into()
        }
        other => other.clone(),
    }
}

impl Index {
    /// What is said of a Gateway; of those of other classes nothing.
    pub(super) fn report_gateway(&mut self, key: &ObjectKey) {
        let status = self.gateways.get(key).zip(self.waypoints.get(key));
        let status = status.map(|(gateway, waypoint)| ObjectStatus {
            kind: StatusKind::Gateway,
            key: key.clone(),
            wanted: gateway_status(gateway, &waypoint.programmed, self.hindrances.get(key)),
            current: gateway.status.clone(),
        });
        self.keep_status(StatusKind::Gateway, key, status);
    }

    /// What is said of a service: whether the waypoint that it names serves it. Of one that names none nothing.
    pub(super) fn report_service(&mut self, key: &ObjectKey) {
        let status = self.services.get(key).and_then(|service| {
            let wanted = self.waypoint_bound(key, &self.service_use(key, service));
            let said = |one: &Value| one["type"] == WAYPOINT_BOUND;
            (wanted.is_some() || service.conditions.iter().any(said)).then(|| ObjectStatus {
                kind: StatusKind::Service,
                key: key.clone(),
                wanted: json!({ "conditions": wanted.into_iter().collect::<Vec<_>>() }),
                current: json!({ "conditions": service.conditions }),
            })
        });
        self.keep_status(StatusKind::Service, key, status);
    }

    fn waypoint_bound(&self, key: &ObjectKey, used: &Use) -> Option<Value> {
        let contended: Vec<String> = self.contending.naming(key).map(ToString::to_string).collect();
        let (holds, reason, message) = match used {
            Use::None => return None,
            Use::Waypoint(..) if !contended.is_empty() => {
                let (shown, more) = contended.split_at(contended.len().min(SHOWN));
                let pods = match more.len() {
                    0 => shown.join(", "),
                    more => format!("{} and {more} more", shown.join(", ")),
                };
                let message = format!(
                    "nobody may reach {pods}: other services of theirs, or they themselves, name another waypoint"
                );
                (false, "Contended", message)
            }
            Use::Waypoint(waypoint, _) => (true, "Bound", format!("its waypoint is {waypoint}")),
            Use::Awaited(..) => (false, "Pending", used.fault().unwrap_or_default()),
            Use::Mistaken(_) => (false, "Invalid", used.fault().unwrap_or_default()),
        };
        // Without a generation, which services do not have.
        Some(json!({
            "type": WAYPOINT_BOUND, "status": if holds { "True" } else { "False" },
            "reason": reason, "message": message,
        }))
    }

    /// What is said of a GatewayClass of ours.
    pub(super) fn report_class(&mut self, name: &str) {
        let key = ObjectKey::new("", name);
        let class = self.gateway_classes.get(name);
        let class = class.filter(|class| class.controller == GATEWAY_CONTROLLER);
        let status = class.map(|class| {
            let generation = class.generation;
            let accepted = if name == WAYPOINT_CLASS {
                condition(
                    "Accepted",
                    true,
                    "Accepted",
                    "Gateways of this class are waypoints",
                    generation,
                )
            } else {
                let message = format!("the class of this controller is {WAYPOINT_CLASS}");
                condition("Accepted", false, "Unsupported", message, generation)
            };
            ObjectStatus {
                kind: StatusKind::GatewayClass,
                key: key.clone(),
                wanted: json!({ "conditions": [accepted] }),
                current: class.status.clone(),
            }
        });
        self.keep_status(StatusKind::GatewayClass, &key, status);
    }

    pub(super) fn keep_status(&mut self, kind: StatusKind, key: &ObjectKey, status: Option<ObjectStatus>) {
        let of = (kind, key.clone());
        if self.statuses.get(&of) == status.as_ref() {
            return;
        }
        self.news = true;
        match status {
            Some(status) => self.statuses.insert(of, status),
            None => self.statuses.remove(&of),
        };
    }
}

fn gateway_status(
    gateway: &Gateway,
    programmed: &Result<ObjectKey, NotProgrammed>,
    hindrance: Option<&Hindrance>,
) -> Value {
    let generation = gateway.generation;
    let accepted = match (programmed, hindrance) {
        (Err(error), _) if error.is_invalid() => {
            let reason = match error {
                NotProgrammed::Listeners => "ListenersNotValid",
                _ => "InvalidParameters",
            };
            condition("Accepted", false, reason, error.to_string(), generation)
        }
        (_, Some(Hindrance::Parameters(why))) => {
            condition("Accepted", false, "InvalidParameters", why.as_str(), generation)
        }
        _ => {
            let fault = gateway.replicas().err();
            let message = fault.map_or_else(|| "understood whole".into(), |fault| fault.to_string());
            condition("Accepted", true, "Accepted", message, generation)
        }
    };
    let in_force = match programmed {
        Ok(_) => condition(
            "Programmed",
            true,
            "Programmed",
            "traffic goes through it",
            generation,
        ),
        Err(error) => {
            let reason = match error {
                NotProgrammed::Hindered(_) => "NoResources",
                _ if error.is_invalid() => "Invalid",
                _ => "Pending",
            };
            condition("Programmed", false, reason, error.to_string(), generation)
        }
    };
    let addresses: Vec<Value> = programmed
        .iter()
        .map(|service| json!({ "type": "Hostname", "value": hostname(service) }))
        .collect();
    let listeners = gateway.listeners.iter().map(|listener| {
        let known = listener.protocol == "HBONE" && listener.port == u64::from(port::HBONE);
        let accepted = if known {
            condition("Accepted", true, "Accepted", "planes dial it", generation)
        } else {
            let message = NotProgrammed::Listeners.to_string();
            condition("Accepted", false, "UnsupportedProtocol", message, generation)
        };
        let programmed = condition(
            "Programmed",
            known && programmed.is_ok(),
            if known && programmed.is_ok() {
                "Programmed"
            } else {
                "Pending"
            },
            "",
            generation,
        );
        let resolved = condition("ResolvedRefs", true, "ResolvedRefs", "", generation);
        json!({
            "name": listener.name, "supportedKinds": [], "attachedRoutes": 0,
            "conditions": [accepted, programmed, resolved],
        })
    });
    json!({
        "addresses": addresses,
        "conditions": [accepted, in_force],
        "listeners": listeners.collect::<Vec<_>>(),
    })
}
