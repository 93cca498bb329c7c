//! Which objects a mesh has left, and what becomes of pods meanwhile. Pure.

use serde_json::Value;
use trefoil_api::names::{
    API_GROUP, GATEWAY_CONTROLLER, MESH_NAMESPACE, ROOT_CONFIG_MAP, SIDECAR_CONTAINER, WAYPOINT_CLASS,
    annotation, label,
};

use super::kinds::{is_about, list, name, namespace};
use super::{Left, Objects};

/// What begins the names of our labels, annotations, taints and finalizers.
const OURS: &str = "trefoil.dev/";

impl Objects {
    /// What is left, that first which hinders pods.
    pub(crate) fn left(&self) -> Vec<Left> {
        let mut left = Vec::new();
        self.admission(&mut left);
        self.pods(&mut left);
        self.nodes(&mut left);
        self.finalizers(&mut left);
        self.harmless(&mut left);
        left.sort_by(|a, b| (!a.hinders, a).cmp(&(!b.hinders, b)));
        left
    }

    fn admission(&self, left: &mut Vec<Left>) {
        for plural in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
            for object in self.of(plural) {
                let webhooks = list(&object["webhooks"]);
                let ours = |one: &&Value| one["clientConfig"]["service"]["namespace"] == MESH_NAMESPACE;
                if !webhooks.iter().any(|one| ours(&one)) {
                    continue;
                }
                let of_pods =
                    |one: &&Value| one["failurePolicy"] != "Ignore" && is_about(&one["rules"], ("", "pods"));
                let hinders = webhooks.iter().filter(ours).any(|one| of_pods(&one));
                let what = match hinders {
                    true => "nobody answers it any more: no pod is made that it is asked about",
                    false => "nobody answers it any more",
                };
                left.push(cluster_object(hinders, plural, object, what));
            }
        }
        for plural in ["validatingadmissionpolicies", "validatingadmissionpolicybindings"] {
            for object in self.of(plural).filter(|one| name(one).starts_with("trefoil-")) {
                let what =
                    "refuses pods that use accounts of waypoints, and changes of what was made for these";
                left.push(cluster_object(true, plural, object, what));
            }
        }
    }

    fn pods(&self, left: &mut Vec<Left>) {
        for pod in self.of("pods").filter(|one| namespace(one) != MESH_NAMESPACE) {
            let phase = pod["status"]["phase"].as_str().unwrap_or_default();
            if matches!(phase, "Succeeded" | "Failed") {
                continue;
            }
            let (namespace, pod_name) = (namespace(pod), name(pod));
            let mut add = |hinders, what: &str, remove: String| {
                let object = format!("pod/{pod_name} of {namespace}");
                left.push(Left {
                    hinders,
                    object,
                    what: what.into(),
                    remove,
                });
            };
            let spec = &pod["spec"];
            let containers = list(&spec["initContainers"])
                .iter()
                .chain(list(&spec["containers"]));
            let restart = format!("kubectl -n {namespace} delete pod {pod_name}");
            let said = pod["metadata"]["annotations"][annotation::REDIRECTION].as_str();
            if containers.into_iter().any(|one| one["name"] == SIDECAR_CONTAINER) {
                add(
                    true,
                    "still has a sidecar, which gets no certificates any more",
                    restart,
                );
            } else if matches!(said, Some("node" | "sidecar")) {
                let what = "is still redirected, by its annotation: its connections may end nowhere";
                add(true, what, restart);
            } else if said.is_some() {
                let remove = format!(
                    "kubectl -n {namespace} annotate pod {pod_name} {}-",
                    annotation::REDIRECTION
                );
                add(false, "an annotation, which goes with the pod", remove);
            }
        }
        self.unmade(left);
    }

    /// Pods that wait because their node's CNI configuration names what is not there any more. Events are kept for
    /// an hour: those of pods that have started since are of the past.
    fn unmade(&self, left: &mut Vec<Left>) {
        for event in self.of("events") {
            let message = event["message"].as_str().unwrap_or_default();
            if event["reason"] != "FailedCreatePodSandBox" || !message.contains("trefoil-cni") {
                continue;
            }
            let pod = event["involvedObject"]["name"].as_str().unwrap_or_default();
            let waits = |one: &Value| {
                let this = name(one) == pod && namespace(one) == namespace(event);
                this && one["status"]["phase"] == "Pending"
            };
            if !self.of("pods").any(waits) {
                continue;
            }
            let node = event["source"]["host"].as_str().unwrap_or("its node");
            left.push(Left {
                hinders: true,
                object: format!("pod/{pod} of {}", namespace(event)),
                what: format!("could not be made: the CNI configuration of {node} names trefoil-cni"),
                remove: format!(
                    "on {node}: remove the plugin of type trefoil-cni from the file in /etc/cni/net.d"
                ),
            });
        }
    }

    fn nodes(&self, left: &mut Vec<Left>) {
        for node in self.of("nodes") {
            let keys = list(&node["spec"]["taints"])
                .iter()
                .filter_map(|taint| taint["key"].as_str());
            for key in keys.filter(|key| key.starts_with(OURS)) {
                left.push(Left {
                    hinders: true,
                    object: format!("node/{}", name(node)),
                    what: format!("taint {key}: no pod is put there that does not tolerate it"),
                    remove: format!("kubectl taint node {} {key}-", name(node)),
                });
            }
        }
    }

    fn finalizers(&self, left: &mut Vec<Left>) {
        for (plural, object) in &self.held {
            let finalizers = list(&object["metadata"]["finalizers"])
                .iter()
                .filter_map(Value::as_str);
            for finalizer in finalizers.filter(|one| one.starts_with(OURS)) {
                let (namespace, name) = (namespace(object), name(object));
                let at = match namespace {
                    "" => String::new(),
                    namespace => format!("-n {namespace} "),
                };
                left.push(Left {
                    hinders: true,
                    object: format!("{plural}/{name}{}", of(namespace)),
                    what: format!("finalizer {finalizer}: neither it nor its namespace goes when it is deleted"),
                    remove: format!("kubectl {at}patch {plural} {name} --type=merge -p '{{\"metadata\":{{\"finalizers\":null}}}}'"),
                });
            }
        }
    }

    fn harmless(&self, left: &mut Vec<Left>) {
        let groups = self.of("customresourcedefinitions");
        for object in groups.filter(|one| one["spec"]["group"] == API_GROUP) {
            let what = "a kind of the mesh; all objects of it go with it";
            left.push(cluster_object(false, "customresourcedefinitions", object, what));
        }
        for plural in ["priorityclasses", "clusterroles", "clusterrolebindings"] {
            for object in self.of(plural).filter(|one| name(one).starts_with("trefoil-")) {
                left.push(cluster_object(false, plural, object, "of the mesh"));
            }
        }
        for class in self.of("gatewayclasses") {
            if class["spec"]["controllerName"] == GATEWAY_CONTROLLER {
                left.push(cluster_object(
                    false,
                    "gatewayclasses",
                    class,
                    "of the mesh's controller",
                ));
            }
        }
        let waypoints = self
            .of("gateways")
            .filter(|one| one["spec"]["gatewayClassName"] == WAYPOINT_CLASS);
        for gateway in waypoints {
            left.push(namespaced(gateway, "gateway", "a waypoint, and its pods with it"));
        }
        for map in self.of("configmaps").filter(|one| name(one) == ROOT_CONFIG_MAP) {
            left.push(namespaced(map, "configmap", "the mesh's root"));
        }
        for object in self.of("namespaces") {
            if name(object) == MESH_NAMESPACE {
                left.push(cluster_object(
                    false,
                    "namespaces",
                    object,
                    "the mesh's own, with the authority's key",
                ));
            }
            left.extend(labels(object, "namespace", ""));
        }
        for object in self.of("services").filter(|one| namespace(one) != MESH_NAMESPACE) {
            left.extend(labels(object, "service", namespace(object)));
        }
    }
}

