//! The life of a pod: object, namespace, CNI, sidecar, program, and back. What a kubelet and a container
//! runtime do between them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::Context;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service};
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use trefoil_api::names::{MESH_CONFIG, MESH_NAMESPACE, SIDECAR_CONTAINER, uid};
use trefoil_api::plane::{PodFacts, wants_sidecar};

use super::daemon::Daemon;
use super::enter::{Enter, Privilege};
use super::mesh::{NETNS_ROOT, Node};
use super::network::{self, PodAddresses};
use super::objects::{self, TokenOwner};
use super::protocol::{PodRequest, ServiceRequest};
use super::{cni, hosts, sidecar};

/// Where programs find the root of the mesh's certificates.
pub(crate) const ROOT_MOUNT: &str = "/run/secrets/trefoil-ca";

/// A pod that has been made and not yet been removed.
#[derive(Clone, Debug)]
pub(crate) struct MadePod {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
    /// The uid of its object.
    pub(crate) uid: String,
    /// Its network namespace.
    pub(crate) netns: String,
    /// Its addresses.
    pub(crate) addresses: PodAddresses,
    /// It was created with a sidecar.
    pub(crate) sidecar: bool,
    /// Its service account.
    pub(crate) account: String,
    /// Its user, unless root.
    pub(crate) user: Option<(u32, u32)>,
}

impl MadePod {
    /// Where its network namespace is.
    pub(crate) fn netns_path(&self) -> PathBuf {
        Path::new(NETNS_ROOT).join(&self.netns)
    }

    /// Its node.
    pub(crate) fn node(&self) -> Node {
        Node(self.addresses.node)
    }

    /// Whose token its sidecar has.
    pub(crate) fn token_owner(&self) -> TokenOwner {
        TokenOwner {
            namespace: self.namespace.clone(),
            account: self.account.clone(),
            pod: self.name.clone(),
            uid: self.uid.clone(),
        }
    }
}

/// What a request asks for, checked against the objects: the sidecar decision included.
pub(crate) async fn admit(daemon: &Daemon, request: &PodRequest) -> anyhow::Result<bool> {
    let client = &daemon.client;
    if let Some(mode) = &request.create_namespace {
        objects::create_namespace(client, &request.namespace, Some(mode)).await?;
    }
    let namespace = Api::<Namespace>::all(client.clone())
        .get_opt(&request.namespace)
        .await?;
    let namespace = namespace.with_context(|| {
        let name = &request.namespace;
        format!("namespace {name} does not exist: create it with `trefoilctl local namespace {name} --mode ambient`, or give --create-namespace MODE")
    })?;
    anyhow::ensure!(
        request.user.is_none_or(|(user, _)| user != uid::SIDECAR),
        "--user {}: reserved for sidecars, whose traffic is not redirected",
        uid::SIDECAR
    );
    let config = Api::<ConfigMap>::namespaced(client.clone(), MESH_NAMESPACE)
        .get_opt(MESH_CONFIG)
        .await?;
    let overrides = config
        .and_then(|config| config.data?.remove("mesh.yaml"))
        .is_none_or(|text| {
            let parsed: Result<serde_json::Value, _> = serde_saphyr::from_str(&text);
            parsed.is_ok_and(|config| {
                config.get("podOverrides").and_then(serde_json::Value::as_bool) != Some(false)
            })
        });
    let facts = PodFacts {
        namespace: &request.namespace,
        namespace_labels: namespace.metadata.labels.as_ref(),
        labels: Some(&request.labels),
        host_network: false,
        has_sidecar: false,
    };
    Ok(wants_sidecar(&facts, overrides)?)
}

/// Makes a pod up to the point where its program can be started.
pub(crate) async fn make(
    daemon: &Daemon,
    request: &PodRequest,
    with_sidecar: bool,
) -> anyhow::Result<MadePod> {
    let addresses = daemon.allocate(request.node.as_deref())?;
    let mut pod = MadePod {
        namespace: request.namespace.clone(),
        name: request.name.clone(),
        uid: String::new(),
        netns: daemon.mesh.pod_netns(&request.namespace, &request.name),
        addresses,
        sidecar: with_sidecar,
        account: request.service_account.clone(),
        user: request.user,
    };
    let made = set_up(daemon, request, &mut pod).await;
    if let Err(error) = made {
        tear_down(daemon, &pod).await;
        remove_object(daemon, &pod).await;
        return Err(error);
    }
    Ok(pod)
}

