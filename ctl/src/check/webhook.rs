//! Whether the API server reaches the mesh's webhook, which every new pod waits for. It is asked as a pod would ask
//! it: by a pod that is made as a dry run, and is never there.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::json;
use trefoil_api::names::{MESH_NAMESPACE, ROOT_CONFIG_MAP, ROOT_KEY, SIDECAR_CONTAINER, label};

use super::listed;
use crate::look;
use crate::planes::Planes;

#[cfg(test)]
mod tests;

/// A finding and its remedy.
type Found = (String, String);

/// What is found. A mesh on one machine has no webhook.
pub(super) async fn findings(planes: &Planes, unseen: &mut Vec<String>) -> anyhow::Result<Vec<Found>> {
    if planes.local().is_some() {
        return Ok(Vec::new());
    }
    let namespaces: Vec<Namespace> = listed(planes, "Namespaces", unseen).await?;
    let configurations: Vec<MutatingWebhookConfiguration> =
        listed(planes, "MutatingWebhookConfigurations", unseen).await?;
    let ours = configurations
        .iter()
        .flat_map(|one| one.webhooks.iter().flatten());
    let ours: Vec<_> = ours
        .filter(|webhook| {
            let service = webhook.client_config.service.as_ref();
            service.is_some_and(|service| service.namespace == MESH_NAMESPACE)
        })
        .collect();
    if ours.is_empty() {
        return Ok(missing(&namespaces));
    }
    let mut found = Vec::new();
    let roots = roots(planes, unseen).await?;
    for webhook in ours {
        let bundle = webhook
            .client_config
            .ca_bundle
            .as_ref()
            .map(|bundle| bundle.0.as_slice());
        found.extend(strange_bundle(
            &webhook.name,
            bundle.unwrap_or_default(),
            roots.as_deref(),
        ));
        let service = webhook
            .client_config
            .service
            .as_ref()
            .map(|service| service.name.as_str());
        found.extend(unready(planes, service.unwrap_or_default(), unseen).await?);
    }
    found.extend(tried(planes, &namespaces, unseen).await);
    Ok(found)
}

/// Nobody injects, and somebody is to be injected.
fn missing(namespaces: &[Namespace]) -> Vec<Found> {
    let sidecar = |one: &&Namespace| mode(one) == Some("sidecar");
    let names = namespaces.iter().filter(sidecar).map(ResourceExt::name_any);
    names
        .map(|name| {
            (
                format!("namespace {name} is to have sidecars, and no webhook injects them"),
                "install the webhook of the mesh, then restart the namespace's pods".to_owned(),
            )
        })
        .collect()
}

fn mode(namespace: &Namespace) -> Option<&str> {
    namespace.labels().get(label::DATAPLANE_MODE).map(String::as_str)
}

async fn roots(planes: &Planes, unseen: &mut Vec<String>) -> anyhow::Result<Option<String>> {
    let maps = Api::<ConfigMap>::namespaced(planes.client().clone(), MESH_NAMESPACE);
    let map = look::may(maps.get_opt(ROOT_CONFIG_MAP).await, "the mesh's root", unseen)?;
    Ok(map.flatten().and_then(|map| map.data?.remove(ROOT_KEY)))
}

/// The API server is told to believe somebody else than the control plane's root.
fn strange_bundle(webhook: &str, bundle: &[u8], roots: Option<&str>) -> Option<Found> {
    let certificates = |pem: &[u8]| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem)
            .filter_map(Result::ok)
            .collect()
    };
    let roots = certificates(roots?.as_bytes());
    let believed = certificates(bundle).iter().any(|one| roots.contains(one));
    (!believed).then(|| {
        (
            format!("webhook {webhook}: its caBundle holds none of the roots that the control plane hands out, so that the API server refuses its certificate"),
            format!("put what ConfigMap {MESH_NAMESPACE}/{ROOT_CONFIG_MAP} holds into the webhook's caBundle"),
        )
    })
}

