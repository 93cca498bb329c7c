//! One spelling for each path, before routes and policy see it: what is normalised here is what they decide
//! about and what goes to the application. Paths that applications are known to read in two ways are refused.
//! It never looks at the query. `docs/http.md` has the definition in words.

use std::borrow::Cow;

#[cfg(test)]
mod tests;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathRefused {
    /// Only paths from the root are understood.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    #[error("the path has an invalid escape")]
    InvalidEscape,
    /// `%2F`: one segment to some, two to others.
    #[error("the path has an encoded slash")]
    EncodedSlash,
    /// `\` or `%5C`: a slash to some.
    #[error("the path has a backslash")]
    Backslash,
    /// An encoded NUL or another control character.
    #[error("the path has a control character")]
    Control,
    /// More `..` than segments before them.
    #[error("the path leads above the root")]
    AboveRoot,
    /// `..;`: some applications cut what follows the semicolon, and then see `..`.
    #[error("the path has a dot segment with a parameter")]
    DotParameter,
}

/// The one spelling of `path`. Of a path that is it already, nothing is copied.
pub fn normalize(path: &str) -> Result<Cow<'_, str>, PathRefused> {
    if !path.starts_with('/') {
        return Err(PathRefused::NotAbsolute);
    }
    let plain = |byte: &u8| is_literal(*byte) || *byte == b'/';
    let settled = !path.contains("//") && !path.contains("/.") && path.as_bytes().iter().all(plain);
    if settled {
        return Ok(Cow::Borrowed(path));
    }
    let decoded = decode(path.as_bytes())?;
    segments(&decoded).map(Cow::Owned)
}

/// Which part of a path a text is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// Its beginning.
    Beginning,
    /// Its end.
    End,
}

/// Refuses a text that is this part of no path in its one spelling: comparing with it would be true of nothing, and
/// whoever wrote it meant something.
pub fn comparable(text: &str, part: Part) -> Result<(), String> {
    let (before, behind) = match part {
        Part::Whole => ("", ""),
        Part::Beginning => ("", "x"),
        Part::End => ("/x", ""),
    };
    let path = format!("{before}{text}{behind}");
    let normal = match normalize(&path) {
        Ok(normal) if normal == path => return Ok(()),
        Ok(normal) => normal,
        Err(refused) => return Err(format!("{text:?} is of no path that is let through: {refused}")),
    };
    let inner = normal
        .strip_prefix(before)
        .and_then(|normal| normal.strip_suffix(behind));
    Err(match inner {
        Some(inner) if !inner.is_empty() => {
            format!("{text:?} is not how paths are compared: write {inner:?}")
        }
        _ => format!("{text:?} is of no path, as paths are compared"),
    })
}

/// Characters that may stand for themselves in a segment do; all others are escaped, in upper case.
fn decode(path: &[u8]) -> Result<String, PathRefused> {
    let mut decoded = String::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let (byte, escaped) = match path[at] {
            b'%' => (escape(path, at)?, true),
            byte => (byte, false),
        };
        at += if escaped { 3 } else { 1 };
        match byte {
            b'/' if escaped => return Err(PathRefused::EncodedSlash),
            b'/' => decoded.push('/'),
            b'\\' => return Err(PathRefused::Backslash),
            0..=0x1f | 0x7f => return Err(PathRefused::Control),
            literal if is_literal(literal) => decoded.push(char::from(literal)),
            other => push_escaped(&mut decoded, other),
        }
    }
    Ok(decoded)
}

fn escape(path: &[u8], at: usize) -> Result<u8, PathRefused> {
    let digit = |at: usize| path.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    match (digit(at + 1), digit(at + 2)) {
        // Both are below 16.
        (Some(high), Some(low)) => Ok((high << 4 | low) as u8),
        _ => Err(PathRefused::InvalidEscape),
    }
}

fn push_escaped(to: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    to.push('%');
    to.push(char::from(DIGITS[usize::from(byte >> 4)]));
    to.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// `pchar` without escapes (RFC 3986, section 3.3).
fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

/// Merges slashes and resolves dot segments (RFC 3986, section 5.2.4).
fn segments(path: &str) -> Result<String, PathRefused> {
    let mut kept: Vec<&str> = Vec::new();
    let mut directory = true;
    for segment in path.split('/') {
        directory = false;
        match segment {
            "" | "." => directory = true,
            ".." => {
                kept.pop().ok_or(PathRefused::AboveRoot)?;
                directory = true;
            }
            parameter if parameter.starts_with(".;") || parameter.starts_with("..;") => {
                return Err(PathRefused::DotParameter);
            }
            name => kept.push(name),
        }
    }
    let mut normal = String::with_capacity(path.len());
    for segment in &kept {
        normal.push('/');
        normal.push_str(segment);
    }
    if directory || normal.is_empty() {
        normal.push('/');
    }
    Ok(normal)
}
