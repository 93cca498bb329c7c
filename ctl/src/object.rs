//! `get`, `delete`, `label`: objects of the mesh as they are.

pub(crate) mod apply;

use std::collections::BTreeMap;

use anyhow::Context;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::kinds::Kind;
use crate::output::{Format, Table};

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

/// `get`, of one kind or several separated by commas.
pub(crate) async fn get(client: &Client, which: &Which, format: Format) -> anyhow::Result<()> {
    for kind in which.kind.split(',') {
        let which = Which {
            kind: kind.into(),
            ..which.clone()
        };
        get_kind(client, &which, format).await?;
    }
    Ok(())
}

async fn get_kind(client: &Client, which: &Which, format: Format) -> anyhow::Result<()> {
    let (kind, names) = which.parsed()?;
    let api = kind.api(client, which.namespace());
    if names.is_empty() {
        let mut parameters = ListParams::default();
        parameters.label_selector.clone_from(&which.selector);
        let mut objects = api.list(&parameters).await?.items;
        objects.iter_mut().for_each(|object| name_type(object, kind));
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
        return format.print(&list, || table(kind, &objects));
    }
    let mut objects = Vec::new();
    for name in &names {
        let mut object = api
            .get(name)
            .await
            .with_context(|| format!("{}/{name}", kind.singular()))?;
        name_type(&mut object, kind);
        objects.push(object);
    }
    match objects.as_slice() {
        [one] => format.print(one, || table(kind, &objects)),
        _ => format.print(
            &json!({ "apiVersion": "v1", "kind": "List", "items": objects }),
            || table(kind, &objects),
        ),
    }
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
        row.extend(extra.iter().map(|(_, path)| shown(&value, path)));
        row.push(
            object
                .creation_timestamp()
                .map_or_else(|| "-".into(), |time| time.0.to_string()),
        );
        table.row(row);
    }
    table.render()
}

/// What is worth seeing of a kind.
fn columns(kind: Kind) -> &'static [(&'static str, &'static str)] {
    match kind.name() {
        "Pod" => &[
            ("PHASE", "/status/phase"),
            ("NODE", "/spec/nodeName"),
            ("ADDRESS", "/status/podIP"),
            ("REDIRECTION", "/metadata/annotations/trefoil.dev~1redirection"),
        ],
        "Namespace" => &[("MODE", "/metadata/labels/trefoil.dev~1dataplane-mode")],
        "Service" => &[("ADDRESS", "/spec/clusterIP")],
        "AuthorizationPolicy" => &[
            ("ACTION", "/spec/action"),
            ("STATUS", "/status/conditions/0/reason"),
        ],
        "Gateway" => &[
            ("CLASS", "/spec/gatewayClassName"),
            ("FOR", "/metadata/labels/trefoil.dev~1waypoint-for"),
            ("ADDRESS", "/status/addresses/0/value"),
            ("PROGRAMMED", "/status/conditions/1/status"),
        ],
        "GatewayClass" => &[
            ("CONTROLLER", "/spec/controllerName"),
            ("ACCEPTED", "/status/conditions/0/status"),
        ],
        "HTTPRoute" | "GRPCRoute" => &[
            ("PARENT", "/spec/parentRefs/0/name"),
            ("ACCEPTED", "/status/parents/0/conditions/0/status"),
            ("RESOLVED", "/status/parents/0/conditions/1/status"),
            ("APPLIED", "/status/parents/0/conditions/2/status"),
        ],
        "PeerAuthentication" => &[("MTLS", "/spec/mtls"), ("STATUS", "/status/conditions/0/reason")],
        _ => &[],
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
pub(crate) async fn delete(client: &Client, which: &Which) -> anyhow::Result<()> {
    let (kind, names) = which.parsed()?;
    anyhow::ensure!(!names.is_empty(), "which {}? Give its name", kind.singular());
    let api = kind.api(client, which.namespace());
    for name in names {
        api.delete(&name, &DeleteParams::default())
            .await
            .with_context(|| format!("deleting {}/{name}", kind.singular()))?;
        println!("{}/{name} deleted", kind.singular());
    }
    Ok(())
}

/// `label`: KEY=VALUE sets, KEY- removes.
pub(crate) async fn label(
    client: &Client,
    kind: &str,
    name: &str,
    namespace: Option<&str>,
    labels: &[String],
) -> anyhow::Result<()> {
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
    println!("{}/{name} labelled", kind.singular());
    Ok(())
}

fn label_change(text: &str) -> anyhow::Result<(String, Option<String>)> {
    match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => Ok((key.into(), Some(value.into()))),
        (None, Some(key)) => Ok((key.into(), None)),
        (None, None) => anyhow::bail!("{text:?}: expected KEY=VALUE, or KEY- to remove it"),
    }
}
