//! The CNI plugin (specification 1.1): a chained plugin that asks the agent to put a new pod on its plane and
//! passes the result of the plugins before it on, unchanged. It never lets a pod start unredirected that may
//! belong to the mesh: what it cannot decide waits.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use trefoil_api::names::MESH_NAMESPACE;

use crate::attachment::{Attachment, LastKnown, StateDirectory};
use crate::call;

mod protocol;
#[cfg(test)]
mod tests;

pub use protocol::{Arguments, Command, Configuration, PluginError, Request, SUPPORTED_VERSIONS};

/// How long the agent may take to put a pod on its plane. Runtimes wait for minutes.
const PATIENCE: Duration = Duration::from_secs(40);

/// Serves one call. What it returns is written to standard output as it is; nothing if it is null.
pub async fn serve(request: &Request) -> Result<Value, PluginError> {
    match request.command {
        Command::Version => Ok(json!({
            "cniVersion": request.configuration.cni_version,
            "supportedVersions": SUPPORTED_VERSIONS,
        })),
        Command::Add => add(request).await,
        Command::Del => del(request).await,
        Command::Check => check(request).await,
        Command::Gc => gc(request).await,
        // An agent that is away is no reason to call the node's network broken: pods that are not for the
        // mesh start without it, and its own pod may be among those to come.
        Command::Status => Ok(Value::Null),
    }
}

async fn add(request: &Request) -> Result<Value, PluginError> {
    let result = request.previous_result()?.clone();
    let Some(attachment) = attachment(request, &result)? else {
        return Ok(result);
    };
    let configuration = &request.configuration;
    if attachment.namespace == MESH_NAMESPACE
        || configuration.exclude_namespaces.contains(&attachment.namespace)
    {
        return Ok(result);
    }
    match ask(configuration, "/add", &attachment).await {
        Ok(()) => Ok(result),
        Err(reason) if surely_unmeshed(configuration, &attachment.namespace) => {
            eprintln!("trefoil-cni: {reason}; not for the mesh as last known: passes");
            Ok(result)
        }
        Err(reason) => Err(PluginError::TryAgainLater(reason)),
    }
}

/// A pod that ends: nothing to undo, its rules end with its namespace. The agent only learns it sooner.
async fn del(request: &Request) -> Result<Value, PluginError> {
    let previous = request.configuration.previous_result.clone().unwrap_or_default();
    if let Ok(Some(attachment)) = attachment(request, &previous)
        && let Err(reason) = ask(&request.configuration, "/del", &attachment).await
    {
        eprintln!("trefoil-cni: {reason}; the agent will see from the API that the pod ended");
    }
    Ok(Value::Null)
}

async fn check(request: &Request) -> Result<Value, PluginError> {
    let previous = request.previous_result()?;
    let Some(attachment) = attachment(request, previous)? else {
        return Ok(Value::Null);
    };
    let asked = ask(&request.configuration, "/check", &attachment).await;
    asked.map(|()| Value::Null).map_err(PluginError::NotAsConfigured)
}

async fn gc(request: &Request) -> Result<Value, PluginError> {
    let body = json!({ "valid": request.configuration.valid_containers() });
    if let Err(reason) = post(&request.configuration, "/gc", &body).await {
        eprintln!("trefoil-cni: {reason}; nothing of a pod outlives its namespace");
    }
    Ok(Value::Null)
}

/// The pod of a call; none if the caller is not Kubernetes.
fn attachment(request: &Request, result: &Value) -> Result<Option<Attachment>, PluginError> {
    let arguments = &request.arguments;
    let (Some(namespace), Some(name)) = (&arguments.namespace, &arguments.pod) else {
        return Ok(None);
    };
    let netns = match (&request.netns, request.command) {
        (Some(netns), _) => netns.clone(),
        (None, Command::Del) => PathBuf::new(),
        (None, _) => return Err(PluginError::Environment("CNI_NETNS")),
    };
    Ok(Some(Attachment {
        uid: arguments.uid.clone().unwrap_or_default(),
        namespace: namespace.clone(),
        name: name.clone(),
        container_id: request.container_id.clone(),
        netns,
        addresses: addresses(result),
        identity: None,
        service_account: String::new(),
    }))
}

/// Addresses in a result, of any version that we accept.
fn addresses(result: &Value) -> BTreeSet<IpAddr> {
    let entries = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    entries
        .filter_map(|entry| entry.get("address")?.as_str())
        .filter_map(|text| text.split('/').next()?.parse().ok())
        .collect()
}

fn surely_unmeshed(configuration: &Configuration, namespace: &str) -> bool {
    let directory = StateDirectory::at(Path::new(&configuration.state_dir));
    let known = directory.last_known().unwrap_or_else(|| LastKnown {
        pod_overrides: true,
        ..LastKnown::default()
    });
    known.surely_unmeshed(namespace)
}

async fn ask(configuration: &Configuration, path: &str, attachment: &Attachment) -> Result<(), String> {
    let body = serde_json::to_value(attachment).map_err(|error| error.to_string())?;
    post(configuration, path, &body).await
}

async fn post(configuration: &Configuration, path: &str, body: &Value) -> Result<(), String> {
    let socket = Path::new(&configuration.run_dir).join("cni.sock");
    let called = call::post(&socket, path, body);
    match tokio::time::timeout(PATIENCE, called).await {
        Ok(Ok(response)) if response.status.is_success() => Ok(()),
        Ok(Ok(response)) => Err(format!("agent: {}", response.body.trim())),
        Ok(Err(error)) => Err(format!("agent at {}: {error}", socket.display())),
        Err(_) => Err(format!("agent: no answer within {} s", PATIENCE.as_secs())),
    }
}
