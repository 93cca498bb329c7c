//! WebSockets over HTTP/2 (RFC 8441). A request for one is read as the HTTP/1.1 upgrade that it stands for, by routes,
//! by policy and by the application alike; what came of it is told in the words of HTTP/2.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use h2::ext::Protocol;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request};
use rand::Rng;

use crate::head::HeadRefused;

#[cfg(test)]
mod tests;

const WEBSOCKET: &str = "websocket";
/// What the answer to a key is made of (RFC 6455, section 1.3).
const ANSWERED_WITH: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Makes the GET of an extended CONNECT that it stands for; any other request stays as it is. HTTP/2 has no key: the one
/// who speaks HTTP/1.1 to the application makes it.
pub(crate) fn read<B>(request: &mut Request<B>, random: &mut impl Rng) -> Result<(), HeadRefused> {
    let protocol = request.extensions().get::<Protocol>();
    let Some(protocol) = protocol.filter(|_| *request.method() == Method::CONNECT) else {
        return Ok(());
    };
    if protocol.as_str() != WEBSOCKET {
        return Err(HeadRefused::Protocol);
    }
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    let key = BASE64_STANDARD.encode(random.random::<[u8; 16]>());
    if let Ok(key) = HeaderValue::try_from(key) {
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
    }
    Ok(())
}

/// Whether `answer` is of one who understood the key of `asked`.
pub(crate) fn understood(asked: &HeaderMap, answer: &HeaderMap) -> bool {
    let key = asked.get(header::SEC_WEBSOCKET_KEY);
    let accepted = answer.get(header::SEC_WEBSOCKET_ACCEPT);
    let (Some(key), Some(accepted)) = (key, accepted) else {
        return false;
    };
    let both = [key.as_bytes(), ANSWERED_WITH].concat();
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &both)) == *accepted
}
