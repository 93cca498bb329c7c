//! What is in a cluster beside its nodes that the mesh would meet. All but `tried` is pure.

use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use trefoil_api::names::{MESH_NAMESPACE, label};

use super::Looked;
use super::nodes::at_least;
use crate::check::versions::parsed;
use crate::uninstall::{Objects, is_about, list, name, namespace};

/// Admission policies are asked for, and DaemonSets that surge.
const API: (u32, u32) = (1, 30);
/// Routes for services.
const GATEWAY_API: (u32, u32) = (1, 1);
/// Groups of other meshes' kinds.
const MESHES: [(&str, &str); 5] = [
    ("istio.io", "Istio"),
    ("linkerd.io", "Linkerd"),
    ("kuma.io", "Kuma"),
    ("consul.hashicorp.com", "Consul"),
    ("openservicemesh.io", "Open Service Mesh"),
];
/// Network plugins by their DaemonSets, and whether they enforce NetworkPolicies.
const PLUGINS: [(&str, bool); 11] = [
    ("calico-node", true),
    ("canal", true),
    ("cilium", true),
    ("antrea-agent", true),
    ("kube-router", true),
    ("ovnkube-node", true),
    ("weave-net", true),
    ("kindnet", true),
    ("aws-node", true),
    ("azure-cns", false),
    ("kube-flannel-ds", false),
];
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// The API server's version.
pub(super) fn version(version: &str) -> Looked {
    at_least("API server", version, API, "upgrade Kubernetes first")
}

/// What objects say.
pub(super) fn judged(objects: &Objects) -> Vec<Looked> {
    let mut looked = vec![gateway_api(objects), pod_security(objects)];
    looked.extend(network_plugin(objects));
    looked.extend(other_meshes(objects));
    looked.extend(earlier(objects));
    looked.extend(quotas(objects));
    looked.extend(admission(objects));
    looked
}

/// What nobody knows before an installation.
pub(super) fn unknowable() -> Vec<Looked> {
    vec![Looked::unknown(
        "reach of the webhook",
        "whether the API server reaches port 15017 of pods: a firewall between the two is seen once the control plane runs, by `trefoilctl check`",
    )]
}

fn gateway_api(objects: &Objects) -> Looked {
    let at = "Gateway API";
    let install =
        "install the standard definitions of a release from v1.1 on; the control plane notices by itself";
    if objects.unseen().contains("customresourcedefinitions") {
        return Looked::unknown(at, "definitions of kinds are not for you to see");
    }
    let mut definitions = objects.of("customresourcedefinitions");
    let Some(gateways) = definitions.find(|one| name(one) == "gateways.gateway.networking.k8s.io") else {
        return Looked::odd(
            at,
            "not there: waypoints and routes need it, and nothing else",
            install,
        );
    };
    let version = gateways["metadata"]["annotations"]["gateway.networking.k8s.io/bundle-version"].as_str();
    match version.map(|version| (version, parsed(version))) {
        Some((version, Some(parsed))) if parsed >= GATEWAY_API => Looked::good(at, version),
        Some((version, Some(_))) => {
            Looked::odd(at, format!("{version}: routes are not for services yet"), install)
        }
        _ => Looked::unknown(at, "there, in a version that it does not say"),
    }
}

fn pod_security(objects: &Objects) -> Looked {
    let at = "Pod Security";
    let command = format!("kubectl label namespace {MESH_NAMESPACE} --overwrite {ENFORCE}=privileged");
    if objects.unseen().contains("namespaces") {
        return Looked::unknown(at, "namespaces are not for you to see");
    }
    let ours = objects.of("namespaces").find(|one| name(one) == MESH_NAMESPACE);
    let Some(ours) = ours else {
        return Looked::unknown(
            at,
            format!("namespace {MESH_NAMESPACE} is not there yet: where Pod Security is enforced unless said otherwise, agents and node proxies are refused"),
        )
        .with(format!("kubectl create namespace {MESH_NAMESPACE}; {command}"));
    };
    match ours["metadata"]["labels"][ENFORCE].as_str() {
        Some("privileged") => Looked::good(at, format!("{MESH_NAMESPACE} may run agents and node proxies")),
        Some(level) => Looked::bad(
            at,
            format!("{MESH_NAMESPACE} is {level}: agents and node proxies are refused"),
            command,
        ),
        None => Looked::unknown(
            at,
            format!("{MESH_NAMESPACE} says nothing, so that what the API server's configuration says holds"),
        )
        .with(command),
    }
}

