//! What clients ask before they ask for objects: groups, resources, schemas. Pure.

use serde_json::{Value, json};

use crate::kinds::{self, Kind};
use crate::status::ApiError;

/// The version of Kubernetes whose ways this API follows.
#[must_use]
pub(crate) fn version() -> Value {
    json!({
        "major": "1", "minor": "34", "gitVersion": concat!("v1.34.0-trefoil.", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
        "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// A discovery document.
///
/// # Errors
/// Not found, for groups that there are not.
pub(crate) fn document(path: &str) -> Result<Value, ApiError> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        [""] => Ok(json!({ "paths": ["/api", "/api/v1", "/apis", "/healthz", "/openapi/v3", "/version"] })),
        ["api"] => Ok(json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] })),
        ["api", "v1"] => resources("", "v1"),
        ["apis"] => {
            let groups: Vec<Value> = kinds::groups()
                .iter()
                .filter(|(group, _)| !group.is_empty())
                .map(group_document)
                .collect();
            Ok(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
        }
        ["apis", name] => {
            let groups = kinds::groups();
            groups
                .iter()
                .find(|(group, _)| group == name && !group.is_empty())
                .map(group_document)
                .ok_or(ApiError::NoSuchPath)
        }
        ["apis", group, version] if !group.is_empty() => resources(group, version),
        ["openapi", "v2"] => Ok(json!({
            "swagger": "2.0", "info": { "title": "Trefoil", "version": "v1" }, "paths": {}, "definitions": {},
        })),
        ["openapi", "v3"] => Ok(schemas()),
        ["openapi", "v3", "api", "v1"] => schema("", "v1"),
        ["openapi", "v3", "apis", group, version] => schema(group, version),
        _ => Err(ApiError::NoSuchPath),
    }
}

fn group_document((group, versions): &(&'static str, Vec<&'static str>)) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({ "groupVersion": format!("{group}/{version}"), "version": version }))
        .collect();
    json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": versions,
        "preferredVersion": versions[0],
    })
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() {
        version.into()
    } else {
        format!("{group}/{version}")
    }
}

fn known(group: &str, version: &str) -> Result<(), ApiError> {
    let known = kinds::groups()
        .iter()
        .any(|(name, versions)| *name == group && versions.contains(&version));
    known.then_some(()).ok_or(ApiError::NoSuchPath)
}

fn resources(group: &str, version: &str) -> Result<Value, ApiError> {
    known(group, version)?;
    let of_group = |kind: &&&Kind| kind.group == group && kind.version == version;
    let mut resources: Vec<Value> = kinds::ALL
        .iter()
        .filter(of_group)
        .flat_map(|kind| entries(kind))
        .collect();
    let reviews: &[(&str, &str)] = match group {
        "authentication.k8s.io" => &[
            ("tokenreviews", "TokenReview"),
            ("selfsubjectreviews", "SelfSubjectReview"),
        ],
        "authorization.k8s.io" => &[("selfsubjectaccessreviews", "SelfSubjectAccessReview")],
        _ => &[],
    };
    resources.extend(reviews.iter().map(|(plural, kind)| {
        json!({ "name": plural, "singularName": "", "namespaced": false, "kind": kind, "verbs": ["create"] })
    }));
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version(group, version),
        "resources": resources,
    }))
}

fn entries(kind: &Kind) -> Vec<Value> {
    let mut entries = vec![json!({
        "name": kind.plural, "singularName": kind.kind.to_lowercase(), "namespaced": kind.namespaced,
        "kind": kind.kind, "shortNames": kind.short, "categories": kind.categories(),
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    })];
    if kind.status {
        entries.push(json!({
            "name": format!("{}/status", kind.plural), "singularName": "", "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": ["get", "patch", "update"],
        }));
    }
    if kind.kind == "ServiceAccount" {
        entries.push(json!({
            "name": "serviceaccounts/token", "singularName": "", "namespaced": true, "kind": "TokenRequest",
            "group": "authentication.k8s.io", "version": "v1", "verbs": ["create"],
        }));
    }
    entries
}

fn schemas() -> Value {
    let paths: serde_json::Map<String, Value> = kinds::groups()
        .iter()
        .flat_map(|(group, versions)| versions.iter().map(move |version| (*group, *version)))
        .map(|(group, version)| {
            let path = if group.is_empty() {
                format!("api/{version}")
            } else {
                format!("apis/{group}/{version}")
            };
            let link = json!({ "serverRelativeURL": format!("/openapi/v3/{path}") });
            (path, link)
        })
        .collect();
    json!({ "paths": paths })
}

/// As much of a schema as `kubectl` needs to leave validation to the server.
fn schema(group: &str, version: &str) -> Result<Value, ApiError> {
    known(group, version)?;
    let mut paths = serde_json::Map::new();
    for kind in kinds::ALL
        .iter()
        .filter(|kind| kind.group == group && kind.version == version)
    {
        let root = if group.is_empty() {
            format!("/api/{version}")
        } else {
            format!("/apis/{group}/{version}")
        };
        let scope = if kind.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        paths.insert(
            format!("{root}{scope}/{}/{{name}}", kind.plural),
            json!({ "patch": {
                "parameters": [{ "name": "fieldValidation", "in": "query", "schema": { "type": "string" } },
                    { "name": "dryRun", "in": "query", "schema": { "type": "string" } }],
                "responses": {},
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind": {
                    "group": kind.group, "version": kind.version, "kind": kind.kind,
                },
            } }),
        );
    }
    Ok(json!({
        "openapi": "3.0.0", "info": { "title": "Trefoil", "version": "v1" }, "paths": paths,
        "components": { "schemas": {} },
    }))
}
