//! Reads the planes' access logs: what each says about a connection or a request that it carried or refused.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// How long a plane may take to write a line.
const PATIENCE: Duration = Duration::from_secs(3);

/// A line of an access log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    fields: BTreeMap<String, String>,
}

impl Line {
    /// A field, or nothing.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.fields.get(key).map_or("", String::as_str)
    }

    /// Whether it is of a client. Of a plane that reads HTTP there is a line for each request.
    pub(crate) fn is_from(&self, direction: &str, client: &[IpAddr]) -> bool {
        let source = self.get("src.addr").parse::<std::net::SocketAddr>();
        self.direction() == direction
            && source.is_ok_and(|source| client.contains(&source.ip().to_canonical()))
    }

    /// `outbound`, `inbound`, or of a waypoint `through`; a request's line names who reports it instead.
    fn direction(&self) -> &str {
        match (self.get("direction"), self.get("reporter")) {
            ("", "source") => "outbound",
            ("", "destination") => "inbound",
            ("", "waypoint") => "through",
            (direction, _) => direction,
        }
    }
}

/// A log that is read from where it ended when this was made.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    offset: usize,
}

impl Log {
    /// Lines from now on.
    pub(crate) fn from_now(path: PathBuf) -> Self {
        let offset = fs::metadata(&path).map_or(0, |metadata| usize::try_from(metadata.len()).unwrap_or(0));
        Self { path, offset }
    }

    /// The lines since.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let text = fs::read(&self.path).unwrap_or_default();
        let since = String::from_utf8_lossy(text.get(self.offset..).unwrap_or_default()).into_owned();
        since.lines().filter_map(|line| parse(&plain(line))).collect()
    }

    /// The first line of a direction about a client.
    pub(crate) async fn wait(&self, direction: &str, client: &[IpAddr]) -> Option<Line> {
        self.wait_for(|line| line.is_from(direction, client)).await
    }

    /// The first line that is wanted.
    pub(crate) async fn wait_for(&self, wanted: impl Fn(&Line) -> bool) -> Option<Line> {
        let found = async {
            loop {
                if let Some(line) = self.lines().into_iter().find(&wanted) {
                    return line;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.ok()
    }
}

/// A line without its colours: workers have no environment that could ask for none.
fn plain(line: &str) -> String {
    let mut parts = line.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.split_once('m').map_or(part, |(_, rest)| rest)
    })
}

/// A line of the log, if it is one of the access log: `KEY=VALUE` pairs, texts in quotation marks.
pub(crate) fn parse(line: &str) -> Option<Line> {
    let (_, rest) = line.split_once(" access: ")?;
    let complete = ["connection complete ", "request complete "];
    let (_, mut rest) = complete.iter().find_map(|words| rest.split_once(words))?;
    let mut fields = BTreeMap::new();
    while let Some((key, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => split_plain(after),
        };
        fields.insert(key.trim().to_owned(), value.to_owned());
        rest = next;
    }
    Some(Line { fields })
}

/// An unquoted value ends where the next key begins: values such as policies may hold spaces.
fn split_plain(text: &str) -> (&str, &str) {
    let Some(next) = text.find('=') else {
        return (text.trim_end(), "");
    };
    match text[..next].rfind(' ') {
        Some(end) => text.split_at(end),
        None => (text, ""),
    }
}
