//! Who was sent what: names become numbers, what a client holds is one number for each of them, and receipts of
//! a change are counted by name. Judges nothing; it is read by whoever asks what should have been.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use super::message::{Received, Response};

/// The number of a resource: of one type and name.
pub type Id = u32;

/// What the whole fleet was sent.
#[derive(Debug)]
pub struct Ledger {
    begun: Instant,
    names: RwLock<Names>,
    slots: Box<[Slot]>,
    /// Responses.
    pub responses: AtomicU64,
    /// Resources in them.
    pub resources: AtomicU64,
    /// Names of resources that are no more.
    pub removed: AtomicU64,
    /// Bytes of resources.
    pub bytes: AtomicU64,
    /// Resources that were sent to a client which held that very version.
    pub again: AtomicU64,
    /// Resources that were sent to a client which had no use for them.
    pub unasked: AtomicU64,
}

#[derive(Debug, Default)]
struct Names {
    ids: HashMap<(u8, Box<str>), Id>,
    all: Vec<(u8, Box<str>)>,
}

/// One resource.
#[derive(Debug, Default)]
struct Slot {
    receipts: AtomicU32,
    /// Nanoseconds since the ledger began.
    last: AtomicU64,
    bytes: AtomicU64,
}

/// What became of one resource since its slot was cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipts {
    /// How many clients were sent it.
    pub clients: u32,
    /// When the last of them had it.
    pub last: Option<Instant>,
    /// Bytes that it took, over all of them.
    pub bytes: u64,
}

impl Ledger {
    /// For at most so many resources.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            begun: Instant::now(),
            names: RwLock::default(),
            slots: (0..capacity).map(|_| Slot::default()).collect(),
            responses: AtomicU64::default(),
            resources: AtomicU64::default(),
            removed: AtomicU64::default(),
            bytes: AtomicU64::default(),
            again: AtomicU64::default(),
            unasked: AtomicU64::default(),
        }
    }

    /// The number of a resource.
    pub fn id(&self, kind: u8, name: &str) -> Id {
        let known = self.names.read().unwrap_or_else(PoisonError::into_inner);
        let key = (kind, Box::from(name));
        if let Some(id) = known.ids.get(&key) {
            return *id;
        }
        drop(known);
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = names.ids.get(&key) {
            return *id;
        }
        let id = Id::try_from(names.all.len()).unwrap_or(Id::MAX);
        names.all.push(key.clone());
        names.ids.insert(key, id);
        id
    }

    /// Calls `each` with the names of one type among what a client holds.
    pub fn each_held(&self, kind: u8, held: &[u64], mut each: impl FnMut(&str, u64)) {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        for ((of, name), version) in names.all.iter().zip(held) {
            if *of == kind && *version != 0 {
                each(name, *version);
            }
        }
    }

    /// Forgets who was sent a resource.
    pub fn clear(&self, id: Id) {
        if let Some(slot) = self.slots.get(id as usize) {
            slot.receipts.store(0, Relaxed);
            slot.last.store(0, Relaxed);
            slot.bytes.store(0, Relaxed);
        }
    }

    /// Who was sent a resource since its slot was cleared.
    #[must_use]
    pub fn receipts(&self, id: Id) -> Receipts {
        let slot = &self.slots[id as usize];
        let last = slot.last.load(Relaxed);
        Receipts {
            clients: slot.receipts.load(Relaxed),
            last: (last > 0).then(|| self.begun + std::time::Duration::from_nanos(last)),
            bytes: slot.bytes.load(Relaxed),
        }
    }

    /// Nanoseconds since the ledger began.
    #[must_use]
    pub fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// A moment as [`Self::now`] has it.
    #[must_use]
    pub fn at(&self, moment: Instant) -> u64 {
        let since = moment.saturating_duration_since(self.begun);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes in what a client received. `wants` says which names it has a use for.
    pub fn take(&self, kind: u8, response: &Response, held: &mut Vec<u64>, wants: impl Fn(&str) -> bool) {
        self.responses.fetch_add(1, Relaxed);
        let now = self.now();
        for one in &response.resources {
            let name = std::str::from_utf8(&one.name).unwrap_or_default();
            if !wants(name) {
                self.unasked.fetch_add(1, Relaxed);
            }
            self.receive(self.id(kind, name), one, held, now);
        }
        for name in &response.removed {
            self.removed.fetch_add(1, Relaxed);
            *place(held, self.id(kind, name)) = 0;
        }
    }

    fn receive(&self, id: Id, one: &Received, held: &mut Vec<u64>, now: u64) {
        let known = place(held, id);
        if *known == one.version {
            self.again.fetch_add(1, Relaxed);
        }
        *known = one.version;
        let bytes = one.bytes as u64;
        self.resources.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        if let Some(slot) = self.slots.get(id as usize) {
            slot.receipts.fetch_add(1, Relaxed);
            slot.last.fetch_max(now, Relaxed);
            slot.bytes.fetch_add(bytes, Relaxed);
        }
    }
}

fn place(held: &mut Vec<u64>, id: Id) -> &mut u64 {
    let at = id as usize;
    if held.len() <= at {
        held.resize(at + 1, 0);
    }
    &mut held[at]
}
