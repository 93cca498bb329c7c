//! `apply`: what a file says becomes so, and what an earlier `apply` said and this one does not is removed,
//! by the same annotation and the same rules as `kubectl apply`.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Client, ResourceExt};
use serde_json::{Map, Value, json};

use super::conditions;
use crate::kinds::Kind;
use crate::output::Done;

#[cfg(test)]
mod tests;

/// Where what was applied last is kept.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// How long the control plane may take to say what has become of a policy.
const JUDGED: Duration = Duration::from_secs(3);

/// What was applied, up to what could not be.
pub(crate) struct Applied {
    /// In order.
    pub(crate) done: Vec<Done>,
    /// Why it went no further.
    pub(crate) failure: anyhow::Result<()>,
}

/// `apply -f PATH…`, of which `-` is standard input.
pub(crate) async fn apply(client: &Client, paths: &[PathBuf], namespace: Option<&str>) -> Applied {
    let mut done = Vec::new();
    let failure = apply_files(client, paths, namespace, &mut done).await;
    Applied { done, failure }
}

async fn apply_files(
    client: &Client,
    paths: &[PathBuf],
    namespace: Option<&str>,
    done: &mut Vec<Done>,
) -> anyhow::Result<()> {
    for path in paths {
        let mut text = String::new();
        if path.as_os_str() == "-" {
            std::io::stdin().read_to_string(&mut text)?;
        } else {
            text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        }
        for object in documents(&text)? {
            let mut one = apply_one(client, object.clone(), namespace).await?;
            one.warnings = warnings(client, object, namespace).await?;
            done.push(one);
        }
    }
    Ok(())
}

/// The objects in a text of YAML or JSON documents, lists taken apart.
pub(crate) fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let parsed: Vec<Value> = serde_saphyr::from_multiple(text).context("this is not YAML")?;
    let mut objects = Vec::new();
    for document in parsed.into_iter().filter(|document| !document.is_null()) {
        match document.get("items").and_then(Value::as_array) {
            Some(items) if document.get("kind").and_then(Value::as_str) == Some("List") => {
                objects.extend(items.iter().cloned());
            }
            _ => objects.push(document),
        }
    }
    anyhow::ensure!(!objects.is_empty(), "nothing to apply");
    Ok(objects)
}

/// Where an object is.
struct Place {
    kind: Kind,
    api: Api<DynamicObject>,
    namespace: String,
    name: String,
}

impl Place {
    fn of(client: &Client, object: &DynamicObject, namespace: Option<&str>) -> anyhow::Result<Self> {
        let kind = Kind::of(object)?;
        let own = object.namespace().or_else(|| namespace.map(Into::into));
        let namespace = own.unwrap_or_else(|| "default".into());
        Ok(Self {
            kind,
            api: kind.api(client, Some(&namespace)),
            namespace,
            name: object.name_any(),
        })
    }
}

/// Applies one object; what was done.
pub(crate) async fn apply_one(
    client: &Client,
    wanted: Value,
    namespace: Option<&str>,
) -> anyhow::Result<Done> {
    let object: DynamicObject = serde_json::from_value(wanted.clone()).context("this is not an object")?;
    let Place {
        kind,
        api,
        namespace,
        name,
    } = Place::of(client, &object, namespace)?;
    let said = format!("{}/{name}", kind.singular());
    let applying = || format!("applying {said}");
    let Some(held) = api.get_opt(&name).await.with_context(applying)? else {
        let mut object: DynamicObject = serde_json::from_value(annotated(&wanted)?)?;
        if kind.namespaced {
            object.metadata.namespace = Some(namespace);
        }
        api.create(&PostParams::default(), &object)
            .await
            .with_context(applying)?;
        return Ok(Done::new(said, "created"));
    };
    let last = held
        .annotations()
        .get(LAST_APPLIED)
        .and_then(|text| serde_json::from_str(text).ok());
    let patch = merge_patch(last.as_ref(), &annotated(&wanted)?);
    let before = held.resource_version();
    let after = api
        .patch(&name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .with_context(applying)?;
    let done = if after.resource_version() == before {
        "unchanged"
    } else {
        "configured"
    };
    Ok(Done::new(said, done))
}

/// What the control plane says of a policy that does not do what it says. Where it says nothing in time,
/// `trefoilctl check` will tell.
async fn warnings(client: &Client, applied: Value, namespace: Option<&str>) -> anyhow::Result<Vec<String>> {
    let Place { kind, api, name, .. } = Place::of(client, &serde_json::from_value(applied)?, namespace)?;
    if !kind.is_policy() {
        return Ok(Vec::new());
    }
    let judged = async {
        loop {
            let object = api.get(&name).await.ok()?;
            let object = serde_json::to_value(object).ok()?;
            if conditions::are_current(&object) {
                return Some(conditions::unmet(&object));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let unmet = tokio::time::timeout(JUDGED, judged).await.ok().flatten();
    let unmet = unmet.into_iter().flatten();
    Ok(unmet
        .map(|one| format!("not {} ({}): {}", one.kind, one.reason, one.message))
        .collect())
}

/// The object with what is applied in its annotation.
fn annotated(wanted: &Value) -> anyhow::Result<Value> {
    let mut plain = wanted.clone();
    if let Some(annotations) = plain
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
    let text = serde_json::to_string(&plain)?;
    json_patch::merge(
        &mut plain,
        &json!({ "metadata": { "annotations": { LAST_APPLIED: text } } }),
    );
    Ok(plain)
}

/// The merge patch (RFC 7386) that sets what is wanted and removes what was applied last and is wanted no
/// longer. Fields that others set stay.
fn merge_patch(last: Option<&Value>, wanted: &Value) -> Value {
    let (Some(Value::Object(last)), Value::Object(wanted)) = (last, wanted) else {
        return wanted.clone();
    };
    let removed = last
        .keys()
        .filter(|key| !wanted.contains_key(*key))
        .map(|key| (key.clone(), Value::Null));
    let set = wanted
        .iter()
        .map(|(key, value)| (key.clone(), merge_patch(last.get(key), value)));
    Value::Object(removed.chain(set).collect::<Map<_, _>>())
}
