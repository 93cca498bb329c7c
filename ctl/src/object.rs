//! `get`, `delete`, `label`: objects of the mesh as they are.

pub(crate) mod apply;
pub(crate) mod conditions;

use std::collections::BTreeMap;

use anyhow::Context;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::output::{Done, Format, Table, print_done};

/// Which objects.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Which {
    /// Kind, or KIND/NAME.
    pub(crate) kind: String,
    /// Names.
    pub(crate) names: Vec<String>,
    /// Their namespace.
    #[arg(long, short)]
    pub(crate) namespace: Option<String>,
    /// In all namespaces.
    #[arg(long, short = 'A')]
    pub(crate) all_namespaces: bool,
    /// Only those with these labels.
    #[arg(long, short = 'l')]
    pub(crate) selector: Option<String>,
}

impl Which {
    /// The kind and the names.
    fn parsed(&self) -> anyhow::Result<(Kind, Vec<String>)> {
        let (kind, name) = match self.kind.split_once('/') {
            Some((kind, name)) => (kind, Some(name.to_owned())),
            None => (self.kind.as_str(), None),
        };
        Ok((
            Kind::named(kind)?,
            name.into_iter().chain(self.names.iter().cloned()).collect(),
        ))
    }

    fn namespace(&self) -> Option<&str> {
        if self.all_namespaces {
            None
        } else {
            Some(self.namespace.as_deref().unwrap_or("default"))
        }
    }
}

/// `get`, of one kind or several separated by commas: to programs as one list.
pub(crate) async fn get(client: &Client, which: &Which, format: Format) -> anyhow::Result<()> {
    let mut kinds = Vec::new();
    for kind in which.kind.split(',') {
        let which = Which {
            kind: kind.into(),
            ..which.clone()
        };
        let (kind, names) = which.parsed()?;
        kinds.push((kind, fetch(client, &which, kind, &names).await?, names));
    }
    let text = || {
        let tables = kinds.iter().map(|(kind, objects, _)| table(*kind, objects));
        tables.collect::<Vec<_>>().join("\n")
    };
    match kinds.as_slice() {
        [(_, objects, names)] if names.len() == 1 => format.print(&objects.first(), text),
        _ => {
            let items: Vec<&DynamicObject> = kinds.iter().flat_map(|(_, objects, _)| objects).collect();
            let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
            format.print(&list, text)
        }
    }
}

/// The objects of a kind: those named, else all.
async fn fetch(
    client: &Client,
    which: &Which,
    kind: Kind,
    names: &[String],
) -> anyhow::Result<Vec<DynamicObject>> {
    let api = kind.api(client, which.namespace());
    let mut objects = Vec::new();
    if names.is_empty() {
        let mut parameters = ListParams::default();
        parameters.label_selector.clone_from(&which.selector);
        objects = api.list(&parameters).await?.items;
    }
    for name in names {
        let object = api.get(name).await;
        objects.push(object.with_context(|| format!("{}/{name}", kind.singular()))?);
    }
    objects.iter_mut().for_each(|object| name_type(object, kind));
    Ok(objects)
}

/// Items of a list do not say what they are.
fn name_type(object: &mut DynamicObject, kind: Kind) {
    object.types = Some(kube::core::TypeMeta {
        api_version: kind.api_version(),
        kind: kind.name().into(),
    });
}

fn table(kind: Kind, objects: &[DynamicObject]) -> String {
    if objects.is_empty() {
        return "nothing found".into();
    }
    let extra = columns(kind);
    let mut heading: Vec<&str> = if kind.namespaced {
        vec!["NAMESPACE", "NAME"]
    } else {
        vec!["NAME"]
    };
    heading.extend(extra.iter().map(|(title, _)| *title));
    heading.push("CREATED");
    let mut table = Table::new(&heading);
    for object in objects {
        let mut row = Vec::new();
        if kind.namespaced {
            row.push(object.namespace().unwrap_or_default());
        }
        row.push(object.name_any());
        let value = serde_json::to_value(object).unwrap_or_default();
        row.extend(extra.iter().map(|(_, cell)| cell(&value)));
        row.push(
            object
                .creation_timestamp()
                .map_or_else(|| "-".into(), |time| time.0.to_string()),
        );
        table.row(row);
    }
    table.render()
}

