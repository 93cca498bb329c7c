//! Who asks, in the words of xDS. The control plane believes the token, never this; it is for people.

use std::collections::BTreeMap;
use std::net::IpAddr;

use prost_types::{Struct, Value, value::Kind};
use trefoil_api::proto::envoy::service::discovery::v3 as discovery;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Node {
    /// `ztunnel` for a node proxy and `waypoint` for a waypoint (the words that control planes of such meshes
    /// know), else `sidecar`.
    pub role: &'static str,
    /// Name of our pod.
    pub pod: String,
    /// Namespace of our pod.
    pub namespace: String,
    /// Our node.
    pub node: String,
    /// Our addresses, where known.
    pub addresses: Vec<IpAddr>,
}

impl Node {
    pub(super) fn message(&self) -> discovery::Node {
        let Self {
            role,
            pod,
            namespace,
            node,
            addresses,
        } = self;
        let ip = addresses.first().map(ToString::to_string).unwrap_or_default();
        let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let fields = BTreeMap::from([
            ("NAME".to_owned(), text(pod)),
            ("NAMESPACE".to_owned(), text(namespace)),
            ("NODE_NAME".to_owned(), text(node)),
            ("INSTANCE_IPS".to_owned(), text(&all.join(","))),
        ]);
        discovery::Node {
            id: format!("{role}~{ip}~{pod}.{namespace}~{namespace}.svc.cluster.local"),
            metadata: Some(Struct { fields }),
            build_version: env!("CARGO_PKG_VERSION").into(),
            ..discovery::Node::default()
        }
    }
}

fn text(value: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(value.into())),
    }
}
