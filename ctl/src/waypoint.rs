//! `trefoilctl waypoint`: Gateways of the class of waypoints. It writes and reads objects; who makes the pods
//! follows them.

mod needs;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};
use trefoil_api::names::{GATEWAY_CONTROLLER, WAYPOINT_CLASS, annotation, label, port};

use crate::kinds::Kind;
use crate::object::apply;
use crate::output::{Format, Table, Tone, toned};

/// How long a waypoint may take to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(100);
/// The name of a namespace's waypoint unless it is given.
const NAME: &str = "waypoint";

/// What is done with waypoints.
#[derive(Debug, Subcommand)]
pub(crate) enum WaypointCommand {
    /// Make a waypoint, or change it, and wait until traffic can go through it.
    Apply {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// What goes through it.
        #[arg(long = "for", value_enum, default_value = "service")]
        serves: Serves,
        /// How many pods it has.
        #[arg(long)]
        replicas: Option<u32>,
        /// Label the namespace too, so that all that is in it uses the waypoint.
        #[arg(long)]
        enroll_namespace: bool,
    },
    /// Remove a waypoint: what went through it goes without.
    Delete {
        /// Which.
        #[command(flatten)]
        which: Which,
    },
    /// All waypoints, of a namespace if one is given.
    List {
        /// The namespace.
        #[arg(long, short)]
        namespace: Option<String>,
    },
    /// Whether a waypoint can be used, and if not, why.
    Status {
        /// Which.
        #[command(flatten)]
        which: Which,
    },
    /// Change how many pods a waypoint has.
    Scale {
        /// Which.
        #[command(flatten)]
        which: Which,
        /// How many.
        #[arg(long)]
        replicas: u32,
    },
}

/// A waypoint.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Which {
    /// Its namespace.
    #[arg(long, short, default_value = "default")]
    pub(crate) namespace: String,
    /// Its name.
    #[arg(long, default_value = NAME)]
    pub(crate) name: String,
}

/// What goes through a waypoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Serves {
    /// What is sent to services that use it.
    Service,
    /// What is sent to workloads that use it by their own addresses.
    Workload,
    /// Both.
    All,
}

impl Serves {
    fn value(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::All => "all",
        }
    }
}

/// What is shown of a waypoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Shown {
    namespace: String,
    name: String,
    /// `service`, `workload` or `all`.
    serves: String,
    replicas: u32,
    /// Traffic goes through it.
    programmed: bool,
    /// Where planes dial it.
    address: Option<String>,
    /// Why it is not programmed.
    problem: Option<String>,
}

/// Does what is asked; the exit code says whether the waypoint can be used.
pub(crate) async fn run(client: &Client, command: WaypointCommand, format: Format) -> anyhow::Result<i32> {
    needs::met(client, matches!(command, WaypointCommand::Apply { .. })).await?;
    match command {
        WaypointCommand::Apply {
            which,
            serves,
            replicas,
            enroll_namespace,
        } => {
            apply::apply_one(client, gateway(&which, serves, replicas), None).await?;
            if enroll_namespace {
                enroll(client, &which).await?;
            }
            let shown = programmed(client, &which).await?;
            format.print(&shown, || render(std::slice::from_ref(&shown)))?;
            Ok(0)
        }
        WaypointCommand::Delete { which } => {
            let deleted = gateways(client, Some(&which.namespace))?
                .delete(&which.name, &DeleteParams::default())
                .await;
            deleted.with_context(|| format!("deleting {}", which.title()))?;
            let said = json!({ "deleted": which.title() });
            format.print(&said, || format!("{} deleted", which.title()))?;
            Ok(0)
        }
        WaypointCommand::List { namespace } => {
            let all = gateways(client, namespace.as_deref())?
                .list(&ListParams::default())
                .await?;
            let scaled = needs::scaled(client, namespace.as_deref()).await?;
            let waypoints = all.iter().filter(|one| is_waypoint(one));
            let shown: Vec<Shown> = waypoints.map(|one| shown(one, &scaled)).collect();
            format.print(&shown, || render(&shown))?;
            Ok(0)
        }
        WaypointCommand::Status { which } => {
            let shown = one(client, &which).await?;
            format.print(&shown, || render(std::slice::from_ref(&shown)))?;
            Ok(i32::from(!shown.programmed))
        }
        WaypointCommand::Scale { which, replicas } => {
            let patch =
                json!({ "metadata": { "annotations": { annotation::REPLICAS: replicas.to_string() } } });
            gateways(client, Some(&which.namespace))?
                .patch(&which.name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .with_context(|| format!("scaling {}", which.title()))?;
            let shown = one(client, &which).await?;
            format.print(&shown, || render(std::slice::from_ref(&shown)))?;
            Ok(0)
        }
    }
}

impl Which {
    fn title(&self) -> String {
        format!("waypoint {}/{}", self.namespace, self.name)
    }
}

fn gateways(client: &Client, namespace: Option<&str>) -> anyhow::Result<Api<DynamicObject>> {
    Ok(Kind::named("gateways")?.api(client, namespace))
}

fn gateway(which: &Which, serves: Serves, replicas: Option<u32>) -> Value {
    let mut gateway = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {
            "name": which.name, "namespace": which.namespace,
            "labels": { label::WAYPOINT_FOR: serves.value() },
        },
        "spec": {
            "gatewayClassName": WAYPOINT_CLASS,
            "listeners": [{ "name": "mesh", "port": port::HBONE, "protocol": "HBONE" }],
        },
    });
    if let Some(replicas) = replicas {
        gateway["metadata"]["annotations"] = json!({ annotation::REPLICAS: replicas.to_string() });
    }
    gateway
}

