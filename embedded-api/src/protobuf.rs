//! The few bodies that `kubectl` sends as protobuf whatever it is told, read into JSON.
//!
//! Only what `kubectl create namespace | serviceaccount | configmap | secret | token` and `kubectl auth` send. A field
//! that is not read here would be lost without a word: a kind that is not listed is refused instead.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::{Value, json};

use crate::status::ApiError;

/// What every such body begins with.
pub(crate) const MAGIC: &[u8] = b"k8s\0";

/// `runtime.Unknown`: the envelope.
#[derive(Message)]
struct Envelope {
    #[prost(message, optional, tag = "1")]
    kind: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

#[derive(Message)]
struct TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Message)]
struct ObjectMeta {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    generate_name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    annotations: BTreeMap<String, String>,
}

/// Objects of which only the metadata is read.
#[derive(Message)]
struct Bare {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
}

#[derive(Message)]
struct ConfigMap {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(btree_map = "string, string", tag = "2")]
    data: BTreeMap<String, String>,
    #[prost(btree_map = "string, bytes", tag = "3")]
    binary_data: BTreeMap<String, Vec<u8>>,
}

#[derive(Message)]
struct Secret {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(btree_map = "string, bytes", tag = "2")]
    data: BTreeMap<String, Vec<u8>>,
    #[prost(string, tag = "3")]
    secret_type: String,
}

#[derive(Message)]
struct TokenRequest {
    #[prost(message, optional, tag = "2")]
    spec: Option<TokenRequestSpec>,
}

#[derive(Message)]
struct TokenRequestSpec {
    #[prost(string, repeated, tag = "1")]
    audiences: Vec<String>,
    #[prost(message, optional, tag = "3")]
    bound: Option<BoundObject>,
    #[prost(int64, optional, tag = "4")]
    seconds: Option<i64>,
}

#[derive(Message)]
struct BoundObject {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    api_version: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    uid: String,
}

#[derive(Message)]
struct AccessReview {
    #[prost(message, optional, tag = "2")]
    spec: Option<AccessReviewSpec>,
}

#[derive(Message)]
struct AccessReviewSpec {
    #[prost(message, optional, tag = "1")]
    resource: Option<ResourceAttributes>,
}

#[derive(Message)]
struct ResourceAttributes {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(string, tag = "2")]
    verb: String,
    #[prost(string, tag = "3")]
    group: String,
    #[prost(string, tag = "5")]
    resource: String,
    #[prost(string, tag = "6")]
    subresource: String,
    #[prost(string, tag = "7")]
    name: String,
}

/// Reads a body that begins with [`MAGIC`].
///
/// # Errors
/// When it is damaged, or of a kind that is not read here.
pub(crate) fn parse(body: &[u8]) -> Result<Value, ApiError> {
    let envelope: Envelope = decode(body.strip_prefix(MAGIC).unwrap_or(body))?;
    let kind = envelope.kind.unwrap_or_default();
    let mut object = content(&kind.kind, &envelope.raw)?;
    object["apiVersion"] = kind.api_version.into();
    object["kind"] = kind.kind.into();
    Ok(object)
}

fn content(kind: &str, raw: &[u8]) -> Result<Value, ApiError> {
    Ok(match kind {
        "Namespace" | "ServiceAccount" | "SelfSubjectReview" => {
            json!({ "metadata": metadata(decode::<Bare>(raw)?.metadata) })
        }
        "DeleteOptions" if raw.is_empty() => json!({}),
        "ConfigMap" => {
            let read: ConfigMap = decode(raw)?;
            let binary = encoded(&read.binary_data);
            json!({ "metadata": metadata(read.metadata), "data": read.data, "binaryData": binary })
        }
        "Secret" => {
            let read: Secret = decode(raw)?;
            let data = encoded(&read.data);
            let secret_type = Some(read.secret_type).filter(|text| !text.is_empty());
            json!({ "metadata": metadata(read.metadata), "data": data, "type": secret_type })
        }
        "TokenRequest" => {
            let spec = decode::<TokenRequest>(raw)?.spec.unwrap_or_default();
            let bound = spec.bound.map(|bound| {
                json!({ "kind": bound.kind, "apiVersion": bound.api_version, "name": bound.name, "uid": bound.uid })
            });
            json!({ "metadata": {}, "spec": {
                "audiences": spec.audiences, "expirationSeconds": spec.seconds, "boundObjectRef": bound,
            } })
        }
        "SelfSubjectAccessReview" => {
            let resource = decode::<AccessReview>(raw)?.spec.unwrap_or_default().resource;
            let resource = resource.map(|asked| {
                json!({
                    "namespace": asked.namespace, "verb": asked.verb, "group": asked.group, "name": asked.name,
                    "resource": asked.resource, "subresource": asked.subresource,
                })
            });
            json!({ "metadata": {}, "spec": { "resourceAttributes": resource } })
        }
        other => {
            return Err(ApiError::UnsupportedMediaType(format!(
                "{other} cannot be read as protobuf here: write it as YAML and use `kubectl create -f`"
            )));
        }
    })
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, ApiError> {
    M::decode(bytes).map_err(|error| ApiError::BadRequest(format!("damaged protobuf: {error}")))
}

fn metadata(read: Option<ObjectMeta>) -> Value {
    let read = read.unwrap_or_default();
    json!({
        "name": read.name, "generateName": read.generate_name, "namespace": read.namespace,
        "labels": read.labels, "annotations": read.annotations,
    })
}

fn encoded(data: &BTreeMap<String, Vec<u8>>) -> BTreeMap<&String, String> {
    data.iter()
        .map(|(name, value)| (name, STANDARD.encode(value)))
        .collect()
}
