//! Each verb on objects: from the call to the store and back to an answer.

use std::time::Duration;

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::collect::Owners;
use crate::lifecycle::Part;
use crate::objects::{self, Deletion, Place};
use crate::patch::Patch;
use crate::selector::Selector;
use crate::server::{Call, Server};
use crate::status::{ApiError, respond, respond_text};
use crate::store::{Expired, Transaction};
use crate::watch::Watch;
use crate::{authorize, body, render, reviews};

/// How long a watch lasts unless it says.
const WATCH: Duration = Duration::from_secs(30 * 60);

/// Does what an allowed call asks for.
///
/// # Errors
/// Whatever is wrong with it.
pub(crate) async fn run(server: &Server, call: Call, incoming: Incoming) -> Result<Response<Body>, ApiError> {
    match call.verb {
        "get" => get(server, &call),
        "list" => list(server, &call),
        "watch" => watch(server, call),
        "create" => create(server, call, incoming).await,
        "update" => update(server, call, incoming).await,
        "patch" => patch(server, call, incoming).await,
        "delete" => delete(server, call, incoming).await,
        _ => delete_collection(server, call, incoming).await,
    }
}

impl Call {
    fn place(&self) -> Result<Place, ApiError> {
        let name = self.resource.name.clone().ok_or(ApiError::MethodNotAllowed)?;
        Ok(Place {
            kind: self.resource.kind,
            namespace: self.resource.namespace.clone(),
            name,
        })
    }

    fn part(&self) -> Part {
        if self.resource.subresource.as_deref() == Some("status") {
            Part::Status
        } else {
            Part::Main
        }
    }

    fn selector(&self) -> Result<Selector, ApiError> {
        Selector::parse(self.query.get("labelSelector"), self.query.get("fieldSelector"))
    }

    fn show(&self, code: StatusCode, object: &Value) -> Response<Body> {
        respond(code, &render::object(self.resource.kind, object, self.form))
    }

    fn revision(&self) -> Result<Option<u64>, ApiError> {
        match self.query.get("resourceVersion") {
            None | Some("0") => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| ApiError::BadRequest(format!("invalid resource version {text:?}"))),
        }
    }
}

fn get(server: &Server, call: &Call) -> Result<Response<Body>, ApiError> {
    let place = call.place()?;
    let snapshot = server.store.snapshot();
    let object = snapshot.get(&place.key()).ok_or_else(|| place.missing())?;
    Ok(call.show(StatusCode::OK, object))
}

fn list(server: &Server, call: &Call) -> Result<Response<Body>, ApiError> {
    let selector = call.selector()?;
    let snapshot = server.store.snapshot();
    let exact = call.query.get("resourceVersionMatch") == Some("Exact");
    if let Some(asked) = call.revision()?
        && (asked > snapshot.revision || (exact && asked != snapshot.revision))
    {
        // Only the latest content is kept; a later revision than that is another store's.
        return Err(Expired {
            asked,
            oldest: snapshot.revision,
        }
        .into());
    }
    let kind = call.resource.kind;
    let objects: Vec<&Value> = snapshot
        .list(kind.resource, call.resource.namespace.as_deref())
        .map(|(_, object)| &**object)
        .filter(|object| selector.matches(object))
        .collect();
    Ok(respond_text(
        StatusCode::OK,
        render::list(kind, &objects, snapshot.revision, call.form),
    ))
}

