//! A discovery response whose resources were encoded once for all clients: it is put together from bytes
//! that are shared, part by part, and is never decoded.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use prost::bytes::{BufMut, BytesMut};
use prost::encoding::{self, WireType};

use trefoil_control_plane_index::snapshot::{Encoded, ResourceKind};

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`, to be sent.
#[derive(Clone, Debug)]
pub struct Response {
    /// What the resources are.
    pub kind: ResourceKind,
    /// To be quoted in the answer.
    pub nonce: String,
    /// New or changed.
    pub resources: Vec<Arc<Encoded>>,
    /// No more.
    pub removed: Vec<String>,
}

// Field numbers of the message.
const RESOURCES: u32 = 2;
const TYPE_URL: u32 = 4;
const NONCE: u32 = 5;
const REMOVED: u32 = 6;

impl Response {
    /// How many parts it is put together from: its resources, and the rest.
    pub(super) fn parts(&self) -> usize {
        self.resources.len() + 1
    }

    /// Puts its parts from one on, until there are at least so many bytes. Which one is next.
    pub(super) fn put_from(&self, mut part: usize, enough: usize, buf: &mut BytesMut) -> usize {
        while buf.len() < enough && part < self.parts() {
            match self.resources.get(part) {
                Some(resource) => put(resource, buf),
                None => self.put_rest(buf),
            }
            part += 1;
        }
        part
    }

    /// Bytes of all parts.
    pub(super) fn encoded_len(&self) -> usize {
        let resources = self.resources.iter().map(|resource| {
            let length = resource.wire.len();
            encoding::key_len(RESOURCES) + encoding::encoded_len_varint(length as u64) + length
        });
        resources.sum::<usize>()
            + encoding::string::encoded_len(TYPE_URL, &self.kind.type_url().to_owned())
            + encoding::string::encoded_len(NONCE, &self.nonce)
            + encoding::string::encoded_len_repeated(REMOVED, &self.removed)
    }

    fn put_rest(&self, buf: &mut impl BufMut) {
        encoding::string::encode(TYPE_URL, &self.kind.type_url().to_owned(), buf);
        encoding::string::encode(NONCE, &self.nonce, buf);
        encoding::string::encode_repeated(REMOVED, &self.removed, buf);
    }
}

fn put(resource: &Encoded, buf: &mut impl BufMut) {
    encoding::encode_key(RESOURCES, WireType::LengthDelimited, buf);
    encoding::encode_varint(resource.wire.len() as u64, buf);
    buf.put_slice(&resource.wire);
}
