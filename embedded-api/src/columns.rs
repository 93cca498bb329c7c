//! What `kubectl get` shows of each kind. Pure but for the age, which is the time since creation.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::kinds::Kind;

/// A column of a kind's table.
pub(crate) struct Column {
    /// Its head.
    pub name: &'static str,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: u8,
    /// An object's cell.
    pub cell: fn(&Value) -> String,
}

const fn column(name: &'static str, cell: fn(&Value) -> String) -> Column {
    Column {
        name,
        priority: 0,
        cell,
    }
}

const fn wide(name: &'static str, cell: fn(&Value) -> String) -> Column {
    Column {
        name,
        priority: 1,
        cell,
    }
}

/// The columns of a kind.
#[must_use]
pub(crate) fn of(kind: &Kind) -> Vec<Column> {
    let mut columns = vec![column("Name", |object| text(&object["metadata"]["name"]))];
    columns.extend(own(kind));
    columns.push(column("Age", |object| {
        age(
            &object["metadata"]["creationTimestamp"],
            OffsetDateTime::now_utc(),
        )
    }));
    if kind.kind == "Pod" {
        columns.push(wide("IP", |object| or_none(&object["status"]["podIP"])));
        columns.push(wide("Node", |object| or_none(&object["spec"]["nodeName"])));
    }
    columns
}

/// The columns between the name and the age.
fn own(kind: &Kind) -> Vec<Column> {
    match kind.kind {
        "Namespace" => vec![column("Status", |object| text(&object["status"]["phase"]))],
        "Node" => vec![
            column("Status", |object| {
                (if condition(object, "Ready") == "True" {
                    "Ready"
                } else {
                    "NotReady"
                })
                .into()
            }),
            wide("Internal-IP", |object| {
                or_none(&object["status"]["addresses"][0]["address"])
            }),
        ],
        "Pod" => vec![
            column("Ready", ready),
            column("Status", pod_status),
            column("Restarts", |object| {
                let statuses = object["status"]["containerStatuses"]
                    .as_array()
                    .into_iter()
                    .flatten();
                statuses
                    .filter_map(|status| status["restartCount"].as_u64())
                    .sum::<u64>()
                    .to_string()
            }),
        ],
        "Service" => vec![
            column("Type", |object| text(&object["spec"]["type"])),
            column("Cluster-IP", |object| or_none(&object["spec"]["clusterIP"])),
            column("Port(s)", |object| {
                list(&object["spec"]["ports"], |port| {
                    format!("{}/{}", text(&port["port"]), text(&port["protocol"]))
                })
            }),
            wide("Selector", |object| map(&object["spec"]["selector"])),
        ],
        "Secret" => vec![
            column("Type", |object| text(&object["type"])),
            column("Data", count_data),
        ],
        "ConfigMap" => vec![column("Data", count_data)],
        "Event" => vec![
            column("Type", |object| text(&object["type"])),
            column("Reason", |object| text(&object["reason"])),
            column("Object", |object| {
                let about = &object["involvedObject"];
                format!("{}/{}", text(&about["kind"]).to_lowercase(), text(&about["name"]))
            }),
            column("Message", |object| text(&object["message"])),
        ],
        _ => of_networks(kind),
    }
}

