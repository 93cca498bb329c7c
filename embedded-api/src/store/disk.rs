//! The one module that knows sled: records on disk and their encoding.
//!
//! A batch is recovered whole or not at all. Nothing here may acknowledge before the flush has returned.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::{Key, Objects, Snapshot, StoreError};

/// Sorts before every object's key, since no resource's name begins with it.
const REVISION: &[u8] = b"\0revision";
const SEPARATOR: u8 = 0;
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// Records of one commit.
#[derive(Debug, Default)]
pub(super) struct Batch(sled::Batch);

impl Batch {
    pub(super) fn put(&mut self, key: &Key, value: Vec<u8>) {
        self.0.insert(encode(key), value);
    }

    pub(super) fn delete(&mut self, key: &Key) {
        self.0.remove(encode(key));
    }
}

/// The open database.
#[derive(Debug)]
pub(super) struct Disk {
    database: sled::Db,
}

impl Disk {
    /// Opens the folder and reads everything in it.
    pub(super) fn open(folder: &Path) -> Result<(Self, Snapshot), StoreError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| StoreError::Open(format!("{}: {error}", folder.display())))?;
        let database = sled::Config::new()
            .path(folder)
            .cache_capacity(CACHE_BYTES)
            // Every commit flushes; a timer of sled's own would only add work.
            .flush_every_ms(None)
            .open()
            .map_err(|error| StoreError::Open(format!("{}: {error}", folder.display())))?;
        let snapshot = read(&database)?;
        Ok((Self { database }, snapshot))
    }

    /// Writes a batch and the revision it leads to, whole or not at all, and flushes.
    pub(super) fn commit(&self, batch: Batch, revision: u64) -> Result<(), StoreError> {
        let mut batch = batch.0;
        batch.insert(REVISION, &revision.to_be_bytes());
        self.database
            .apply_batch(batch)
            .map_err(|error| StoreError::Write(error.to_string()))?;
        self.database
            .flush()
            .map_err(|error| StoreError::Write(error.to_string()))?;
        Ok(())
    }
}

fn read(database: &sled::Db) -> Result<Snapshot, StoreError> {
    let mut snapshot = Snapshot::default();
    let mut objects = Objects::new();
    for record in database.iter() {
        let (key, value) = record.map_err(|error| StoreError::Open(error.to_string()))?;
        if &*key == REVISION {
            let bytes = value
                .as_ref()
                .try_into()
                .map_err(|_| StoreError::Damaged("revision".into()))?;
            snapshot.revision = u64::from_be_bytes(bytes);
            continue;
        }
        let damaged = || StoreError::Damaged(String::from_utf8_lossy(&key).replace('\0', "/"));
        let value: Value = serde_json::from_slice(&value).map_err(|_| damaged())?;
        objects.insert(decode(&key).ok_or_else(damaged)?, Arc::new(value));
    }
    snapshot.objects = objects;
    Ok(snapshot)
}

fn encode(key: &Key) -> Vec<u8> {
    [&*key.resource, &*key.namespace, &*key.name]
        .join(&*(SEPARATOR as char).to_string())
        .into_bytes()
}

fn decode(bytes: &[u8]) -> Option<Key> {
    let mut parts = std::str::from_utf8(bytes).ok()?.split(SEPARATOR as char);
    let key = Key::new(parts.next()?, parts.next()?, parts.next()?);
    parts.next().is_none().then_some(key)
}
