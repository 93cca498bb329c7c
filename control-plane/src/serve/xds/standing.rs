//! Since when a client holds, or lacks, what is served: for people, and nothing is decided by it. Pure: the time
//! is passed in.

use std::time::Instant;

use trefoil_control_plane_index::snapshot::ResourceKind;

#[cfg(test)]
mod tests;

/// One client's.
#[derive(Debug)]
pub(super) struct Standing {
    connected: Instant,
    /// In the order of [`ResourceKind::ALL`].
    kinds: [OfKind; ResourceKind::ALL.len()],
}

#[derive(Clone, Copy, Debug, Default)]
struct OfKind {
    acknowledged: Option<Instant>,
    behind: Option<Instant>,
}

impl Standing {
    /// Of a client that has just connected.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            connected: now,
            kinds: Default::default(),
        }
    }

    /// It took a response.
    pub(super) fn acknowledged(&mut self, kind: ResourceKind, now: Instant) {
        self.kinds[kind as usize].acknowledged = Some(now);
    }

    /// Whether there is something that it has not taken. It is behind since the first time that this was so.
    pub(super) fn note(&mut self, kind: ResourceKind, behind: bool, now: Instant) {
        let of_kind = &mut self.kinds[kind as usize];
        of_kind.behind = behind.then(|| of_kind.behind.unwrap_or(now));
    }

    /// For how many seconds it has been connected.
    pub(super) fn connected_seconds(&self, now: Instant) -> u64 {
        now.duration_since(self.connected).as_secs()
    }

    /// How many seconds ago it took a response; none if it never did.
    pub(super) fn acknowledged_seconds(&self, kind: ResourceKind, now: Instant) -> Option<u64> {
        let then = self.kinds[kind as usize].acknowledged?;
        Some(now.duration_since(then).as_secs())
    }

    /// For how many seconds it has lacked something; none if it has all.
    pub(super) fn behind_seconds(&self, kind: ResourceKind, now: Instant) -> Option<u64> {
        let since = self.kinds[kind as usize].behind?;
        Some(now.duration_since(since).as_secs())
    }
}
