//! Interim responses of applications, such as 103 Early Hints, in the words of HTTP/1.1, which is the only version in
//! which they are heard and can be said.

use std::sync::{Arc, Weak};

use http::{HeaderMap, Request, StatusCode};
use hyper::ext::on_informational;

use crate::head::{strip_hop, strip_ours};
use crate::under_way::Passage;

#[cfg(test)]
mod tests;

/// Tells `passage` of each interim response to `request`.
pub(crate) fn listen<B>(request: &mut Request<B>, passage: &Arc<Passage>) {
    // The connection may outlive the request.
    let passage: Weak<Passage> = Arc::downgrade(passage);
    on_informational(request, move |response| {
        if let Some(passage) = passage.upgrade()
            && let Some(head) = head(response.status(), response.headers())
        {
            passage.interim(head);
        }
    });
}

/// As it is written. What asks for the body is between two neighbours, and what switches is no interim response.
fn head(status: StatusCode, headers: &HeaderMap) -> Option<Vec<u8>> {
    if matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
        return None;
    }
    let mut headers = headers.clone();
    strip_hop(&mut headers);
    strip_ours(&mut headers);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &headers {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    Some(head)
}