fn network_plugin(objects: &Objects) -> Vec<Looked> {
    let at = "network plugin";
    let mut looked = Vec::new();
    for set in objects.of("daemonsets") {
        let Some((plugin, enforces)) = PLUGINS.iter().find(|(plugin, _)| name(set) == *plugin) else {
            continue;
        };
        let policies = match enforces {
            true => "can enforce NetworkPolicies: `trefoilctl check` finds those that block tunnels",
            false => "enforces no NetworkPolicies by itself",
        };
        looked.push(Looked::good(at, format!("{plugin}, which {policies}")));
    }
    if looked.is_empty() {
        looked.push(Looked::unknown(
            at,
            "none that is known: agents chain themselves into whatever /etc/cni/net.d of their node holds",
        ));
    }
    let cilium = objects
        .of("configmaps")
        .find(|one| name(one) == "cilium-config")
        .map(|one| &one["data"]);
    let says = |key: &str| cilium.and_then(|data| data[key].as_str());
    if cilium.is_some() && says("cni-exclusive") != Some("false") {
        looked.push(Looked::bad(
            at,
            "Cilium removes every other plugin's configuration (cni-exclusive)",
            "Helm value cni.exclusive=false of Cilium",
        ));
    }
    if says("bpf-lb-sock") == Some("true") && says("bpf-lb-sock-hostns-only") != Some("true") {
        looked.push(Looked::odd(
            at,
            "Cilium replaces service addresses inside pods, before the mesh sees them: what goes to a service is taken for what goes to a pod",
            "Helm value socketLB.hostNamespaceOnly=true of Cilium",
        ));
    }
    looked
}

fn other_meshes(objects: &Objects) -> Vec<Looked> {
    let groups = |of: &str| {
        let mut definitions = objects.of("customresourcedefinitions");
        definitions.any(|one| {
            one["spec"]["group"]
                .as_str()
                .is_some_and(|group| group == of || group.ends_with(&format!(".{of}")))
        })
    };
    let present = MESHES.iter().filter(|(group, _)| groups(group));
    let mut looked: Vec<Looked> = present
        .map(|(_, mesh)| {
            Looked::odd("other meshes", format!("{mesh} is or was here"), format!("a pod may be in one mesh only: take its namespaces out of {mesh} before they get the label {}", label::DATAPLANE_MODE))
        })
        .collect();
    for one in objects.of("namespaces") {
        let metadata = &one["metadata"];
        let ours = !matches!(
            metadata["labels"][label::DATAPLANE_MODE].as_str(),
            None | Some("none")
        );
        let theirs = metadata["labels"]["istio-injection"] == "enabled"
            || metadata["labels"]["istio.io/dataplane-mode"] == "ambient"
            || metadata["labels"]["istio.io/rev"].is_string()
            || metadata["annotations"]["linkerd.io/inject"] == "enabled";
        if ours && theirs {
            looked.push(Looked::bad(
                "other meshes",
                format!("namespace {} is to be in two meshes", name(one)),
                format!("kubectl label namespace {} {}-", name(one), label::DATAPLANE_MODE),
            ));
        }
    }
    looked
}

fn earlier(objects: &Objects) -> Vec<Looked> {
    let at = "earlier Trefoil";
    if objects.is_installed() {
        return vec![Looked::odd(
            at,
            "the mesh is installed already",
            "what is here is of an upgrade: `trefoilctl check` looks at what runs",
        )];
    }
    let left = objects.left();
    let (hindering, harmless): (Vec<_>, Vec<_>) = left.into_iter().partition(|one| one.hinders);
    let mut looked: Vec<Looked> = hindering
        .into_iter()
        .map(|one| Looked::bad(at, format!("{}: {}", one.object, one.what), one.remove))
        .collect();
    if !harmless.is_empty() {
        looked.push(Looked::good(
            at,
            format!(
                "{} harmless traces: `trefoilctl uninstall --check` lists them",
                harmless.len()
            ),
        ));
    }
    looked
}

fn quotas(objects: &Objects) -> Vec<Looked> {
    let ours = objects
        .of("resourcequotas")
        .filter(|one| namespace(one) == MESH_NAMESPACE);
    ours.map(|quota| {
        Looked::odd(
            "quotas",
            format!(
                "{} bounds {MESH_NAMESPACE}: {}",
                name(quota),
                quota["spec"]["hard"]
            ),
            "it must leave room for an agent and two node proxies (one while it is upgraded) on every node",
        )
    })
    .collect()
}

