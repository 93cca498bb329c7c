//! The archive: the only way into it takes out what is secret, and bounds what comes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use tar::{Builder, Header};

use super::scrub;

/// Bytes of one file in it, after which it is cut.
pub(super) const FILE_BYTES: usize = 2 << 20;
/// Bytes of all, before they are compressed.
const TOTAL_BYTES: usize = 96 << 20;

/// An archive that is being written.
pub(super) struct Archive {
    path: PathBuf,
    tar: Builder<GzEncoder<File>>,
    /// Bytes that still fit.
    room: usize,
    files: usize,
    modified: u64,
    /// What is not in it, and why.
    missing: Vec<String>,
}

/// What was written.
#[derive(Debug, Serialize)]
pub(super) struct Written {
    pub(super) file: PathBuf,
    pub(super) files: usize,
    /// What could not be got, and why; it is in the archive too.
    pub(super) missing: Vec<String>,
}

/// Which end of a text is worth more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    Start,
    End,
}

impl Archive {
    /// An archive at a path where there is no file, for its owner alone. `modified`: seconds since 1970.
    pub(super) fn create(path: &Path, modified: u64) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let file = file.with_context(|| format!("creating {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            tar: Builder::new(GzEncoder::new(file, Compression::default())),
            room: TOTAL_BYTES,
            files: 0,
            modified,
            missing: Vec::new(),
        })
    }

    /// The same, with room for fewer bytes.
    #[cfg(test)]
    pub(super) fn with_room(self, room: usize) -> Self {
        Self { room, ..self }
    }

    /// Adds a text of which the latest is worth most, such as a log.
    pub(super) fn log(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        self.write(name, &scrub::text(text), Keep::End)
    }

    /// Adds a text.
    pub(super) fn text(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        self.write(name, &scrub::text(text), Keep::Start)
    }

    /// Adds a value as JSON.
    pub(super) fn json(&mut self, name: &str, value: &impl Serialize) -> anyhow::Result<()> {
        let mut value = serde_json::to_value(value)?;
        scrub::value(&mut value);
        self.write(name, &serde_json::to_string_pretty(&value)?, Keep::Start)
    }

    /// Notes that something is not in it.
    pub(super) fn lacks(&mut self, what: impl Into<String>) {
        self.missing.push(scrub::text(&what.into()));
    }

    fn write(&mut self, name: &str, text: &str, keep: Keep) -> anyhow::Result<()> {
        let kept = cut(text, FILE_BYTES, keep);
        if kept.len() < text.len() {
            self.missing
                .push(format!("{name}: cut to {} of {} bytes", kept.len(), text.len()));
        }
        if kept.len() > self.room {
            self.missing.push(format!("{name}: the archive is full"));
            return Ok(());
        }
        self.room -= kept.len();
        self.append(name, kept)
    }

    fn append(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        self.files += 1;
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.modified);
        let name = format!("trefoil-bugreport/{name}");
        let written = self.tar.append_data(&mut header, name, text.as_bytes());
        written.with_context(|| format!("writing {}", self.path.display()))
    }

    /// Ends it, with what it lacks.
    pub(super) fn finish(mut self) -> anyhow::Result<Written> {
        let missing = match self.missing.as_slice() {
            [] => "nothing is missing\n".to_owned(),
            missing => missing.join("\n") + "\n",
        };
        self.append("missing.txt", &missing)?;
        self.tar.into_inner()?.finish()?.sync_all()?;
        Ok(Written {
            file: self.path,
            files: self.files,
            missing: self.missing,
        })
    }
}

/// As much of a text as fits, in whole characters.
fn cut(text: &str, limit: usize, keep: Keep) -> &str {
    if text.len() <= limit {
        return text;
    }
    match keep {
        Keep::Start => &text[..text.floor_char_boundary(limit)],
        Keep::End => &text[text.ceil_char_boundary(text.len() - limit)..],
    }
}