async fn enroll(client: &Client, which: &Which) -> anyhow::Result<()> {
    let patch = json!({ "metadata": { "labels": { label::USE_WAYPOINT: which.name } } });
    Api::<Namespace>::all(client.clone())
        .patch(&which.namespace, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .with_context(|| format!("labelling namespace {}", which.namespace))?;
    Ok(())
}

/// Waits until a waypoint can be used.
async fn programmed(client: &Client, which: &Which) -> anyhow::Result<Shown> {
    let mut last = String::from("nobody has looked at it yet");
    let waited = async {
        loop {
            let shown = one(client, which).await?;
            if shown.programmed {
                return anyhow::Ok(shown);
            }
            last = shown.problem.unwrap_or_default();
            tokio::time::sleep(LOOK).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, waited).await;
    if let Ok(shown) = in_time {
        return shown;
    }
    let complaints = needs::complaints(client, &which.namespace, &which.name).await?;
    let said = [vec![last], complaints].concat().join("; ");
    anyhow::bail!("{} cannot be used yet: {said}", which.title())
}

async fn one(client: &Client, which: &Which) -> anyhow::Result<Shown> {
    let gateway = gateways(client, Some(&which.namespace))?.get(&which.name).await;
    let gateway = gateway.with_context(|| which.title())?;
    let class = &gateway.data["spec"]["gatewayClassName"];
    anyhow::ensure!(
        is_waypoint(&gateway),
        "Gateway {}/{} is no waypoint: its class is {class}, which {GATEWAY_CONTROLLER} does not answer for",
        which.namespace,
        which.name
    );
    let scaled = needs::scaled(client, Some(&which.namespace)).await?;
    Ok(shown(&gateway, &scaled))
}

fn is_waypoint(gateway: &DynamicObject) -> bool {
    gateway.data["spec"]["gatewayClassName"] == WAYPOINT_CLASS
}

fn shown(gateway: &DynamicObject, scaled: &BTreeMap<(String, String), u32>) -> Shown {
    let status = &gateway.data["status"];
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let condition = conditions.into_iter().find(|one| one["type"] == "Programmed");
    // What was said of an earlier generation says nothing of this one.
    let of_this = condition.filter(|one| one["observedGeneration"].as_i64() == gateway.metadata.generation);
    let programmed = of_this.is_some_and(|one| one["status"] == "True");
    let problem = of_this.map_or("the control plane has not looked at it yet", |one| {
        one["message"].as_str().unwrap_or_default()
    });
    let serves = gateway.labels().get(label::WAYPOINT_FOR);
    Shown {
        namespace: gateway.namespace().unwrap_or_default(),
        name: gateway.name_any(),
        serves: serves.cloned().unwrap_or_else(|| "service".into()),
        replicas: said_replicas(gateway)
            .or_else(|| scaled.get(&(gateway.namespace()?, gateway.name_any())).copied())
            .unwrap_or(1),
        programmed,
        address: status["addresses"][0]["value"].as_str().map(str::to_owned),
        problem: (!programmed).then(|| problem.to_owned()),
    }
}

/// As its annotation says. In a cluster others may say it of its Deployment where it does not.
fn said_replicas(gateway: &DynamicObject) -> Option<u32> {
    gateway.annotations().get(annotation::REPLICAS)?.parse().ok()
}

fn render(all: &[Shown]) -> String {
    if all.is_empty() {
        return "no waypoints: `trefoilctl waypoint apply --namespace NAMESPACE` makes one".into();
    }
    let mut table = Table::new(&[
        "NAMESPACE",
        "NAME",
        "FOR",
        "REPLICAS",
        "PROGRAMMED",
        "ADDRESS",
        "PROBLEM",
    ]);
    for one in all {
        let programmed = match one.programmed {
            true => toned(Tone::Good, "yes"),
            false => toned(Tone::Bad, "no"),
        };
        let dash = || "-".to_owned();
        table.row([
            one.namespace.clone(),
            one.name.clone(),
            one.serves.clone(),
            one.replicas.to_string(),
            programmed,
            one.address.clone().unwrap_or_else(dash),
            one.problem.clone().unwrap_or_else(dash),
        ]);
    }
    table.render()
}
