//! Which Gateways are waypoints, what they serve, and which of them a service or a workload uses.
//!
//! One that was announced once stays while it has a service: its pods may all be away, and what it guards must
//! not be open meanwhile. What it announced before is read from its own status, so that a control plane that
//! starts decides as one that ran on.

use std::collections::BTreeSet;

use serde_json::Value;
use trefoil_api::Identity;
use trefoil_api::names::{GATEWAY_CONTROLLER, WAYPOINT_CLASS, label, port};
use trefoil_api::proto::istio::workload as message;

use super::facts::{Allowed, Gateway, Labels, ParametersReference, Pod, Service};
use super::services::hostname;
use super::{Index, ObjectKey};

/// What a waypoint serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Services.
    Service,
    /// Workloads that are dialled by their addresses.
    Workload,
}

/// A Gateway of the class of waypoints, as far as its users are concerned.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Waypoint {
    services: bool,
    workloads: bool,
    allowed: Allowed,
    /// Its own service, once it may be used; else why it may not.
    pub(super) programmed: Result<ObjectKey, NotProgrammed>,
}

/// Why a waypoint cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotProgrammed {
    /// Not a label that is known.
    #[error("label {label}: {0:?} is none of service, workload, all", label = label::WAYPOINT_FOR)]
    Serves(String),
    /// Not the listener that planes dial.
    #[error("it needs one listener with protocol HBONE on port {}", port::HBONE)]
    Listeners,
    /// Nobody made it yet.
    #[error("no Service with label {label}={0} has been made for it yet", label = label::GATEWAY_NAME)]
    NoService(String),
    /// It never had a ready pod.
    #[error("none of its pods is ready yet")]
    NoEndpoint,
    /// It cannot be made.
    #[error("{0}")]
    Hindered(String),
}

/// Why a waypoint is not what its Gateway says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// What it consists of cannot be made.
    Objects(String),
    /// Its parameters are not understood: what there is of it stays as it is.
    Parameters(String),
}

impl Hindrance {
    /// What is wrong.
    #[must_use]
    pub fn why(&self) -> &str {
        match self {
            Self::Objects(why) | Self::Parameters(why) => why,
        }
    }
}

/// A waypoint that is to have pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployable {
    /// Its Gateway.
    pub key: ObjectKey,
    /// Uid of its Gateway.
    pub uid: String,
    /// How many; none if that is not for its Gateway to say.
    pub replicas: Option<u32>,
    /// What holds more of what its Gateway says of it.
    pub parameters: Option<ParametersReference>,
    /// Its class is there, and ours.
    pub classed: bool,
}

impl NotProgrammed {
    /// Whether its Gateway says something that cannot be done.
    pub(super) fn is_invalid(&self) -> bool {
        matches!(self, Self::Serves(_) | Self::Listeners)
    }
}

/// What labels choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) waypoint: ObjectKey,
    /// By the object's own label, not its namespace's.
    own: bool,
}

/// What became of a choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// None was chosen, or one for things of another kind.
    None,
    /// This one is used; with its own service.
    Waypoint(ObjectKey, ObjectKey),
    /// It is named and cannot be used now.
    Awaited(ObjectKey, String),
    /// It is named by mistake.
    Mistaken(String),
}

impl Use {
    /// The waypoint that is named, whether or not it can be used now.
    pub(super) fn named(&self) -> Option<&ObjectKey> {
        match self {
            Self::Waypoint(key, _) | Self::Awaited(key, _) => Some(key),
            Self::None | Self::Mistaken(_) => None,
        }
    }

    /// What is to be said about it.
    pub(super) fn fault(&self) -> Option<String> {
        match self {
            Self::None | Self::Waypoint(..) => None,
            Self::Awaited(key, problem) => Some(format!(
                "waypoint {key}: {problem}; requests go without one, and policies that read HTTP refuse"
            )),
            Self::Mistaken(problem) => Some(problem.clone()),
        }
    }
}