/// The columns of kinds outside of the core group.
fn of_networks(kind: &Kind) -> Vec<Column> {
    match kind.kind {
        "EndpointSlice" => vec![
            column("AddressType", |object| text(&object["addressType"])),
            column("Ports", |object| {
                list(&object["ports"], |port| text(&port["port"]))
            }),
            column("Endpoints", |object| {
                list(&object["endpoints"], |one| text(&one["addresses"][0]))
            }),
        ],
        "Lease" => vec![column("Holder", |object| text(&object["spec"]["holderIdentity"]))],
        "NetworkPolicy" => vec![column("Pod-Selector", |object| {
            map(&object["spec"]["podSelector"]["matchLabels"])
        })],
        "GatewayClass" => vec![
            column("Controller", |object| text(&object["spec"]["controllerName"])),
            column("Accepted", |object| condition(object, "Accepted")),
        ],
        "Gateway" => vec![
            column("Class", |object| text(&object["spec"]["gatewayClassName"])),
            column("Address", |object| {
                list(&object["status"]["addresses"], |one| text(&one["value"]))
            }),
            column("Programmed", |object| condition(object, "Programmed")),
        ],
        "HTTPRoute" | "GRPCRoute" => {
            vec![
                column("Hostnames", |object| list(&object["spec"]["hostnames"], text)),
                column("Parents", |object| {
                    list(&object["spec"]["parentRefs"], |one| text(&one["name"]))
                }),
                column("Accepted", |object| {
                    list(&object["status"]["parents"], |one| {
                        of_conditions(&one["conditions"], "Accepted", "status")
                    })
                }),
            ]
        }
        "AuthorizationPolicy" => vec![
            column("Action", |object| {
                object["spec"]["action"].as_str().unwrap_or("Allow").into()
            }),
            column("Accepted", |object| condition(object, "Accepted")),
            column("Enforced", |object| condition(object, "Enforced")),
            column("Reason", accepted_reason),
        ],
        "PeerAuthentication" => vec![
            column("mTLS", |object| text(&object["spec"]["mtls"])),
            column("Accepted", |object| condition(object, "Accepted")),
            column("Reason", accepted_reason),
        ],
        _ => Vec::new(),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn or_none(value: &Value) -> String {
    let text = text(value);
    if text.is_empty() { "<none>".into() } else { text }
}

fn list(value: &Value, show: fn(&Value) -> String) -> String {
    let items: Vec<String> = value.as_array().into_iter().flatten().map(show).collect();
    if items.is_empty() {
        "<none>".into()
    } else {
        items.join(",")
    }
}

fn map(value: &Value) -> String {
    let pairs: Vec<String> = value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    if pairs.is_empty() {
        "<none>".into()
    } else {
        pairs.join(",")
    }
}

fn count_data(object: &Value) -> String {
    let count = |field: &str| object[field].as_object().map_or(0, serde_json::Map::len);
    (count("data") + count("binaryData")).to_string()
}

fn condition(object: &Value, name: &str) -> String {
    of_condition(object, name, "status")
}

fn accepted_reason(object: &Value) -> String {
    of_condition(object, "Accepted", "reason")
}

fn of_condition(object: &Value, name: &str, field: &str) -> String {
    of_conditions(&object["status"]["conditions"], name, field)
}

fn of_conditions(conditions: &Value, name: &str, field: &str) -> String {
    let conditions = conditions.as_array().into_iter().flatten();
    conditions
        .filter(|one| one["type"] == name)
        .map(|one| text(&one[field]))
        .next()
        .unwrap_or_default()
}

fn pod_status(object: &Value) -> String {
    if !object["metadata"]["deletionTimestamp"].is_null() {
        return "Terminating".into();
    }
    text(&object["status"]["phase"])
}

/// Ready containers of all, native sidecars included.
fn ready(object: &Value) -> String {
    let restarted = |one: &&Value| one["restartPolicy"] == "Always";
    let sidecars = object["spec"]["initContainers"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(restarted)
        .count();
    let total = object["spec"]["containers"].as_array().map_or(0, Vec::len) + sidecars;
    let statuses = |field: &str| {
        object["status"][field]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|one| one["ready"] == true)
            .count()
    };
    let known = object["status"]["containerStatuses"].is_array();
    let ready = match (known, condition(object, "Ready") == "True") {
        (true, _) => (statuses("containerStatuses") + statuses("initContainerStatuses")).min(total),
        (false, true) => total,
        (false, false) => 0,
    };
    format!("{ready}/{total}")
}

/// The time since, as `kubectl` shows it: `42s`, `5m`, `3h`, `2d`.
fn age(created: &Value, now: OffsetDateTime) -> String {
    let created = created
        .as_str()
        .and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let Some(created) = created else {
        return "<unknown>".into();
    };
    let seconds = (now - created).whole_seconds().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}
