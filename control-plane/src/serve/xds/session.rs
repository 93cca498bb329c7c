//! What one client has asked for, holds, and is still to be sent. Pure: requests and changes in, responses
//! out. At most one response of a type is unanswered; what changes meanwhile is a set of names, so that a
//! client that never answers costs no more than that.

mod kind;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use trefoil_api::proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::Response;
use kind::KindState;
use trefoil_control_plane_index::snapshot::{ResourceKind, Snapshot};

/// What a request turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A subscription or a change of one.
    Subscribed,
    /// A response was taken.
    Acknowledged,
    /// A response was refused, at least in part.
    Refused(String),
    /// A type that is not served.
    UnknownType(String),
}

/// One client. See the module.
#[derive(Debug)]
pub struct Session {
    /// In the order of [`ResourceKind::ALL`].
    kinds: [KindState; ResourceKind::ALL.len()],
    nonce: u64,
    /// Workloads, and removals of policies, wait for the client to ask for the other type too.
    patient: bool,
    /// A response may be as large as everything there is.
    roomy: bool,
}

/// What is shown of a client and a type.
#[derive(Clone, Debug, Serialize)]
pub struct TypeSummary {
    /// The type.
    pub type_url: &'static str,
    /// It gets all.
    pub wildcard: bool,
    /// Names that it asked for.
    pub names: usize,
    /// Resources that it holds.
    pub held: usize,
    /// Names that are still to be sent.
    pub pending: usize,
    /// A response is unanswered.
    pub outstanding: bool,
    /// Responses taken.
    pub acknowledged: u64,
    /// Responses refused.
    pub refused: u64,
    /// What the last refusal said; none once a later response was taken whole.
    pub refusal: Option<String>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            kinds: ResourceKind::ALL.map(KindState::new),
            nonce: 0,
            patient: true,
            roomy: true,
        }
    }
}

impl Session {
    fn kind(&mut self, kind: ResourceKind) -> &mut KindState {
        &mut self.kinds[kind as usize]
    }

    fn of(&self, kind: ResourceKind) -> &KindState {
        &self.kinds[kind as usize]
    }

    /// Takes a request in.
    pub fn request(&mut self, request: DeltaDiscoveryRequest, snapshot: &Snapshot) -> Event {
        let Some(kind) = ResourceKind::of(&request.type_url) else {
            return Event::UnknownType(request.type_url);
        };
        let state = self.kind(kind);
        let answer = state.answer(&request);
        state.subscribe(request, snapshot.of(kind));
        answer.unwrap_or(Event::Subscribed)
    }

    /// Notes that resources changed; `generation` is that of the resources thereafter.
    pub fn changed(&mut self, kind: ResourceKind, names: &Names, generation: u64) {
        self.kind(kind).changed(names, generation);
    }

    /// Says whether a response may be as large as everything there is. Such ones are put off until it may.
    pub fn set_roomy(&mut self, roomy: bool) {
        self.roomy = roomy;
    }

    /// About how many bytes are due that are put off unless there is room for them.
    #[must_use]
    pub fn room(&self, snapshot: &Snapshot) -> usize {
        let kinds = ResourceKind::ALL.into_iter();
        kinds
            .filter_map(|kind| self.of(kind).room(snapshot.of(kind)))
            .sum()
    }

    /// Whether a response is unanswered.
    #[must_use]
    pub fn awaits_answer(&self) -> bool {
        self.kinds.iter().any(KindState::awaits_answer)
    }

    /// Neither type need wait any longer for the client to ask for the other.
    pub fn lose_patience(&mut self) {
        self.patient = false;
    }

    /// The next response, if one is due. Settings and routes wait for nothing. Policies come before the workloads
    /// that name them, and go after the workloads that named them.
    pub fn next(&mut self, snapshot: &Snapshot) -> Option<Response> {
        let (address, before) = ResourceKind::ALL.split_last()?;
        if let Some(response) = before.iter().find_map(|kind| self.send(*kind, snapshot)) {
            return Some(response);
        }
        if self.waits_for_policies(snapshot) {
            return None;
        }
        // Where nothing was left to say about workloads, policies that were kept for their sake may go now.
        let policies = ResourceKind::POLICIES.into_iter();
        std::iter::once(*address)
            .chain(policies)
            .find_map(|kind| self.send(kind, snapshot))
    }

    /// Whether workloads may name policies that the client was not sent, in the form that it asks for.
    fn waits_for_policies(&self, snapshot: &Snapshot) -> bool {
        let mut asked = ResourceKind::POLICIES
            .into_iter()
            .filter(|kind| self.of(*kind).is_subscribed())
            .peekable();
        if asked.peek().is_none() {
            return self.patient;
        }
        asked.any(|kind| self.of(kind).has_more_to_send(snapshot.of(kind)))
    }

    fn send(&mut self, kind: ResourceKind, snapshot: &Snapshot) -> Option<Response> {
        if !self.roomy && self.of(kind).room(snapshot.of(kind)).is_some() {
            return None;
        }
        let workloads = self.of(ResourceKind::Address);
        // A client that reconnects asks for policies first: the workloads that it holds may still name them.
        let unheard_of = !workloads.is_subscribed() && self.patient;
        let keep_removals = ResourceKind::POLICIES.contains(&kind) && (unheard_of || workloads.has_pending());
        let nonce = format!("{}", self.nonce + 1);
        let response = self.kind(kind).send(nonce, snapshot.of(kind), keep_removals)?;
        self.nonce += 1;
        Some(response)
    }

    /// Whether the client has not yet taken the latest of a resource that it is to have.
    #[must_use]
    pub fn owes(&self, kind: ResourceKind, name: &str) -> bool {
        self.of(kind).owes(name)
    }

    /// Whether the client has not yet taken all that it is to have of a kind.
    #[must_use]
    pub fn is_behind(&self, kind: ResourceKind) -> bool {
        self.of(kind).is_behind()
    }

    /// What is shown of it.
    #[must_use]
    pub fn summaries(&self) -> Vec<(ResourceKind, TypeSummary)> {
        ResourceKind::ALL
            .into_iter()
            .filter(|kind| self.of(*kind).is_subscribed())
            .map(|kind| (kind, self.of(kind).summary()))
            .collect()
    }
}

/// A set of resource names.
type Names = BTreeSet<Arc<str>>;
