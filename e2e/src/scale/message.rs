//! Discovery messages as a fleet needs them: requests that are put together as bytes, responses of which only
//! names and versions are read. A thousand clients that decoded workloads would measure themselves.

use std::fmt::Write;

use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType};
use prost::{DecodeError, Message};
use trefoil_api::proto::envoy::service::discovery::v3::Node;

// Field numbers of the messages, and of `Resource` in a response.
const NODE: u32 = 1;
const TYPE_URL: u32 = 2;
const SUBSCRIBE: u32 = 3;
const HELD: u32 = 5;
const NONCE: u32 = 6;
const RESOURCES: u32 = 2;
const RESPONSE_TYPE_URL: u32 = 4;
const RESPONSE_NONCE: u32 = 5;
const REMOVED: u32 = 6;
const RESOURCE_VERSION: u32 = 1;
const RESOURCE_NAME: u32 = 3;

/// `DeltaDiscoveryRequest`, encoded.
#[derive(Clone, Debug, Default)]
pub struct Request(Vec<u8>);

impl Request {
    /// A subscription to a type: to all of it, unless names are given.
    #[must_use]
    pub fn subscribe(node: &str, type_url: &str, names: &[String]) -> Self {
        let node = Node {
            id: node.into(),
            ..Node::default()
        };
        let mut bytes = Vec::new();
        encoding::message::encode(NODE, &node, &mut bytes);
        encoding::string::encode(TYPE_URL, &type_url.to_owned(), &mut bytes);
        encoding::string::encode_repeated(SUBSCRIBE, names, &mut bytes);
        Self(bytes)
    }

    /// Adds a resource that is held.
    pub fn hold(&mut self, name: &str, version: u64) {
        let mut text = String::with_capacity(16);
        // Writing into a String does not fail.
        let _ = write!(text, "{version:016x}");
        let mut entry = Vec::with_capacity(name.len() + 24);
        encoding::string::encode(1, &name.to_owned(), &mut entry);
        encoding::string::encode(2, &text, &mut entry);
        encoding::bytes::encode(HELD, &entry, &mut self.0);
    }

    /// The acknowledgement of a response.
    #[must_use]
    pub fn acknowledge(response: &Response) -> Self {
        let mut bytes = Vec::new();
        encoding::string::encode(TYPE_URL, &response.type_url, &mut bytes);
        encoding::string::encode(NONCE, &response.nonce, &mut bytes);
        Self(bytes)
    }
}

impl Message for Request {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        // Requests are only sent here.
        encoding::skip_field(wire_type, tag, buf, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

/// What a fleet reads of a `DeltaDiscoveryResponse`.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The type.
    pub type_url: String,
    /// To be quoted.
    pub nonce: String,
    /// New or changed.
    pub resources: Vec<Received>,
    /// No more.
    pub removed: Vec<String>,
}

/// A resource that was received.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// Its name.
    pub name: Bytes,
    /// Its version, which is hexadecimal.
    pub version: u64,
    /// How long it was, encoded.
    pub bytes: usize,
}

impl Message for Response {
    fn encode_raw(&self, _: &mut impl BufMut) {
        // Responses are only received here.
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            RESOURCES => {
                self.resources.push(received(buf)?);
                Ok(())
            }
            RESPONSE_TYPE_URL => encoding::string::merge(wire_type, &mut self.type_url, buf, context),
            RESPONSE_NONCE => encoding::string::merge(wire_type, &mut self.nonce, buf, context),
            REMOVED => encoding::string::merge_repeated(wire_type, &mut self.removed, buf, context),
            _ => encoding::skip_field(wire_type, tag, buf, context),
        }
    }

    fn encoded_len(&self) -> usize {
        0
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Reads name and version of a resource and steps over its content.
fn received(buf: &mut impl Buf) -> Result<Received, DecodeError> {
    let bytes = usize::try_from(encoding::decode_varint(buf)?).unwrap_or(usize::MAX);
    let mut one = Received {
        bytes,
        ..Received::default()
    };
    let mut version = Vec::new();
    let end = buf.remaining().saturating_sub(bytes);
    while buf.remaining() > end {
        let (tag, wire_type) = encoding::decode_key(buf)?;
        let context = DecodeContext::default();
        match tag {
            RESOURCE_VERSION => encoding::bytes::merge(wire_type, &mut version, buf, context)?,
            RESOURCE_NAME => encoding::bytes::merge(wire_type, &mut one.name, buf, context)?,
            _ => encoding::skip_field(wire_type, tag, buf, context)?,
        }
    }
    let text = std::str::from_utf8(&version).unwrap_or_default();
    one.version = u64::from_str_radix(text, 16).unwrap_or_default();
    Ok(one)
}
