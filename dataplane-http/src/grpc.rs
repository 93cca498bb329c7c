//! gRPC over HTTP/2, as far as who carries it has to read it: the status, the time that a call has, and where messages
//! end.

use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::answer::GRPC_STATUS;

#[cfg(test)]
mod tests;

/// How long a call may take from here on.
pub(crate) const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// Digits that it may have.
const DIGITS: u32 = 8;
/// Its units in nanoseconds, the finest first.
const UNITS: [(char, u64); 6] = [
    ('n', 1),
    ('u', 1_000),
    ('m', 1_000_000),
    ('S', 1_000_000_000),
    ('M', 60_000_000_000),
    ('H', 3_600_000_000_000),
];

/// A time that cannot be read in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InvalidTimeout;

/// The time that a call has: at most 8 digits and a unit (gRPC over HTTP/2, Requests). None at all is no limit; zero,
/// which clients send whose time has just run out, is that.
pub(crate) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, InvalidTimeout> {
    let mut values = headers.get_all(TIMEOUT).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let ([digits @ .., unit], None) = (value.as_bytes(), values.next()) else {
        return Err(InvalidTimeout);
    };
    let unit = UNITS.iter().find(|(name, _)| *name == char::from(*unit));
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        Some(number * 10 + u64::from(digit))
    });
    match (number, unit) {
        (Some(number), Some((_, nanoseconds))) if (1..=DIGITS as usize).contains(&digits.len()) => {
            let seconds = Duration::from_nanos(*nanoseconds);
            // Less than 10^8 times an hour.
            Ok(Some(seconds * u32::try_from(number).map_err(|_| InvalidTimeout)?))
        }
        _ => Err(InvalidTimeout),
    }
}

/// `left`, in the finest unit that has room for it, and never more than it.
pub(crate) fn timeout_value(left: Duration) -> HeaderValue {
    let most = u128::from(10_u64.pow(DIGITS));
    let nanoseconds = left.as_nanos();
    let fits = |(_, unit): &&(char, u64)| nanoseconds / u128::from(*unit) < most;
    let text = match UNITS.iter().find(fits) {
        Some((name, unit)) => format!("{}{name}", nanoseconds / u128::from(*unit)),
        None => "99999999H".to_owned(),
    };
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("0n"))
}

/// The bytes in front of each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The status that a call has ended with.
pub(crate) fn status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// Bits of the first byte of a prefix that mean something: the message is compressed.
const FLAGS: u8 = 1;

/// Where in its messages a body is, and how many have passed whole. Trailers may stand only between two of them. After
/// a prefix that is none, nothing of the rest is known.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that were seen.
    seen: usize,
    /// Bytes of the message that follow.
    left: usize,
    passed: u64,
    malformed: bool,
}

impl Messages {
    /// The next bytes.
    pub(crate) fn pass(&mut self, mut data: &[u8]) {
        while !data.is_empty() && !self.malformed {
            if self.left > 0 {
                let skipped = self.left.min(data.len());
                self.left -= skipped;
                data = &data[skipped..];
                self.passed += u64::from(self.left == 0);
                continue;
            }
            self.prefix[self.seen] = data[0];
            data = &data[1..];
            self.seen += 1;
            let [flags, length @ ..] = self.prefix;
            self.malformed = flags & !FLAGS != 0;
            if self.seen == PREFIX {
                self.left = u32::from_be_bytes(length) as usize;
                self.seen = 0;
                self.passed += u64::from(self.left == 0);
            }
        }
    }

    /// How many have passed whole.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// Whether no message has begun that has not ended.
    pub(crate) fn between(&self) -> bool {
        self.seen == 0 && self.left == 0 && !self.malformed
    }
}
