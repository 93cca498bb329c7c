//! What a waypoint consists of on Kubernetes: a service account, a Service, a Deployment, what keeps an eviction from
//! taking all of its pods at once, and an autoscaler where there are bounds for one; all of its Gateway's name, and gone
//! with it. Pure.

pub mod parameters;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, ObjectMeta};
use serde_json::{Value, json};
use trefoil_api::names::{MANAGER, WAYPOINT_CONTAINER, label, port, uid};
use trefoil_api::routes::GATEWAY_GROUP;

use crate::plane_pod;
use parameters::{Autoscaling, Parameters};
use trefoil_control_plane_index::Deployable;

#[cfg(test)]
mod tests;

/// Seconds that a pod serves on, unready, before it is told to end: its clients hear of that first.
const LEAVE: u32 = 5;
/// Seconds that its connections have then to end by themselves.
const DRAIN: u32 = 30;

/// What waypoints' pods are made by.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The image.
    pub image: String,
    /// When it is pulled; none: as the API server sees fit.
    pub pull_policy: Option<String>,
}

/// An object that is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Its kind.
    pub kind: ApiResource,
    /// What of it is ours to say.
    pub object: Value,
}

/// Whose an object is that has the name of a wanted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The Gateway's.
    Ours,
    /// Another Gateway's, of the same name, that was before.
    Earlier,
    /// Somebody else's.
    Foreign,
}

/// The objects, in the order in which they are to be made.
#[must_use]
pub fn wanted(
    waypoint: &Deployable,
    parameters: &Parameters,
    settings: &Settings,
    trust_domain: &str,
) -> Vec<Wanted> {
    let name = &waypoint.key.name;
    let labels = json!({ label::GATEWAY_NAME: name, label::MANAGED_BY: MANAGER });
    let selector = json!({ label::GATEWAY_NAME: name });
    let owner = json!([{
        "apiVersion": format!("{GATEWAY_GROUP}/v1"), "kind": "Gateway", "name": name, "uid": waypoint.uid,
        "controller": true,
    }]);
    let object = |kind: ApiResource, content: Value| {
        let metadata = json!({
            "name": name, "namespace": waypoint.key.namespace, "labels": labels, "ownerReferences": owner,
        });
        let mut object = json!({ "apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata });
        json_patch::merge(&mut object, &content);
        Wanted { kind, object }
    };
    let mut deployment = json!({
        "selector": { "matchLabels": selector },
        // The new one is ready before the old one leaves.
        "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
        "template": {
            "metadata": { "labels": labels },
            "spec": pod(waypoint, parameters, settings, trust_domain),
        },
    });
    let replicas = waypoint.replicas.or(parameters.replicas);
    // Where an autoscaler says it, nobody else does.
    if let (Some(replicas), None) = (replicas, parameters.autoscaling) {
        deployment["replicas"] = replicas.into();
    }
    let mut objects = vec![
        object(
            ApiResource::erase::<ServiceAccount>(&()),
            json!({ "automountServiceAccountToken": false }),
        ),
        object(
            ApiResource::erase::<Service>(&()),
            json!({ "spec": {
                "selector": selector,
                "ipFamilyPolicy": "PreferDualStack",
                "ports": [{ "name": "mesh", "port": port::HBONE, "targetPort": port::HBONE, "protocol": "TCP" }],
            } }),
        ),
        object(
            ApiResource::erase::<Deployment>(&()),
            json!({ "spec": deployment }),
        ),
        // A node can be drained also where there is one pod.
        object(
            ApiResource::erase::<PodDisruptionBudget>(&()),
            json!({ "spec": { "maxUnavailable": 1, "selector": { "matchLabels": selector } } }),
        ),
    ];
    objects.extend(parameters.autoscaling.map(|bounds| {
        let spec = autoscaler(name, bounds);
        object(autoscaler_kind(), json!({ "spec": spec }))
    }));
    objects
}

/// Of autoscalers.
#[must_use]
pub fn autoscaler_kind() -> ApiResource {
    ApiResource::erase::<HorizontalPodAutoscaler>(&())
}

fn autoscaler(name: &str, bounds: Autoscaling) -> Value {
    json!({
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": name },
        "minReplicas": bounds.least,
        "maxReplicas": bounds.most,
        "metrics": [{
            "type": "Resource",
            "resource": {
                "name": "cpu",
                "target": { "type": "Utilization", "averageUtilization": bounds.cpu },
            },
        }],
    })
}

fn pod(waypoint: &Deployable, parameters: &Parameters, settings: &Settings, trust_domain: &str) -> Value {
    let name = &waypoint.key.name;
    let mut arguments = plane_pod::arguments(trust_domain);
    arguments.extend([format!("--gateway={name}"), format!("--drain-deadline={DRAIN}")]);
    arguments.extend(parameters.container.arguments());
    let mut ports = vec![json!({ "name": "mesh", "containerPort": port::HBONE, "protocol": "TCP" })];
    ports.extend(plane_pod::ports());
    let mut container = json!({
        "name": WAYPOINT_CONTAINER,
        "image": settings.image,
        "args": arguments,
        "env": plane_pod::environment(),
        "ports": ports,
        "readinessProbe": plane_pod::probe(3, 2),
        "lifecycle": { "preStop": { "sleep": { "seconds": LEAVE } } },
        "securityContext": plane_pod::security(uid::WAYPOINT),
        "resources": parameters.container.resources("50m", "64Mi"),
        "volumeMounts": plane_pod::mounts(),
    });
    if let Some(policy) = &settings.pull_policy {
        container["imagePullPolicy"] = policy.as_str().into();
    }
    json!({
        "serviceAccountName": name,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": LEAVE + DRAIN + 5,
        "securityContext": { "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } },
        "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{
            "weight": 100,
            "podAffinityTerm": {
                "topologyKey": "kubernetes.io/hostname",
                "labelSelector": { "matchLabels": { label::GATEWAY_NAME: name } },
            },
        }] } },
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "topology.kubernetes.io/zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": { label::GATEWAY_NAME: name } },
        }],
        "containers": [container],
        "volumes": plane_pod::volumes(),
    })
}

/// Whose an object is. Nobody but us may write the label; a reference alone is anybody's to write.
#[must_use]
pub fn owner(object: &ObjectMeta, uid: &str) -> Owner {
    let labels = object.labels.as_ref();
    let made = labels
        .and_then(|labels| labels.get(label::MANAGED_BY))
        .map(String::as_str)
        == Some(MANAGER);
    let by_gateway = |one: &&OwnerReference| one.kind == "Gateway" && one.controller == Some(true);
    let owner = object.owner_references.iter().flatten().find(by_gateway);
    match owner {
        Some(owner) if made && owner.uid == uid => Owner::Ours,
        Some(_) if made => Owner::Earlier,
        _ => Owner::Foreign,
    }
}