async fn set_up(daemon: &Daemon, request: &PodRequest, pod: &mut MadePod) -> anyhow::Result<()> {
    objects::create_service_account(&daemon.client, &pod.namespace, &pod.account).await?;
    for service in &request.services {
        create_service(daemon, &pod.namespace, service).await?;
    }
    pod.uid = create_object(daemon, request, pod).await?;
    network::make_pod(&daemon.mesh, &pod.netns, pod.addresses)
        .await
        .context("making the pod's network")?;
    make_files(daemon, pod)?;
    patch_status(daemon, pod, "Pending", false, None).await?;
    cni::add(daemon, pod).await?;
    daemon.changed.notify_one();
    if pod.sidecar {
        sidecar::start(daemon, pod).await?;
    }
    Ok(())
}

async fn create_service(daemon: &Daemon, namespace: &str, request: &ServiceRequest) -> anyhow::Result<()> {
    let service: Service = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": request.name, "namespace": namespace },
        "spec": {
            "selector": { "app": request.name },
            "ports": [{ "name": "main", "port": request.port, "targetPort": request.target, "protocol": "TCP" }],
        },
    }))?;
    objects::create(&Api::namespaced(daemon.client.clone(), namespace), &service)
        .await
        .map(drop)
}

async fn create_object(daemon: &Daemon, request: &PodRequest, pod: &MadePod) -> anyhow::Result<String> {
    let mut labels = request.labels.clone();
    if let Some(service) = request.services.first() {
        labels.entry("app".into()).or_insert_with(|| service.name.clone());
    }
    let ports: Vec<_> = request
        .ports
        .iter()
        .map(|port| json!({ "containerPort": port }))
        .collect();
    let sidecar = json!([{ "name": SIDECAR_CONTAINER, "image": "trefoil-sidecar", "restartPolicy": "Always",
        "securityContext": { "runAsUser": uid::SIDECAR, "runAsGroup": uid::SIDECAR } }]);
    let object: Pod = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": pod.name, "namespace": pod.namespace, "labels": labels,
                      "annotations": request.annotations },
        "spec": {
            "nodeName": pod.node().name(),
            "serviceAccountName": pod.account,
            "restartPolicy": "Never",
            "hostname": request.subdomain.as_ref().map(|_| &pod.name),
            "subdomain": request.subdomain,
            "initContainers": if pod.sidecar { sidecar } else { json!([]) },
            "containers": [{ "name": "main", "image": "local", "command": request.command, "ports": ports }],
        },
    }))?;
    let api = Api::<Pod>::namespaced(daemon.client.clone(), &pod.namespace);
    if !objects::create(&api, &object).await? {
        let held = api.get_opt(&pod.name).await?;
        let phase = held.and_then(|pod| pod.status?.phase).unwrap_or_default();
        anyhow::ensure!(
            matches!(phase.as_str(), "Succeeded" | "Failed"),
            "pod {0}/{1} exists: end it with `trefoilctl local delete {0}/{1}`",
            pod.namespace,
            pod.name
        );
        objects::delete(&api, &pod.name).await?;
        objects::create(&api, &object).await?;
    }
    let created = api.get(&pod.name).await?;
    created.metadata.uid.context("the API server gave a pod no uid")
}

fn make_files(daemon: &Daemon, pod: &MadePod) -> anyhow::Result<()> {
    let directory = daemon.mesh.pod_directory(&pod.namespace, &pod.name);
    let made = || -> anyhow::Result<()> {
        fs::create_dir_all(directory.join("sidecar"))?;
        chown(directory.join("sidecar"), Some(uid::SIDECAR), Some(uid::SIDECAR))?;
        fs::set_permissions(directory.join("sidecar"), fs::Permissions::from_mode(0o700))?;
        let addresses = [pod.addresses.v4().to_string(), pod.addresses.v6().to_string()];
        fs::write(
            directory.join("hosts"),
            hosts::render(&pod.namespace, &pod.name, &addresses, &daemon.services.borrow()),
        )?;
        let search = format!(
            "search {}.svc.cluster.local svc.cluster.local cluster.local\n",
            pod.namespace
        );
        Ok(fs::write(directory.join("resolv.conf"), search)?)
    };
    made().with_context(|| format!("making {}", directory.display()))
}

