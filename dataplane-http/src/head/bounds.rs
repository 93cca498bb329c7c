//! How large a head may be, and whether it says in one way where its message ends.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;

/// The most fields of a head.
pub const FIELDS: usize = 100;
/// The largest head, in bytes.
pub const SIZE: usize = 64 * 1024;

/// In HTTP/2, nobody else counts fields.
pub(super) fn is_large(parts: &Parts) -> bool {
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    let field = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    parts.headers.len() > FIELDS || target + parts.headers.iter().map(field).sum::<usize>() > SIZE
}

/// Whether a message's end can be read in one way: at most one length, which is a number, and no encoding but the one
/// that goes with each hop.
pub(crate) fn says_its_length(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let chunked = |encoding: &HeaderValue| encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
    let number =
        |length: &HeaderValue| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    match (encodings.next(), lengths.next()) {
        (None, None) => true,
        (Some(encoding), None) => chunked(encoding) && encodings.next().is_none(),
        (None, Some(length)) => number(length) && lengths.next().is_none(),
        (Some(_), Some(_)) => false,
    }
}