fn watch(server: &Server, call: Call) -> Result<Response<Body>, ApiError> {
    let mut selector = call.selector()?;
    if let Some(name) = &call.resource.name {
        selector = selector.named(name);
    }
    let seconds = call
        .query
        .get("timeoutSeconds")
        .and_then(|text| text.parse().ok());
    let initial = call.query.flag("sendInitialEvents");
    let watch = Watch {
        kind: call.resource.kind,
        selector,
        form: call.form,
        from: if initial { None } else { call.revision()? },
        bookmarks: call.query.flag("allowWatchBookmarks"),
        announce_initial_end: initial,
        duration: seconds
            .filter(|seconds| *seconds > 0)
            .map_or(WATCH, Duration::from_secs),
        namespace: call.resource.namespace,
    };
    let lines = watch.run(server.store.clone(), server.stop.clone());
    let mut response = Response::new(Body::from_stream(lines));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Runs a transaction, or only what it would have done.
async fn write<T, F>(server: &Server, dry_run: bool, run: F) -> Result<T, ApiError>
where
    T: Send + Clone + 'static,
    F: FnOnce(&mut Transaction) -> Result<T, ApiError> + Send + 'static,
{
    server.store.try_write(!dry_run, run).await
}

async fn create(server: &Server, call: Call, incoming: Incoming) -> Result<Response<Body>, ApiError> {
    let mut object = body::parse(&body::read(incoming).await?)?;
    if call.resource.subresource.as_deref() == Some("token") {
        let place = call.place()?;
        let namespace = place.namespace.unwrap_or_default();
        let answer = reviews::request(server, &namespace, &place.name, &object)?;
        return Ok(respond(StatusCode::CREATED, &answer));
    }
    let (kind, mut namespace) = (call.resource.kind, call.resource.namespace.clone());
    if kind.namespaced && namespace.is_none() {
        return Err(ApiError::BadRequest(
            "an empty namespace may not be set during creation".into(),
        ));
    }
    if !kind.namespaced {
        namespace = None;
    }
    if object["metadata"].is_null() {
        object["metadata"] = json!({});
    }
    let (birth, validate) = (server.birth(), server.validate.clone());
    let created = write(server, call.query.dry_run(), move |transaction| {
        objects::create(
            transaction,
            kind,
            namespace.as_deref(),
            object,
            &birth,
            &*validate,
        )
    })
    .await?;
    Ok(call.show(StatusCode::CREATED, &created))
}

async fn update(server: &Server, call: Call, incoming: Incoming) -> Result<Response<Body>, ApiError> {
    let object = body::parse(&body::read(incoming).await?)?;
    let (place, part, validate) = (call.place()?, call.part(), server.validate.clone());
    let updated = write(server, call.query.dry_run(), move |transaction| {
        objects::update(transaction, &place, part, &|_| Ok(object.clone()), &*validate)
    })
    .await?;
    Ok(call.show(StatusCode::OK, &updated))
}

async fn patch(server: &Server, call: Call, incoming: Incoming) -> Result<Response<Body>, ApiError> {
    let bytes = body::read(incoming).await?;
    let patch = Patch::parse(call.resource.kind, &call.content_type, &bytes)?;
    let (place, part, node) = (call.place()?, call.part(), call.node.clone());
    let (birth, validate) = (server.birth(), server.validate.clone());
    let (code, patched) = write(server, call.query.dry_run(), move |transaction| {
        let absent = transaction.get(&place.key()).is_none() && part == Part::Main && node.is_none();
        if let (Patch::Apply(wanted), true) = (&patch, absent) {
            let mut wanted = wanted.clone();
            if !wanted["metadata"].is_object() {
                wanted["metadata"] = json!({});
            }
            wanted["metadata"]["name"] = place.name.clone().into();
            let namespace = place.namespace.as_deref();
            let created = objects::create(transaction, place.kind, namespace, wanted, &birth, &*validate)?;
            return Ok((StatusCode::CREATED, created));
        }
        let change = |existing: &Value| {
            let patched = patch.apply(place.kind, existing)?;
            match &node {
                Some(node) if !authorize::within_node(node, existing, &patched) => Err(ApiError::Forbidden(
                    format!("the agent of node {node} may change annotations and status of its own node's pods only"),
                )),
                _ => Ok(patched),
            }
        };
        Ok((StatusCode::OK, objects::update(transaction, &place, part, &change, &*validate)?))
    })
    .await?;
    Ok(call.show(code, &patched))
}

async fn deletion(call: &Call, incoming: Incoming) -> Result<Deletion, ApiError> {
    let bytes = body::read(incoming).await?;
    let options = if bytes.is_empty() {
        Value::Null
    } else {
        body::parse(&bytes)?
    };
    Ok(Deletion::from_options(
        &options,
        call.query.get("propagationPolicy"),
    ))
}

async fn delete(server: &Server, call: Call, incoming: Incoming) -> Result<Response<Body>, ApiError> {
    let deletion = deletion(&call, incoming).await?;
    let (place, now) = (call.place()?, server.timestamp());
    let (gone, last) = write(server, deletion.dry_run, move |transaction| {
        let owners = Owners::of(transaction);
        let last = objects::delete(transaction, &place, &deletion, &owners, &now)?;
        Ok((transaction.get(&place.key()).is_none(), last))
    })
    .await?;
    if !gone {
        return Ok(call.show(StatusCode::OK, &last));
    }
    let kind = call.resource.kind;
    Ok(respond(
        StatusCode::OK,
        &json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {
                "name": last["metadata"]["name"], "group": kind.group, "kind": kind.plural,
                "uid": last["metadata"]["uid"],
            },
        }),
    ))
}

async fn delete_collection(
    server: &Server,
    call: Call,
    incoming: Incoming,
) -> Result<Response<Body>, ApiError> {
    let deletion = deletion(&call, incoming).await?;
    let (selector, now) = (call.selector()?, server.timestamp());
    let (kind, namespace) = (call.resource.kind, call.resource.namespace.clone());
    let deleted = write(server, deletion.dry_run, move |transaction| {
        let places: Vec<Place> = transaction
            .list(kind.resource, namespace.as_deref())
            .filter(|(_, object)| selector.matches(object))
            .map(|(key, _)| Place {
                kind,
                namespace: kind.namespaced.then(|| key.namespace.to_string()),
                name: key.name.to_string(),
            })
            .collect();
        let owners = Owners::of(transaction);
        let mut deleted = Vec::with_capacity(places.len());
        for place in places {
            match objects::delete(transaction, &place, &deletion, &owners, &now) {
                Ok(last) => deleted.push(last),
                // Gone with one deleted before it.
                Err(ApiError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
    })
    .await?;
    let deleted: Vec<&Value> = deleted.iter().map(|object| &**object).collect();
    let revision = server.store.snapshot().revision;
    Ok(respond_text(
        StatusCode::OK,
        render::list(kind, &deleted, revision, call.form),
    ))
}
