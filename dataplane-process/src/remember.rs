//! The last configuration that was good, on disk: a plane that restarts while the control plane is away
//! serves with it. It holds no keys. A file that cannot be read whole is as good as none.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message;
use tokio::sync::watch;
use trefoil_api::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;

use trefoil_dataplane_state::discovery::Held;

#[cfg(test)]
mod tests;

/// First bytes of the file: what it is, and the version of its form.
const MAGIC: &[u8; 8] = b"trefoil1";

/// Why a remembered configuration is not used.
#[derive(Debug, thiserror::Error)]
pub enum RecallError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{path}: damaged: {problem}")]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How that shows.
        problem: &'static str,
    },
}

/// Where configuration is remembered.
#[derive(Clone, Debug)]
pub struct Remember {
    path: PathBuf,
    /// Between two writes.
    interval: Duration,
}

impl Remember {
    /// Remembers in a file, written at most once in an `interval`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, interval: Duration) -> Self {
        Self {
            path: path.into(),
            interval,
        }
    }

    /// What was remembered; nothing where there is no file, or, with a warning, where it is damaged.
    #[must_use]
    pub fn recall(&self) -> Held {
        read(&self.path).unwrap_or_else(|error| {
            tracing::warn!(%error, "the remembered configuration is not used");
            Held::new()
        })
    }

    /// Writes what is held whenever it changes, until its sender is gone; then a last time.
    pub async fn run(self, mut held: watch::Receiver<Held>) {
        let mut open = true;
        while open {
            open = held.changed().await.is_ok();
            let now = held.borrow_and_update().clone();
            let path = self.path.clone();
            let written = tokio::task::spawn_blocking(move || write(&path, &now)).await;
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(path = %self.path.display(), %error, "configuration is not remembered");
                }
                Err(error) => tracing::warn!(%error, "configuration is not remembered"),
            }
            if open {
                tokio::time::sleep(self.interval).await;
            }
        }
    }
}

/// Reads a file that [`write`] wrote. None there: nothing was held.
fn read(path: &Path) -> Result<Held, RecallError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Held::new()),
        Err(source) => {
            return Err(RecallError::File {
                path: path.into(),
                source,
            });
        }
    };
    decode(&bytes).map_err(|problem| RecallError::Damaged {
        path: path.into(),
        problem,
    })
}

/// Magic, SHA-256 of the rest, then responses, each with its length before it.
fn encode(held: &Held) -> Vec<u8> {
    let mut body = Vec::new();
    for response in held.responses() {
        body.extend(response.encode_length_delimited_to_vec());
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(digest(&body).as_ref());
    bytes.extend(body);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Held, &'static str> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("not a file of this kind")?;
    let (sum, mut body) = rest.split_at_checked(32).ok_or("too short")?;
    if digest(body).as_ref() != sum {
        return Err("its checksum differs");
    }
    let mut held = Held::new();
    while !body.is_empty() {
        let response = DeltaDiscoveryResponse::decode_length_delimited(&mut body)
            .map_err(|_| "a resource cannot be read")?;
        held.apply(response, &[]);
    }
    Ok(held)
}

fn digest(bytes: &[u8]) -> aws_lc_rs::digest::Digest {
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes)
}

/// All or nothing: a file beside it, flushed, then renamed over it.
fn write(path: &Path, held: &Held) -> io::Result<()> {
    let beside = path.with_extension("new");
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut file = std::fs::File::create(&beside)?;
    file.write_all(&encode(held))?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    std::fs::File::open(folder)?.sync_all()
}