/// How a program of the pod is entered.
pub(crate) fn enter(daemon: &Daemon, pod: &MadePod) -> Enter {
    let directory = daemon.mesh.pod_directory(&pod.namespace, &pod.name);
    let mut binds = vec![
        (directory.join("hosts"), PathBuf::from("/etc/hosts")),
        (daemon.mesh.directory().join("root"), PathBuf::from(ROOT_MOUNT)),
    ];
    if Path::new("/etc/resolv.conf").exists() {
        binds.push((directory.join("resolv.conf"), PathBuf::from("/etc/resolv.conf")));
    }
    let environment = [
        ("HOSTNAME", &pod.name),
        ("POD_NAME", &pod.name),
        ("POD_NAMESPACE", &pod.namespace),
    ];
    Enter {
        netns: pod.netns.clone(),
        binds,
        environment: environment
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .into(),
        privilege: Privilege::Container,
        user: pod.user,
        dies_with_parent: false,
    }
}

/// Writes what has become of a pod to its object.
pub(crate) async fn patch_status(
    daemon: &Daemon,
    pod: &MadePod,
    phase: &str,
    ready: bool,
    exit: Option<i32>,
) -> anyhow::Result<()> {
    let truth = if ready { "True" } else { "False" };
    let state = match exit {
        Some(code) => json!({ "terminated": { "exitCode": code } }),
        None if phase == "Running" => json!({ "running": {} }),
        None => json!({ "waiting": { "reason": "ContainerCreating" } }),
    };
    let sidecar = json!([{ "name": SIDECAR_CONTAINER, "image": "trefoil-sidecar", "imageID": "",
        "ready": phase == "Running", "restartCount": 0 }]);
    let status = json!({ "status": {
        "phase": phase,
        "hostIP": pod.node().address_v4(),
        "podIP": pod.addresses.v4(),
        "podIPs": [{ "ip": pod.addresses.v4() }, { "ip": pod.addresses.v6() }],
        "conditions": [
            { "type": "Initialized", "status": "True" },
            { "type": "Ready", "status": truth },
            { "type": "ContainersReady", "status": truth },
        ],
        "initContainerStatuses": if pod.sidecar { sidecar } else { json!([]) },
        "containerStatuses": [{ "name": "main", "image": "local", "imageID": "", "ready": ready,
                                "restartCount": 0, "state": state }],
    }});
    let api = Api::<Pod>::namespaced(daemon.client.clone(), &pod.namespace);
    api.patch_status(&pod.name, &PatchParams::default(), &Patch::Merge(status))
        .await?;
    Ok(())
}

/// Undoes everything but the object, however far it came.
pub(crate) async fn tear_down(daemon: &Daemon, pod: &MadePod) {
    sidecar::stop(daemon, pod).await;
    super::down::end_processes(&pod.netns).await;
    if let Err(error) = cni::delete(daemon, pod).await {
        tracing::warn!("pod {}/{}: CNI DEL: {error:#}", pod.namespace, pod.name);
    }
    if let Err(error) = network::remove_pod(&daemon.mesh, &pod.netns, pod.addresses).await {
        tracing::warn!("pod {}/{}: {error:#}", pod.namespace, pod.name);
    }
    // The log outlives the pod; the rest is of no use to anybody.
    let directory = daemon.mesh.pod_directory(&pod.namespace, &pod.name);
    for file in ["hosts", "resolv.conf"] {
        let _ = fs::remove_file(directory.join(file));
    }
    let _ = fs::remove_dir_all(directory.join("sidecar"));
    daemon.release(pod.addresses);
}

/// Removes the object of a pod that has ended; whether there was one.
pub(crate) async fn remove_ended(daemon: &Daemon, namespace: &str, name: &str) -> anyhow::Result<bool> {
    let api = Api::<Pod>::namespaced(daemon.client.clone(), namespace);
    if api.get_opt(name).await?.is_none() {
        return Ok(false);
    }
    objects::delete(&api, name).await?;
    Ok(true)
}

/// Removes the object.
pub(crate) async fn remove_object(daemon: &Daemon, pod: &MadePod) {
    let api = Api::<Pod>::namespaced(daemon.client.clone(), &pod.namespace);
    if let Err(error) = objects::delete(&api, &pod.name).await {
        tracing::warn!("deleting pod {}/{}: {error:#}", pod.namespace, pod.name);
    }
}
