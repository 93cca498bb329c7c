//! What of the Gateway API's objects the index looks at. They are read as they are: one that is malformed must
//! not hide the others.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::core::DynamicObject;
use serde_json::Value;
use trefoil_api::names::{annotation, label};

use super::{Labels, selector_selects};

/// Of a Gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gateway {
    /// Its uid.
    pub uid: String,
    /// Its class.
    pub class: String,
    /// What it serves as a waypoint, as its label says it; none if it does not say.
    pub serves: Option<String>,
    /// Its listeners.
    pub listeners: Vec<Listener>,
    /// How many pods it is to have as a waypoint, as its annotation says it; none if it does not say.
    pub replicas: Option<String>,
    /// What holds more of what it says as a waypoint.
    pub parameters: Option<ParametersReference>,
    /// Generation.
    pub generation: i64,
    /// What its status says.
    pub status: Value,
}

/// An object of a Gateway's namespace that holds parameters (Gateway API, LocalParametersReference).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParametersReference {
    /// Its group; of the core, empty.
    pub group: String,
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// An annotation that is not a number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {name}: {0:?} is not a number of pods: their number is left as it is", name = annotation::REPLICAS)]
pub struct NotReplicas(String);

/// Of a listener of a Gateway.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// Its port.
    pub port: u64,
    /// Its protocol.
    pub protocol: String,
    /// Whose namespaces may use it.
    pub allowed: Allowed,
}

/// The namespaces that may use a listener.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Allowed {
    /// The Gateway's own.
    #[default]
    Same,
    /// All.
    All,
    /// Those with such labels.
    Selected(LabelSelector),
}

/// Of a GatewayClass.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayClass {
    /// Who answers for it.
    pub controller: String,
    /// Generation.
    pub generation: i64,
    /// What its status says.
    pub status: Value,
}

/// Of an HTTPRoute or a GRPCRoute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteObject {
    /// The object, as far as `spec`.
    pub object: Value,
    /// Generation.
    pub generation: i64,
    /// When it was made, seconds since 1970.
    pub created: i64,
    /// What its status says.
    pub status: Value,
}

/// Of a ReferenceGrant: who may refer to what in its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// Group, kind and namespace of those who refer.
    pub from: Vec<(String, String, String)>,
    /// Group, kind and name of what is referred to; without a name, all of the kind.
    pub to: Vec<(String, String, Option<String>)>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

impl From<&DynamicObject> for Gateway {
    fn from(object: &DynamicObject) -> Self {
        let spec = &object.data["spec"];
        let listeners = items(&spec["listeners"]).map(|one| Listener {
            name: text(&one["name"]),
            port: one["port"].as_u64().unwrap_or_default(),
            protocol: text(&one["protocol"]),
            allowed: Allowed::of(&one["allowedRoutes"]["namespaces"]),
        });
        Self {
            uid: object.uid().unwrap_or_default(),
            class: text(&spec["gatewayClassName"]),
            serves: object.labels().get(label::WAYPOINT_FOR).cloned(),
            listeners: listeners.collect(),
            replicas: object.annotations().get(annotation::REPLICAS).cloned(),
            parameters: spec
                .pointer("/infrastructure/parametersRef")
                .filter(|one| one.is_object())
                .map(|one| ParametersReference {
                    group: text(&one["group"]),
                    kind: text(&one["kind"]),
                    name: text(&one["name"]),
                }),
            generation: object.metadata.generation.unwrap_or_default(),
            status: object.data["status"].clone(),
        }
    }
}

impl Gateway {
    /// How many pods it is to have, if it says so.
    pub fn replicas(&self) -> Result<Option<u32>, NotReplicas> {
        let Some(said) = &self.replicas else {
            return Ok(None);
        };
        said.parse().map(Some).map_err(|_| NotReplicas(said.clone()))
    }
}

impl Allowed {
    /// What is not understood admits nobody else.
    fn of(namespaces: &Value) -> Self {
        match namespaces["from"].as_str() {
            Some("All") => Self::All,
            Some("Selector") => {
                let selector = serde_json::from_value(namespaces["selector"].clone());
                selector.map_or(Self::Same, Self::Selected)
            }
            _ => Self::Same,
        }
    }

    /// Whether a namespace may use it.
    #[must_use]
    pub fn admits(&self, own: &str, namespace: &str, labels: &Labels) -> bool {
        own == namespace
            || match self {
                Self::Same => false,
                Self::All => true,
                Self::Selected(selector) => selector_selects(selector, labels),
            }
    }
}

impl From<&DynamicObject> for GatewayClass {
    fn from(object: &DynamicObject) -> Self {
        Self {
            controller: text(&object.data["spec"]["controllerName"]),
            generation: object.metadata.generation.unwrap_or_default(),
            status: object.data["status"].clone(),
        }
    }
}

impl From<&DynamicObject> for RouteObject {
    fn from(object: &DynamicObject) -> Self {
        let mut only_spec = serde_json::Map::new();
        if let Some(spec) = object.data.get("spec") {
            only_spec.insert("spec".into(), spec.clone());
        }
        let created = object.metadata.creation_timestamp.as_ref();
        Self {
            object: only_spec.into(),
            generation: object.metadata.generation.unwrap_or_default(),
            created: created.map_or(0, |time| time.0.as_second()),
            status: object.data["status"].clone(),
        }
    }
}

impl From<&DynamicObject> for ReferenceGrant {
    fn from(object: &DynamicObject) -> Self {
        let spec = &object.data["spec"];
        let from = items(&spec["from"])
            .map(|one| (text(&one["group"]), text(&one["kind"]), text(&one["namespace"])));
        let to = items(&spec["to"]).map(|one| {
            let name = one["name"].as_str().map(str::to_owned);
            (text(&one["group"]), text(&one["kind"]), name)
        });
        Self {
            from: from.collect(),
            to: to.collect(),
        }
    }
}

impl ReferenceGrant {
    /// Whether it lets objects of a kind and a namespace refer to a Service of its own namespace.
    #[must_use]
    pub fn permits(&self, group: &str, kind: &str, namespace: &str, service: &str) -> bool {
        let from = |one: &(String, String, String)| one.0 == group && one.1 == kind && one.2 == namespace;
        let to = |one: &(String, String, Option<String>)| {
            one.0.is_empty() && one.1 == "Service" && one.2.as_deref().is_none_or(|name| name == service)
        };
        self.from.iter().any(from) && self.to.iter().any(to)
    }
}