async fn unready(planes: &Planes, service: &str, unseen: &mut Vec<String>) -> anyhow::Result<Option<Found>> {
    let slices = Api::<EndpointSlice>::namespaced(planes.client().clone(), MESH_NAMESPACE);
    let Some(slices) = look::may(
        slices.list(&ListParams::default()).await,
        "the webhook's endpoints",
        unseen,
    )?
    else {
        return Ok(None);
    };
    let of_service = |slice: &&EndpointSlice| {
        let named = slice.labels().get("kubernetes.io/service-name");
        named.is_some_and(|name| name == service)
    };
    let slices = slices.iter().filter(of_service);
    let mut endpoints = slices.flat_map(|slice| slice.endpoints.iter().flatten());
    let ready = endpoints.any(|one| one.conditions.as_ref().and_then(|state| state.ready) != Some(false));
    Ok((!ready).then(|| {
        (
            format!("Service {MESH_NAMESPACE}/{service} of the webhook has no ready endpoint: new pods wait"),
            format!("`kubectl -n {MESH_NAMESPACE} get pods` shows what keeps the control plane"),
        )
    }))
}

/// A namespace that is to have sidecars, else one in the mesh, else any: all but the system's are asked about.
fn namespace(all: &[Namespace]) -> Option<&Namespace> {
    let of = |wanted: &str| all.iter().find(|one| mode(one) == Some(wanted));
    let any = || all.iter().find(|one| one.name_any() == "default");
    of("sidecar").or_else(|| of("ambient")).or_else(any)
}

async fn tried(planes: &Planes, namespaces: &[Namespace], unseen: &mut Vec<String>) -> Option<Found> {
    let namespace = namespace(namespaces)?;
    let name = namespace.name_any();
    let pods = Api::<Pod>::namespaced(planes.client().clone(), &name);
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match pods.create(&dry_run, &pod()).await {
        Ok(pod) => {
            let containers = pod
                .spec
                .iter()
                .flat_map(|spec| spec.init_containers.iter().flatten());
            let injected = containers.into_iter().any(|one| one.name == SIDECAR_CONTAINER);
            (mode(namespace) == Some("sidecar") && !injected).then(|| {
                (
                    format!("a pod that is made in namespace {name} now gets no sidecar, although its mode is sidecar"),
                    "see that the webhook's namespaceSelector and rules take in this namespace, and the control plane's log".to_owned(),
                )
            })
        }
        Err(kube::Error::Api(status)) => match judged(&name, &status.message) {
            Ok(found) => Some(found),
            Err(why) => {
                unseen.push(why);
                None
            }
        },
        Err(error) => {
            unseen.push(format!("whether the API server reaches the webhook: {error}"));
            None
        }
    }
}

/// A pod that nothing should refuse: it asks for nothing.
fn pod() -> Pod {
    let pod = json!({
        "metadata": { "generateName": "trefoil-check-" },
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
            "containers": [{
                "name": "none", "image": "trefoil.dev/check",
                "resources": { "requests": { "cpu": "1m", "memory": "1Mi" }, "limits": { "cpu": "1m", "memory": "1Mi" } },
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    });
    // What is written above is a pod.
    serde_json::from_value(pod).unwrap_or_default()
}

/// What a refusal of the dry run says about our webhook; an error where it says nothing of it.
fn judged(namespace: &str, message: &str) -> Result<Found, String> {
    let of_ours = message.contains(".trefoil.dev\"");
    if of_ours && message.contains("failed calling webhook") {
        return Ok((
            format!("the API server does not reach the webhook, so that pods of namespace {namespace} cannot be made: {message}"),
            "see that its Service has ready endpoints, that NetworkPolicies and firewalls let the API server reach port 15017 of the control plane's pods, and that its caBundle holds the mesh's root".to_owned(),
        ));
    }
    if of_ours && message.contains("denied the request") {
        return Ok((
            format!("the webhook refuses every pod of namespace {namespace}: {message}"),
            "as it says; the control plane's log says more".to_owned(),
        ));
    }
    Err(format!(
        "whether the API server reaches the webhook: a dry run of a pod in namespace {namespace} ended before that: {message}"
    ))
}
