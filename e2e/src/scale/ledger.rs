//! Who was sent what: names become numbers, what a client holds is one number for each of them, and receipts of
//! a change are counted by name. Judges nothing; it is read by whoever asks what should have been.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use super::message::Response;

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
    /// By type, then by name.
    ids: BTreeMap<u8, HashMap<Box<str>, Id>>,
    all: Vec<(u8, Box<str>)>,
}

/// One resource.
#[derive(Debug, Default)]
struct Slot {
    receipts: AtomicU32,
    /// Nanoseconds since the ledger began.
    last: AtomicU64,
}

/// What became of one resource since its slot was cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipts {
    /// How many clients were sent it.
    pub clients: u32,
    /// When the last of them had it.
    pub last: Option<Instant>,
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
        if let Some(id) = self.known().id(kind, name) {
            return id;
        }
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = names.id(kind, name) {
            return id;
        }
        let id = Id::try_from(names.all.len()).unwrap_or(Id::MAX);
        names.all.push((kind, name.into()));
        names.ids.entry(kind).or_default().insert(name.into(), id);
        id
    }

    fn known(&self) -> RwLockReadGuard<'_, Names> {
        self.names.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `each` with the names of one type among what a client holds.
    pub fn each_held(&self, kind: u8, held: &[u64], mut each: impl FnMut(&str, u64)) {
        let names = self.known();
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
        let now = self.now();
        let (mut bytes, mut again, mut unasked) = (0, 0, 0);
        for one in &response.resources {
            let name = one.name.as_ref();
            unasked += u64::from(!wants(name));
            bytes += one.bytes as u64;
            let id = self.id(kind, name);
            let known = place(held, id);
            again += u64::from(*known == one.version);
            *known = one.version;
            if let Some(slot) = self.slots.get(id as usize) {
                slot.receipts.fetch_add(1, Relaxed);
                slot.last.fetch_max(now, Relaxed);
            }
        }
        for name in &response.removed {
            *place(held, self.id(kind, name)) = 0;
        }
        self.responses.fetch_add(1, Relaxed);
        self.resources.fetch_add(response.resources.len() as u64, Relaxed);
        self.removed.fetch_add(response.removed.len() as u64, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
        self.again.fetch_add(again, Relaxed);
        self.unasked.fetch_add(unasked, Relaxed);
    }
}

impl Names {
    fn id(&self, kind: u8, name: &str) -> Option<Id> {
        self.ids.get(&kind)?.get(name).copied()
    }
}

fn place(held: &mut Vec<u64>, id: Id) -> &mut u64 {
    let at = id as usize;
    if held.len() <= at {
        held.resize(at + 1, 0);
    }
    &mut held[at]
}
