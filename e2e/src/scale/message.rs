//! Discovery messages as a fleet needs them: requests that are put together as bytes, responses of which only
//! names and versions are read. A thousand clients that decoded workloads would measure themselves.

#[cfg(test)]
mod tests;

use std::fmt::Write;

use prost::bytes::{Buf, BufMut};
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
    pub name: Box<str>,
    /// Its version, which is hexadecimal.
    pub version: u64,
    /// How long it was, encoded.
    pub bytes: usize,
}

impl Response {
    /// Reads the fields that are whole, and leaves the rest.
    pub fn read(&mut self, buf: &mut &[u8]) -> Result<(), DecodeError> {
        loop {
            let mut ahead = *buf;
            let Some((tag, field)) = field(&mut ahead)? else {
                return Ok(());
            };
            match tag {
                RESOURCES => self.resources.push(Received::read(field)?),
                RESPONSE_TYPE_URL => self.type_url = text(field),
                RESPONSE_NONCE => self.nonce = text(field),
                REMOVED => self.removed.push(text(field)),
                _ => {}
            }
            *buf = ahead;
        }
    }
}

impl Received {
    /// Reads name and version of a resource and steps over its content.
    fn read(mut resource: &[u8]) -> Result<Self, DecodeError> {
        let mut one = Self {
            bytes: resource.len(),
            ..Self::default()
        };
        while let Some((tag, field)) = field(&mut resource)? {
            match tag {
                RESOURCE_VERSION => one.version = u64::from_str_radix(&text(field), 16).unwrap_or_default(),
                RESOURCE_NAME => one.name = text(field).into(),
                _ => {}
            }
        }
        Ok(one)
    }
}

/// The next field, if it is whole. In these messages all have a length, but for a number that is not sent.
fn field<'a>(buf: &mut &'a [u8]) -> Result<Option<(u32, &'a [u8])>, DecodeError> {
    // A key and a length are two bytes at least, and eleven at most; they may be cut off anywhere.
    let mut ahead = *buf;
    let varints = ahead.iter().take(11).filter(|byte| **byte < 0x80).count();
    if varints < 2 {
        return Ok(None);
    }
    let (tag, _) = encoding::decode_key(&mut ahead)?;
    let length = usize::try_from(encoding::decode_varint(&mut ahead)?).unwrap_or(usize::MAX);
    let Some((field, rest)) = ahead.split_at_checked(length) else {
        return Ok(None);
    };
    *buf = rest;
    Ok(Some((tag, field)))
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}
