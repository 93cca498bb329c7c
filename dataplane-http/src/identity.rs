//! What the application is told beside the request: who the client is, where it came from, and which request and
//! trace this is. Identities are only those that were proven.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use rand::Rng;
use trefoil_api::Identity;

use crate::head::{CLIENT_CERTIFICATE, strip_ours};
use crate::seam::Downstream;

#[cfg(test)]
mod tests;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE: HeaderName = HeaderName::from_static("traceparent");

/// What every request of a connection is given, made once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    certificate: Option<HeaderValue>,
    source: Option<HeaderValue>,
}

impl Told {
    /// For requests that `by` receives.
    pub(crate) fn of(downstream: &Downstream, by: Option<&Identity>) -> Self {
        let by = by.map(|by| format!("By={by};")).unwrap_or_default();
        let certificate = downstream
            .peer
            .identity()
            .and_then(|client| HeaderValue::try_from(format!("{by}URI={client}")).ok());
        let source = downstream.source.ip().to_canonical().to_string();
        Self {
            certificate,
            source: HeaderValue::try_from(source).ok(),
        }
    }

    /// Tells the application, in place of whatever the client said of itself.
    pub(crate) fn tell(&self, headers: &mut HeaderMap, random: &mut impl Rng) {
        strip_ours(headers);
        // The mesh writes none: an application that believed the last hop of it would believe the client.
        headers.remove(header::FORWARDED);
        if let Some(certificate) = &self.certificate {
            headers.insert(CLIENT_CERTIFICATE, certificate.clone());
        }
        if let Some(source) = &self.source {
            let before = headers.get_all(&FORWARDED_FOR).iter();
            let all: Vec<&[u8]> = before.chain([source]).map(HeaderValue::as_bytes).collect();
            let value = HeaderValue::from_bytes(&all.join(&b", "[..])).unwrap_or_else(|_| source.clone());
            headers.insert(FORWARDED_FOR, value);
            if !headers.contains_key(&FORWARDED_PROTO) {
                headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
            }
        }
        if !headers.contains_key(&REQUEST_ID) {
            let id = uuid::Builder::from_random_bytes(random.random()).into_uuid();
            let mut text = uuid::Uuid::encode_buffer();
            if let Ok(value) = HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)) {
                headers.insert(REQUEST_ID, value);
            }
        }
        let traced = headers
            .get(&TRACE)
            .is_some_and(|value| is_trace(value.as_bytes()));
        if !traced && let Some(value) = new_trace(random) {
            headers.insert(TRACE, value);
        }
    }
}

/// The request's id, for the log.
pub(crate) fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    headers.get(&REQUEST_ID).cloned()
}

/// `00-TRACE-PARENT-FLAGS`, neither of the ids zero (W3C Trace Context, section 3.2).
fn is_trace(value: &[u8]) -> bool {
    let hex = |range: std::ops::Range<usize>| {
        value[range]
            .iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |range: std::ops::Range<usize>| value[range].iter().any(|byte| *byte != b'0');
    value.len() == 55
        && value.starts_with(b"00-")
        && value[35] == b'-'
        && value[52] == b'-'
        && hex(3..35)
        && hex(36..52)
        && hex(53..55)
        && some(3..35)
        && some(36..52)
}

fn new_trace(random: &mut impl Rng) -> Option<HeaderValue> {
    let (trace, parent) = (random.random::<u128>().max(1), random.random::<u64>().max(1));
    HeaderValue::try_from(format!("00-{trace:032x}-{parent:016x}-00")).ok()
}
