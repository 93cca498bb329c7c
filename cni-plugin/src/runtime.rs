//! Calls a CNI plugin through the protocol, as a container runtime would: for nodes made of network
//! namespaces, and for tests.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Why a plugin's call failed.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The plugin could not be run.
    #[error("CNI plugin: {0}")]
    Io(#[from] std::io::Error),
    /// The plugin refused.
    #[error("CNI plugin: {message} (code {code})")]
    Refused {
        /// The specification's code; 11 asks to try again later.
        code: u64,
        /// What it says.
        message: String,
    },
    /// The plugin ended without an answer that can be understood.
    #[error("CNI plugin: ended with {status}: {output}")]
    Unintelligible {
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it wrote.
        output: String,
    },
}

/// One attachment of a container to a network.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The plugin's executable.
    pub binary: &'a Path,
    /// The plugin's configuration, with `cniVersion` and `name`.
    pub configuration: &'a Value,
    /// The runtime's id of the container.
    pub container_id: &'a str,
    /// Path of the network namespace.
    pub netns: &'a Path,
    /// Name of the interface in it.
    pub interface: &'a str,
    /// `CNI_ARGS`, such as `K8S_POD_NAME` and its value.
    pub arguments: &'a [(&'a str, &'a str)],
    /// The result of the plugin before this one.
    pub previous_result: Option<&'a Value>,
}

/// `ADD`: the result of the plugin.
pub async fn add(call: Call<'_>) -> Result<Value, RuntimeError> {
    invoke("ADD", call).await
}

/// `DEL`.
pub async fn del(call: Call<'_>) -> Result<(), RuntimeError> {
    invoke("DEL", call).await.map(drop)
}

/// `CHECK`.
pub async fn check(call: Call<'_>) -> Result<(), RuntimeError> {
    invoke("CHECK", call).await.map(drop)
}

async fn invoke(command: &str, call: Call<'_>) -> Result<Value, RuntimeError> {
    let mut configuration = call.configuration.clone();
    if let (Some(result), Some(object)) = (call.previous_result, configuration.as_object_mut()) {
        object.insert("prevResult".into(), result.clone());
    }
    let arguments: Vec<String> = call
        .arguments
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    let folder = call.binary.parent().unwrap_or_else(|| Path::new("/"));
    let mut child = Command::new(call.binary)
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", call.container_id)
        .env("CNI_NETNS", call.netns)
        .env("CNI_IFNAME", call.interface)
        .env("CNI_ARGS", arguments.join(";"))
        .env("CNI_PATH", folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(configuration.to_string().as_bytes()).await?;
    }
    let ended = child.wait_with_output().await?;
    let answer: Value = match serde_json::from_slice(&ended.stdout) {
        Ok(answer) => answer,
        Err(_) if ended.status.success() => Value::Null,
        Err(_) => Value::Bool(false),
    };
    if ended.status.success() {
        return Ok(answer);
    }
    match (answer["code"].as_u64(), answer["msg"].as_str()) {
        (Some(code), Some(message)) => Err(RuntimeError::Refused {
            code,
            message: message.into(),
        }),
        _ => Err(RuntimeError::Unintelligible {
            status: ended.status,
            output: String::from_utf8_lossy(&ended.stderr).into_owned(),
        }),
    }
}