/// The waypoint that labels of an object choose, else those of its namespace.
pub(super) fn choice(namespace: &str, own: &Labels, inherited: &Labels) -> Option<Choice> {
    let (labels, own) = if own.contains_key(label::USE_WAYPOINT) {
        (own, true)
    } else {
        (inherited, false)
    };
    let name = labels
        .get(label::USE_WAYPOINT)
        .filter(|name| !matches!(name.as_str(), "none" | ""))?;
    let namespace = labels
        .get(label::USE_WAYPOINT_NAMESPACE)
        .map_or(namespace, String::as_str);
    Some(Choice {
        waypoint: ObjectKey::new(namespace, name.as_str()),
        own,
    })
}

/// The account that a waypoint runs under: its own name.
pub(super) fn identity(trust_domain: &str, waypoint: &ObjectKey) -> Option<Identity> {
    Identity::new(trust_domain, &waypoint.namespace, &waypoint.name).ok()
}

/// Where planes dial a waypoint: an endpoint of its own service.
pub(super) fn gateway_address(service: &ObjectKey) -> message::GatewayAddress {
    message::GatewayAddress {
        destination: Some(message::gateway_address::Destination::Hostname(
            message::NamespacedHostname {
                namespace: service.namespace.clone(),
                hostname: hostname(service),
            },
        )),
        hbone_mtls_port: port::HBONE.into(),
    }
}

impl Waypoint {
    fn serves(&self, kind: Kind) -> bool {
        match kind {
            Kind::Service => self.services,
            Kind::Workload => self.workloads,
        }
    }
}

/// Whether a condition of a status holds.
pub(super) fn holds(status: &Value, condition: &str) -> bool {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions
        .into_iter()
        .any(|one| one["type"] == condition && one["status"] == "True")
}

impl Index {
    /// Computes a waypoint again, and marks what uses it where that matters.
    pub(super) fn compute_waypoint(&mut self, key: &ObjectKey) {
        let gateway = self.gateways.get(key);
        let new = gateway
            .filter(|gateway| gateway.class == WAYPOINT_CLASS)
            .map(|gateway| self.judge(key, gateway));
        self.snapshot.reserve(&key.namespace, &key.name, new.is_some());
        if self.waypoints.get(key) != new.as_ref() {
            match new {
                Some(new) => self.waypoints.insert(key.clone(), new),
                None => self.waypoints.remove(key),
            };
            self.mark_users(key);
        }
        self.report_gateway(key);
    }

    fn judge(&self, key: &ObjectKey, gateway: &Gateway) -> Waypoint {
        let serves = gateway.serves.as_deref().unwrap_or("service");
        let listener = match gateway.listeners.as_slice() {
            [one] if one.protocol == "HBONE" && one.port == u64::from(port::HBONE) => Some(one),
            _ => None,
        };
        let programmed = match (serves, listener) {
            ("service" | "workload" | "all", Some(_)) => self.own_service(key, gateway),
            ("service" | "workload" | "all", None) => Err(NotProgrammed::Listeners),
            (other, _) => Err(NotProgrammed::Serves(other.into())),
        };
        Waypoint {
            services: serves != "workload",
            workloads: matches!(serves, "workload" | "all"),
            allowed: listener.map(|one| one.allowed.clone()).unwrap_or_default(),
            programmed,
        }
    }

    fn own_service(&self, key: &ObjectKey, gateway: &Gateway) -> Result<ObjectKey, NotProgrammed> {
        let services = self.services_of_gateway.get(key);
        let hindered = |otherwise| match self.hindrances.get(key) {
            Some(hindrance) => NotProgrammed::Hindered(hindrance.why().to_owned()),
            None => otherwise,
        };
        let service = services
            .and_then(BTreeSet::first)
            .ok_or_else(|| hindered(NotProgrammed::NoService(key.name.clone())))?;
        let slices = self.slices_by_service.get(service).into_iter().flatten();
        let ready = slices
            .filter_map(|slice| self.slices.get(slice))
            .any(|slice| slice.endpoints.iter().any(|endpoint| endpoint.ready));
        if ready || holds(&gateway.status, "Programmed") {
            Ok(service.clone())
        } else {
            Err(hindered(NotProgrammed::NoEndpoint))
        }
    }

