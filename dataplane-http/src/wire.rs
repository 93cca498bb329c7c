//! How HTTP/1 requests are written, byte by byte. The parser behind this one forgives what the protocol lets it
//! forgive; a plane that decides for others may not: what another server could read differently is refused before
//! it is parsed. It follows where messages end, and changes nothing.

mod guarded;
#[cfg(test)]
mod tests;

pub(crate) use guarded::{Guarded, Wire};

/// Of a line that is longer, no more is looked at: the parser refuses it.
const LINE: usize = 128 * 1024;
/// What can be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ambiguous {
    #[error("a line ends without a carriage return")]
    BareLineFeed,
    #[error("a carriage return is within a line")]
    BareCarriageReturn,
    #[error("a field is folded")]
    Folded,
    #[error("there is more than one length")]
    SeveralLengths,
    #[error("both a length and a transfer encoding are given")]
    LengthAndEncoding,
    #[error("the size of a chunk is not valid")]
    ChunkSize,
}

/// Where in its messages a stream of requests is.
#[derive(Debug, Default)]
pub(crate) struct Scanner {
    at: At,
    line: Vec<u8>,
    /// The last byte was a carriage return.
    returned: bool,
    length: Option<u64>,
    encoded: bool,
    /// The request line was read.
    begun: bool,
    /// Heads that were read.
    heads: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Head,
    /// So many bytes that mean nothing here, then a chunk's size or a head.
    Data(u64, Then),
    Size,
    Trailers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Head,
    Size,
}

impl Scanner {
    /// Looks at the next bytes.
    pub(crate) fn scan(&mut self, mut bytes: &[u8]) -> Result<(), Ambiguous> {
        while !bytes.is_empty() {
            if let At::Data(left, then) = self.at {
                let skipped = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                bytes = &bytes[skipped..];
                self.at = match (left - skipped as u64, then) {
                    (0, Then::Head) => At::Head,
                    (0, Then::Size) => At::Size,
                    (left, then) => At::Data(left, then),
                };
                continue;
            }
            let (byte, rest) = (bytes[0], &bytes[1..]);
            bytes = rest;
            match (self.returned, byte) {
                (true, b'\n') => {
                    self.returned = false;
                    let line = std::mem::take(&mut self.line);
                    self.line_ended(&line)?;
                    self.line = line;
                    self.line.clear();
                }
                (true, _) => return Err(Ambiguous::BareCarriageReturn),
                (false, b'\n') => return Err(Ambiguous::BareLineFeed),
                (false, b'\r') => self.returned = true,
                (false, byte) if self.line.len() < LINE => self.line.push(byte),
                (false, _) => {}
            }
        }
        Ok(())
    }

    fn line_ended(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        match self.at {
            At::Size => self.at = chunk(line)?,
            At::Trailers if line.is_empty() => self.at = At::Head,
            At::Head if line.is_empty() && self.begun => self.head_ended()?,
            // Before a request, empty lines are skipped (RFC 9112, section 2.2).
            At::Head if line.is_empty() => {}
            At::Head if !self.begun => self.begun = true,
            At::Head | At::Trailers if line.starts_with(b" ") || line.starts_with(b"\t") => {
                return Err(Ambiguous::Folded);
            }
            At::Head => self.field(line)?,
            At::Trailers | At::Data(..) => {}
        }
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), Ambiguous> {
        let end = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(end);
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encoded = true;
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.length.is_some() {
                return Err(Ambiguous::SeveralLengths);
            }
            let digits = value.strip_prefix(b":").unwrap_or_default().trim_ascii();
            // One that is no number is the parser's to refuse.
            let number = std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| digits.parse().ok());
            self.length = Some(number.unwrap_or(0));
        }
        Ok(())
    }

    fn head_ended(&mut self) -> Result<(), Ambiguous> {
        self.at = match (self.length.take(), std::mem::take(&mut self.encoded)) {
            (Some(_), true) => return Err(Ambiguous::LengthAndEncoding),
            (None | Some(0), false) => At::Head,
            (Some(length), false) => At::Data(length, Then::Head),
            (None, true) => At::Size,
        };
        self.begun = false;
        self.heads += 1;
        Ok(())
    }
}

/// What follows a chunk's size: its bytes and the end of their line, or, behind the last, trailers.
fn chunk(line: &[u8]) -> Result<At, Ambiguous> {
    let end = line
        .iter()
        .position(|byte| !byte.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let behind = line[end..].trim_ascii_start().first();
    let size = std::str::from_utf8(&line[..end])
        .ok()
        .and_then(|digits| u64::from_str_radix(digits, 16).ok());
    match (size, behind) {
        (Some(0), None | Some(b';')) => Ok(At::Trailers),
        (Some(size), None | Some(b';')) => {
            let whole = size.checked_add(2).ok_or(Ambiguous::ChunkSize)?;
            Ok(At::Data(whole, Then::Size))
        }
        _ => Err(Ambiguous::ChunkSize),
    }
}