/// Whoever is asked about pods of the mesh's own namespace, and by being away or by what it says may refuse them.
fn admission(objects: &Objects) -> Vec<Looked> {
    let mut looked = Vec::new();
    for plural in ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"] {
        for configuration in objects.of(plural) {
            let foreign = |one: &&Value| one["clientConfig"]["service"]["namespace"] != MESH_NAMESPACE;
            let closed = |one: &&Value| {
                one["failurePolicy"] != "Ignore" && concerns(&one["rules"]) && !is_excluded(one)
            };
            let webhooks = list(&configuration["webhooks"]).iter().filter(foreign);
            let names: Vec<_> = webhooks
                .filter(closed)
                .filter_map(|one| one["name"].as_str())
                .collect();
            if !names.is_empty() {
                looked.push(Looked::odd(
                    "admission",
                    format!("{} is asked about pods of {MESH_NAMESPACE}: while nobody answers it ({}), nothing of the mesh starts", name(configuration), names.join(", ")),
                    format!("exclude the namespace: namespaceSelector kubernetes.io/metadata.name NotIn [{MESH_NAMESPACE}]"),
                ));
            }
        }
    }
    let foreign = objects
        .of("validatingadmissionpolicies")
        .filter(|one| !name(one).starts_with("trefoil-"));
    let foreign = foreign.filter(|one| concerns(&one["spec"]["matchConstraints"]["resourceRules"]));
    let names: Vec<_> = foreign.map(name).collect();
    if !names.is_empty() {
        looked.push(Looked::unknown(
            "admission",
            format!(
                "policies of others about pods or DaemonSets, which may refuse privileged ones: {}",
                names.join(", ")
            ),
        ));
    }
    looked
}

fn concerns(rules: &Value) -> bool {
    let kinds = [("", "pods"), ("apps", "daemonsets"), ("apps", "deployments")];
    kinds.iter().any(|kind| is_about(rules, *kind))
}

/// A webhook that is not asked about the mesh's namespace, as far as its selector says so by name.
fn is_excluded(webhook: &Value) -> bool {
    let selector = &webhook["namespaceSelector"];
    let required = selector["matchLabels"]
        .as_object()
        .is_some_and(|labels| !labels.is_empty());
    let expressions = list(&selector["matchExpressions"]);
    let excluding = |one: &Value| {
        let named = list(&one["values"]).iter().any(|value| value == MESH_NAMESPACE);
        let by_name = one["key"] == "kubernetes.io/metadata.name";
        (one["operator"] == "NotIn" && by_name && named)
            || matches!(one["operator"].as_str(), Some("In" | "Exists")) && !(by_name && named)
    };
    required || expressions.iter().any(excluding)
}

/// What an agent asks for, as a dry run: everything that admission has to say about it is said now.
pub(super) async fn tried(client: &Client, objects: &Objects) -> anyhow::Result<Vec<Looked>> {
    let at = "a privileged pod";
    if !objects.of("namespaces").any(|one| name(one) == MESH_NAMESPACE) {
        return Ok(vec![Looked::unknown(
            at,
            format!("whether it is admitted is tried once namespace {MESH_NAMESPACE} is there"),
        )]);
    }
    let pod = serde_json::from_value(json!({
        "metadata": { "generateName": "trefoil-check-" },
        "spec": {
            "automountServiceAccountToken": false, "hostPID": true, "priorityClassName": "system-node-critical",
            "containers": [{ "name": "none", "image": "trefoil.dev/check", "securityContext": { "privileged": true } }],
            "volumes": [{ "name": "net", "hostPath": { "path": "/etc/cni/net.d" } }],
        },
    }))?;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let pods = Api::<Pod>::namespaced(client.clone(), MESH_NAMESPACE);
    Ok(vec![match pods.create(&dry_run, &pod).await {
        Ok(_) => Looked::good(at, format!("is admitted in {MESH_NAMESPACE}")),
        Err(kube::Error::Api(status)) if status.message.contains("cannot create resource") => {
            Looked::unknown(at, format!("not for you to try: {}", status.message))
        }
        Err(kube::Error::Api(status)) => Looked::bad(
            at,
            status.message.clone(),
            "let what refuses it admit agents and node proxies of the mesh",
        ),
        Err(error) => return Err(error.into()),
    }])
}
