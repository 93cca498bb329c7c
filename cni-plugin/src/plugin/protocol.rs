//! The CNI protocol: environment and standard input in, a request or an error out. Pure. A previous result is
//! kept as the value that it was, so that a field that we do not know is passed on like any other.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

/// Versions of the specification that the plugin speaks.
pub const SUPPORTED_VERSIONS: [&str; 4] = ["0.4.0", "1.0.0", "1.0.1", "1.1.0"];

/// What a runtime asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A pod begins.
    Add,
    /// A pod ended.
    Del,
    /// Is it as it was made?
    Check,
    /// Forget all but these.
    Gc,
    /// Is the plugin able to work?
    Status,
    /// Which versions are spoken?
    Version,
}

/// The network configuration, as far as it concerns us; other keys are other people's.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Configuration {
    /// Version of the specification that the caller speaks.
    #[serde(default = "oldest")]
    pub cni_version: String,
    /// Directory of the agent's sockets.
    #[serde(default = "default_run_dir")]
    pub run_dir: String,
    /// Directory of the agent's state.
    #[serde(default = "default_state_dir")]
    pub state_dir: String,
    /// Namespaces whose pods are never for the mesh: the agent is not even asked.
    #[serde(default)]
    pub exclude_namespaces: BTreeSet<String>,
    /// Result of the plugins before this one.
    #[serde(default, rename = "prevResult")]
    pub previous_result: Option<Value>,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    valid_attachments: Vec<ValidAttachment>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ValidAttachment {
    #[serde(rename = "containerID")]
    container_id: String,
}

/// What Kubernetes' runtimes add to a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// `K8S_POD_NAME`.
    pub pod: Option<String>,
    /// `K8S_POD_NAMESPACE`.
    pub namespace: Option<String>,
    /// `K8S_POD_UID`.
    pub uid: Option<String>,
}

/// A call.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// What is asked.
    pub command: Command,
    /// The runtime's id of the sandbox.
    pub container_id: String,
    /// Path of the network namespace.
    pub netns: Option<PathBuf>,
    /// Kubernetes' arguments.
    pub arguments: Arguments,
    /// The configuration.
    pub configuration: Configuration,
}

/// Why a call failed, with the specification's code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PluginError {
    /// Code 1.
    #[error("CNI version {0:?} is not supported")]
    Version(String),
    /// Code 4.
    #[error("environment: {0} is missing or not valid")]
    Environment(&'static str),
    /// Code 5.
    #[error("standard input: {0}")]
    Input(String),
    /// Code 6.
    #[error("configuration: {0}")]
    Decoding(String),
    /// Code 7.
    #[error("configuration: {0}")]
    Configuration(&'static str),
    /// Code 11.
    #[error("{0}")]
    TryAgainLater(String),
    /// Code 100: ours.
    #[error("redirection is not as it should be: {0}")]
    NotAsConfigured(String),
}

impl Request {
    /// Reads a call.
    pub fn parse(
        environment: impl Fn(&'static str) -> Option<String>,
        input: &[u8],
    ) -> Result<Self, PluginError> {
        let command = match environment("CNI_COMMAND").as_deref() {
            Some("ADD") => Command::Add,
            Some("DEL") => Command::Del,
            Some("CHECK") => Command::Check,
            Some("GC") => Command::Gc,
            Some("STATUS") => Command::Status,
            Some("VERSION") => Command::Version,
            _ => return Err(PluginError::Environment("CNI_COMMAND")),
        };
        let configuration: Configuration =
            serde_json::from_slice(input).map_err(|error| PluginError::Decoding(error.to_string()))?;
        let version = &configuration.cni_version;
        if command != Command::Version && !SUPPORTED_VERSIONS.contains(&version.as_str()) {
            return Err(PluginError::Version(version.clone()));
        }
        let of_a_pod = matches!(command, Command::Add | Command::Del | Command::Check);
        let container_id = environment("CNI_CONTAINERID").filter(|id| !id.is_empty());
        if of_a_pod && container_id.is_none() {
            return Err(PluginError::Environment("CNI_CONTAINERID"));
        }
        let netns = environment("CNI_NETNS").filter(|path| !path.is_empty());
        if matches!(command, Command::Add | Command::Check) && netns.is_none() {
            return Err(PluginError::Environment("CNI_NETNS"));
        }
        Ok(Self {
            command,
            container_id: container_id.unwrap_or_default(),
            netns: netns.map(PathBuf::from),
            arguments: Arguments::parse(&environment("CNI_ARGS").unwrap_or_default()),
            configuration,
        })
    }

    /// The result of the plugins before this one, without which a chained plugin cannot work.
    pub fn previous_result(&self) -> Result<&Value, PluginError> {
        let previous = self.configuration.previous_result.as_ref();
        previous.ok_or(PluginError::Configuration(
            "prevResult is missing: this plugin comes after another in a list",
        ))
    }
}

impl Arguments {
    /// Reads `KEY=VALUE;…`; unknown keys are other people's.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut arguments = Self::default();
        for (key, value) in text.split(';').filter_map(|pair| pair.split_once('=')) {
            let place = match key.trim() {
                "K8S_POD_NAME" => &mut arguments.pod,
                "K8S_POD_NAMESPACE" => &mut arguments.namespace,
                "K8S_POD_UID" => &mut arguments.uid,
                _ => continue,
            };
            *place = Some(value.trim().to_string()).filter(|value| !value.is_empty());
        }
        arguments
    }
}

impl Configuration {
    /// Ids of the containers that a GC call calls valid.
    #[must_use]
    pub fn valid_containers(&self) -> Vec<&str> {
        let attachments = self.valid_attachments.iter();
        attachments.map(|valid| valid.container_id.as_str()).collect()
    }
}

impl PluginError {
    /// The specification's code.
    #[must_use]
    pub fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::Environment(_) => 4,
            Self::Input(_) => 5,
            Self::Decoding(_) => 6,
            Self::Configuration(_) => 7,
            Self::TryAgainLater(_) => 11,
            Self::NotAsConfigured(_) => 100,
        }
    }

    /// The error as a runtime reads it.
    #[must_use]
    pub fn result(&self) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "code": self.code(),
            "msg": format!("trefoil-cni: {self}"),
        })
    }
}

fn oldest() -> String {
    "0.1.0".into()
}

fn default_run_dir() -> String {
    "/run/trefoil".into()
}

fn default_state_dir() -> String {
    "/var/lib/trefoil/cni".into()
}