/// Labels of ours that users have set: a mesh that is installed again goes by them.
fn labels(object: &Value, kind: &str, namespace: &str) -> Vec<Left> {
    let at = match namespace {
        "" => String::new(),
        namespace => format!("-n {namespace} "),
    };
    let labels = object["metadata"]["labels"].as_object();
    let keys = labels.into_iter().flat_map(|labels| labels.keys());
    keys.filter(|key| key.starts_with(OURS) && *key != label::MANAGED_BY)
        .map(|key| Left {
            hinders: false,
            object: format!("{kind}/{}{}", name(object), of(namespace)),
            what: format!("label {key}, by which a mesh that is installed again would go"),
            remove: format!("kubectl {at}label {kind} {} {key}-", name(object)),
        })
        .collect()
}

fn cluster_object(hinders: bool, plural: &str, object: &Value, what: &str) -> Left {
    Left {
        hinders,
        object: format!("{plural}/{}", name(object)),
        what: what.into(),
        remove: format!("kubectl delete {plural} {}", name(object)),
    }
}

fn namespaced(object: &Value, kind: &str, what: &str) -> Left {
    let (namespace, name) = (namespace(object), name(object));
    Left {
        hinders: false,
        object: format!("{kind}/{name}{}", of(namespace)),
        what: what.into(),
        remove: format!("kubectl -n {namespace} delete {kind} {name}"),
    }
}

fn of(namespace: &str) -> String {
    match namespace {
        "" => String::new(),
        namespace => format!(" of {namespace}"),
    }
}