/// A column: its title, and an object's cell.
type Column = (&'static str, fn(&Value) -> String);

/// What is worth seeing of a kind.
fn columns(kind: Kind) -> &'static [Column] {
    match kind.name() {
        "Pod" => &[
            ("PHASE", |pod| shown(pod, "/status/phase")),
            ("NODE", |pod| shown(pod, "/spec/nodeName")),
            ("ADDRESS", |pod| shown(pod, "/status/podIP")),
            ("REDIRECTION", |pod| {
                shown(pod, "/metadata/annotations/trefoil.dev~1redirection")
            }),
        ],
        "Namespace" => &[("MODE", |namespace| {
            shown(namespace, "/metadata/labels/trefoil.dev~1dataplane-mode")
        })],
        "Service" => &[
            ("ADDRESS", |service| shown(service, "/spec/clusterIP")),
            ("PORTS", ports),
        ],
        "AuthorizationPolicy" => &[
            ("ACTION", |policy| shown(policy, "/spec/action")),
            ("STATUS", conditions::shown),
        ],
        "PeerAuthentication" => &[
            ("MTLS", |policy| shown(policy, "/spec/mtls")),
            ("STATUS", conditions::shown),
        ],
        "Gateway" => &[
            ("CLASS", |gateway| shown(gateway, "/spec/gatewayClassName")),
            ("FOR", |gateway| {
                shown(gateway, "/metadata/labels/trefoil.dev~1waypoint-for")
            }),
            ("ADDRESS", |gateway| shown(gateway, "/status/addresses/0/value")),
            ("PROGRAMMED", |gateway| {
                shown(gateway, "/status/conditions/1/status")
            }),
        ],
        "GatewayClass" => &[
            ("CONTROLLER", |class| shown(class, "/spec/controllerName")),
            ("ACCEPTED", |class| shown(class, "/status/conditions/0/status")),
        ],
        "HTTPRoute" | "GRPCRoute" => &[
            ("PARENT", |route| shown(route, "/spec/parentRefs/0/name")),
            ("ACCEPTED", |route| {
                shown(route, "/status/parents/0/conditions/0/status")
            }),
            ("RESOLVED", |route| {
                shown(route, "/status/parents/0/conditions/1/status")
            }),
            ("APPLIED", |route| {
                shown(route, "/status/parents/0/conditions/2/status")
            }),
        ],
        _ => &[],
    }
}

fn ports(service: &Value) -> String {
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let ports: Vec<String> = ports
        .into_iter()
        .flatten()
        .map(|port| match shown(port, "/targetPort") {
            target if target == "-" || target == shown(port, "/port") => shown(port, "/port"),
            target => format!("{}→{target}", shown(port, "/port")),
        })
        .collect();
    if ports.is_empty() {
        "-".into()
    } else {
        ports.join(",")
    }
}

fn shown(value: &Value, path: &str) -> String {
    match value.pointer(path) {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        None | Some(Value::Null | Value::String(_)) => "-".into(),
        Some(other) => other.to_string(),
    }
}

/// `delete`.
pub(crate) async fn delete(client: &Client, which: &Which, format: Format) -> anyhow::Result<()> {
    let (kind, names) = which.parsed()?;
    anyhow::ensure!(!names.is_empty(), "which {}? Give its name", kind.singular());
    let api = kind.api(client, which.namespace());
    let mut done = Vec::new();
    let mut failure = Ok(());
    for name in names {
        let object = format!("{}/{name}", kind.singular());
        match api.delete(&name, &DeleteParams::default()).await {
            Ok(_) => done.push(Done::new(object, "deleted")),
            Err(error) => {
                failure = Err(error).with_context(|| format!("deleting {object}"));
                break;
            }
        }
    }
    // What was done before it failed is said too.
    print_done(&done, format)?;
    failure
}

/// `label`: KEY=VALUE sets, KEY- removes.
pub(crate) async fn label(
    client: &Client,
    kind: &str,
    name: &str,
    namespace: Option<&str>,
    labels: &[String],
) -> anyhow::Result<Done> {
    let kind = Kind::named(kind)?;
    let labels = labels
        .iter()
        .map(|text| label_change(text))
        .collect::<anyhow::Result<BTreeMap<_, _>>>()?;
    let patch = Patch::Merge(json!({ "metadata": { "labels": labels } }));
    let api = kind.api(client, Some(namespace.unwrap_or("default")));
    api.patch(name, &PatchParams::default(), &patch)
        .await
        .with_context(|| format!("labelling {}/{name}", kind.singular()))?;
    Ok(Done::new(format!("{}/{name}", kind.singular()), "labelled"))
}

fn label_change(text: &str) -> anyhow::Result<(String, Option<String>)> {
    match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => Ok((key.into(), Some(value.into()))),
        (None, Some(key)) => Ok((key.into(), None)),
        (None, None) => anyhow::bail!("{text:?}: expected KEY=VALUE, or KEY- to remove it"),
    }
}
