//! gRPC over HTTP/2, as far as who carries it has to read it: the status, and where messages end.

use http::HeaderMap;

use crate::answer::GRPC_STATUS;

#[cfg(test)]
mod tests;

/// The bytes in front of each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The status that a call has ended with.
pub(crate) fn status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// Where in its messages a body is. Trailers may stand only between two of them.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that were seen.
    seen: usize,
    /// Bytes of the message that follow.
    left: usize,
}

impl Messages {
    /// The next bytes.
    pub(crate) fn pass(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.left > 0 {
                let skipped = self.left.min(data.len());
                self.left -= skipped;
                data = &data[skipped..];
                continue;
            }
            self.prefix[self.seen] = data[0];
            data = &data[1..];
            self.seen += 1;
            if self.seen == PREFIX {
                let [_, length @ ..] = self.prefix;
                self.left = u32::from_be_bytes(length) as usize;
                self.seen = 0;
            }
        }
    }

    /// Whether no message has begun that has not ended.
    pub(crate) fn between(&self) -> bool {
        self.seen == 0 && self.left == 0
    }
}
