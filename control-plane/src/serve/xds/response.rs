//! A discovery response whose resources were encoded once for all clients: it is put together from bytes
//! that are shared, and is never decoded.

use std::sync::Arc;

use prost::bytes::{Buf, BufMut};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};

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

impl Message for Response {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        for resource in &self.resources {
            encoding::encode_key(RESOURCES, WireType::LengthDelimited, buf);
            encoding::encode_varint(resource.wire.len() as u64, buf);
            buf.put_slice(&resource.wire);
        }
        encoding::string::encode(TYPE_URL, &self.kind.type_url().to_owned(), buf);
        encoding::string::encode(NONCE, &self.nonce, buf);
        encoding::string::encode_repeated(REMOVED, &self.removed, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        // Responses are only sent here.
        encoding::skip_field(wire_type, tag, buf, context)
    }

    fn encoded_len(&self) -> usize {
        let resources: usize = self
            .resources
            .iter()
            .map(|resource| {
                let length = resource.wire.len();
                encoding::key_len(RESOURCES) + encoding::encoded_len_varint(length as u64) + length
            })
            .sum();
        resources
            + encoding::string::encoded_len(TYPE_URL, &self.kind.type_url().to_owned())
            + encoding::string::encoded_len(NONCE, &self.nonce)
            + encoding::string::encoded_len_repeated(REMOVED, &self.removed)
    }

    fn clear(&mut self) {
        self.nonce.clear();
        self.resources.clear();
        self.removed.clear();
    }
}
