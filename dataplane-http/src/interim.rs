//! Interim responses of applications, such as 103 Early Hints: what of them is passed on, and how they are written where
//! the library writes none.

use std::sync::{Arc, Weak};

use http::{HeaderMap, Request, Response, StatusCode};
use hyper::ext::on_informational;

use crate::head::{strip_hop, strip_ours};
use crate::under_way::Passage;

#[cfg(test)]
mod tests;

/// Has `passage` told of each interim response to `request`, as HTTP/1 hears it.
pub(crate) fn listen<B>(request: &mut Request<B>, passage: &Arc<Passage>) {
    // The connection may outlive the request.
    let passage: Weak<Passage> = Arc::downgrade(passage);
    on_informational(request, move |response| {
        if let Some(passage) = passage.upgrade() {
            passage.interim(response.status(), response.headers());
        }
    });
}

/// What is passed on of an interim response. What asks for the body is between two neighbours, and what switches is none.
pub(crate) fn passed_on(status: StatusCode, headers: &HeaderMap) -> Option<Response<()>> {
    if matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
        return None;
    }
    let mut interim = Response::new(());
    *interim.status_mut() = status;
    let mut headers = headers.clone();
    strip_hop(&mut headers);
    strip_ours(&mut headers);
    *interim.headers_mut() = headers;
    Some(interim)
}

/// As HTTP/1.1 writes it.
pub(crate) fn written(interim: &Response<()>) -> Vec<u8> {
    let status = interim.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in interim.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}