    /// The waypoints that are to have pods. What cannot be understood changes nothing of what there is.
    pub fn deployables(&self) -> impl Iterator<Item = Deployable> {
        let class = self.gateway_classes.get(WAYPOINT_CLASS);
        let classed = class.is_some_and(|class| class.controller == GATEWAY_CONTROLLER);
        let valid = self.waypoints.iter().filter(|(_, waypoint)| {
            let problem = waypoint.programmed.as_ref().err();
            !problem.is_some_and(NotProgrammed::is_invalid)
        });
        valid.filter_map(move |(key, _)| {
            let gateway = self.gateways.get(key)?;
            Some(Deployable {
                key: key.clone(),
                uid: gateway.uid.clone(),
                replicas: gateway.replicas().unwrap_or_default(),
                parameters: gateway.parameters.clone(),
                classed,
            })
        })
    }

    /// Everything that names a waypoint, and its own pods and services.
    fn mark_users(&mut self, key: &ObjectKey) {
        self.dirty.pods.extend(self.pods_naming.naming(key).cloned());
        let services: Vec<_> = self.services_naming.naming(key).cloned().collect();
        for service in services {
            self.mark_service(&service);
        }
        self.mark_namespace(&key.namespace);
        let own = self.services_of_gateway.get(key).cloned().unwrap_or_default();
        for service in own {
            self.mark_service(&service);
        }
    }

    /// The waypoint that an object with these labels chooses, whatever comes of it.
    pub(super) fn chosen(&self, key: &ObjectKey, own: &Labels) -> Option<ObjectKey> {
        let choice = choice(&key.namespace, own, self.labels_of(&key.namespace))?;
        Some(choice.waypoint)
    }

    /// The labels of a namespace; of one that is not known, none.
    pub(super) fn labels_of(&self, namespace: &str) -> &Labels {
        static NONE: Labels = Labels::new();
        self.namespaces.get(namespace).map_or(&NONE, |one| &one.labels)
    }

    /// The waypoint that a service uses.
    pub(super) fn service_use(&self, key: &ObjectKey, service: &Service) -> Use {
        let own = service.labels.get(label::GATEWAY_NAME);
        if own.is_some_and(|name| self.is_waypoint(&ObjectKey::new(key.namespace.clone(), name.as_str()))) {
            return Use::None;
        }
        self.use_of(Kind::Service, &key.namespace, &service.labels)
    }

    /// The waypoint that a workload uses for itself, whichever its services do.
    pub(super) fn workload_use(&self, key: &ObjectKey, pod: &Pod) -> Use {
        self.use_of(Kind::Workload, &key.namespace, &pod.labels)
    }

    fn use_of(&self, kind: Kind, namespace: &str, own: &Labels) -> Use {
        let labels = self.labels_of(namespace);
        let Some(choice) = choice(namespace, own, labels) else {
            return Use::None;
        };
        let key = choice.waypoint;
        let Some(waypoint) = self.waypoints.get(&key) else {
            // Without a word of its own a waypoint is for services.
            return match (kind, choice.own) {
                (Kind::Workload, false) => Use::None,
                _ => Use::Awaited(
                    key,
                    format!("there is no Gateway of class {WAYPOINT_CLASS} of this name"),
                ),
            };
        };
        if !waypoint.serves(kind) {
            let what = if waypoint.services {
                "services"
            } else {
                "workloads"
            };
            return match choice.own {
                true => Use::Mistaken(format!("waypoint {key} is for {what} only")),
                false => Use::None,
            };
        }
        if !waypoint.allowed.admits(&key.namespace, namespace, labels) {
            return Use::Mistaken(format!(
                "waypoint {key} does not admit namespace {namespace}: see allowedRoutes of its listener"
            ));
        }
        match &waypoint.programmed {
            Ok(service) => Use::Waypoint(key, service.clone()),
            Err(problem) => Use::Awaited(key, problem.to_string()),
        }
    }

    fn is_waypoint(&self, key: &ObjectKey) -> bool {
        self.waypoints.contains_key(key)
    }

    /// Whether a pod is a waypoint's own: it says so and runs under its account.
    pub(super) fn is_of_waypoint(&self, key: &ObjectKey, pod: &Pod) -> bool {
        pod.labels.get(label::GATEWAY_NAME) == Some(&pod.service_account)
            && self.is_waypoint(&ObjectKey::new(
                key.namespace.clone(),
                pod.service_account.as_str(),
            ))
    }
}
