//! As much of a Kubernetes API as the agent uses: lists, watches, a get, a merge patch.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

#[derive(Default)]
struct Objects {
    /// By collection and name.
    present: BTreeMap<(String, String), Value>,
    /// Every change: collection and event.
    log: Vec<(String, Value)>,
}

#[derive(Clone)]
pub struct Api {
    objects: Arc<Mutex<Objects>>,
    changes: watch::Sender<usize>,
    address: String,
    serving: Arc<tokio::task::JoinHandle<()>>,
}

#[derive(Clone)]
struct Shared {
    objects: Arc<Mutex<Objects>>,
    changes: watch::Sender<usize>,
}

impl Api {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared = Shared {
            objects: Arc::default(),
            changes: watch::Sender::new(0),
        };
        let routes = Router::new()
            .route("/api/v1/{collection}", get(list))
            .route("/api/v1/namespaces/{namespace}/configmaps", get(empty))
            .route(
                "/api/v1/namespaces/{namespace}/pods/{name}",
                get(get_pod).patch(patch_pod),
            )
            .with_state(shared.clone());
        let serving = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            objects: shared.objects,
            changes: shared.changes,
            address,
            serving: Arc::new(serving),
        }
    }

    /// Answers nobody any more; new connections are refused.
    pub fn stop(&self) {
        self.serving.abort();
    }

    pub fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": self.address}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        })
        .to_string()
    }

    pub fn put_namespace(&self, name: &str, labels: &Value) {
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "uid": name, "labels": labels},
        });
        change(&self.objects, &self.changes, "namespaces", name, Some(object));
    }

    pub fn put_pod(&self, pod: Value) {
        let name = pod_key(&pod);
        change(&self.objects, &self.changes, "pods", &name, Some(pod));
    }

    pub fn delete_pod(&self, pod: &Value) {
        change(&self.objects, &self.changes, "pods", &pod_key(pod), None);
    }

    pub fn annotation(&self, namespace: &str, name: &str, key: &str) -> Option<String> {
        let objects = self.objects.lock().unwrap();
        let pod = objects
            .present
            .get(&("pods".into(), format!("{namespace}/{name}")))?;
        Some(pod["metadata"]["annotations"][key].as_str()?.to_string())
    }
}

fn pod_key(pod: &Value) -> String {
    let part = |name: &str| pod["metadata"][name].as_str().unwrap().to_string();
    format!("{}/{}", part("namespace"), part("name"))
}

fn change(
    objects: &Mutex<Objects>,
    changes: &watch::Sender<usize>,
    collection: &str,
    name: &str,
    object: Option<Value>,
) {
    let mut objects = objects.lock().unwrap();
    let key = (collection.to_string(), name.to_string());
    let version = (objects.log.len() + 1).to_string();
    let (kind, mut object) = match object {
        Some(object) if objects.present.contains_key(&key) => ("MODIFIED", object),
        Some(object) => ("ADDED", object),
        None => ("DELETED", objects.present.remove(&key).unwrap()),
    };
    object["metadata"]["resourceVersion"] = version.into();
    if kind != "DELETED" {
        objects.present.insert(key, object.clone());
    }
    let event = json!({"type": kind, "object": object});
    objects.log.push((collection.into(), event));
    changes.send_replace(objects.log.len());
}

async fn list(
    State(shared): State<Shared>,
    Path(collection): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    if query.get("watch").is_some_and(|watch| watch == "true") {
        let from = query
            .get("resourceVersion")
            .and_then(|version| version.parse().ok());
        return stream(shared, collection, from.unwrap_or(0));
    }
    let objects = shared.objects.lock().unwrap();
    let items: Vec<&Value> = objects
        .present
        .iter()
        .filter(|((of, _), _)| *of == collection)
        .map(|(_, object)| object)
        .collect();
    let version = objects.log.len().to_string();
    axum::Json(json!({"metadata": {"resourceVersion": version}, "items": items})).into_response()
}

fn stream(shared: Shared, collection: String, from: usize) -> Response {
    let changes = shared.changes.subscribe();
    let events = futures::stream::unfold((shared, changes, from), move |(shared, mut changes, at)| {
        let collection = collection.clone();
        async move {
            changes.wait_for(|count| *count > at).await.ok()?;
            let (of, event) = shared.objects.lock().unwrap().log[at].clone();
            let line = if of == collection {
                format!("{event}\n")
            } else {
                String::new()
            };
            Some((Ok::<_, Infallible>(line), (shared, changes, at + 1)))
        }
    });
    Body::from_stream(events).into_response()
}

async fn empty(Query(query): Query<BTreeMap<String, String>>) -> Response {
    if query.contains_key("watch") {
        return Body::from_stream(futures::stream::pending::<Result<String, Infallible>>()).into_response();
    }
    axum::Json(json!({"metadata": {"resourceVersion": "1"}, "items": []})).into_response()
}

async fn get_pod(State(shared): State<Shared>, Path((namespace, name)): Path<(String, String)>) -> Response {
    let objects = shared.objects.lock().unwrap();
    match objects
        .present
        .get(&("pods".into(), format!("{namespace}/{name}")))
    {
        Some(pod) => axum::Json(pod.clone()).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn patch_pod(
    State(shared): State<Shared>,
    Path((namespace, name)): Path<(String, String)>,
    axum::Json(patch): axum::Json<Value>,
) -> Response {
    let key = format!("{namespace}/{name}");
    let present = shared.objects.lock().unwrap();
    let Some(mut pod) = present.present.get(&("pods".into(), key.clone())).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    drop(present);
    for (annotation, value) in patch["metadata"]["annotations"].as_object().unwrap() {
        pod["metadata"]["annotations"][annotation] = value.clone();
    }
    change(&shared.objects, &shared.changes, "pods", &key, Some(pod.clone()));
    axum::Json(pod).into_response()
}
