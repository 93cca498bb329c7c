//! A watch: a cursor into the history, pulled by the connection.
//!
//! It holds a bounded batch of events and nothing else, so that a client that reads slowly costs no memory;
//! one that falls behind the history is told so (410) and lists again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::kinds::Kind;
use crate::render::{self, Form};
use crate::selector::Selector;
use crate::status::ApiError;
use crate::store::{Event, Store};

const BATCH: usize = 256;
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);

/// What is watched, and how it is told.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The kind.
    pub kind: &'static Kind,
    /// One namespace, or all.
    pub namespace: Option<String>,
    /// Which objects.
    pub selector: Selector,
    /// How they are shown.
    pub form: Form,
    /// From which revision; absent: everything that is there first.
    pub from: Option<u64>,
    /// Whether bookmarks may be sent.
    pub bookmarks: bool,
    /// Whether to say where the initial objects end.
    pub announce_initial_end: bool,
    /// How long.
    pub duration: Duration,
}

struct Run {
    watch: Watch,
    store: Store,
    head: watch::Receiver<u64>,
    cursor: u64,
    initial: VecDeque<Arc<Value>>,
    initial_end: bool,
    pending: VecDeque<Arc<Event>>,
    deadline: Instant,
    bookmark_at: Instant,
    stop: CancellationToken,
    ended: bool,
}

impl Watch {
    /// The lines of the answer. The stream ends at the deadline, when the server stops, or with an error line.
    pub(crate) fn run(
        self,
        store: Store,
        stop: CancellationToken,
    ) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send + 'static {
        let now = Instant::now();
        let snapshot = store.snapshot();
        let initial = match self.from {
            Some(_) => VecDeque::new(),
            None => snapshot
                .list(self.kind.resource, self.namespace.as_deref())
                .filter(|(_, object)| self.selector.matches(object))
                .map(|(_, object)| object.clone())
                .collect(),
        };
        let run = Run {
            cursor: self.from.unwrap_or(snapshot.revision),
            head: store.head(),
            initial,
            initial_end: self.announce_initial_end && self.from.is_none(),
            pending: VecDeque::new(),
            deadline: now + self.duration,
            bookmark_at: now + BOOKMARK_EVERY,
            stop,
            ended: false,
            watch: self,
            store,
        };
        futures::stream::unfold(run, |mut run| async move {
            run.next().await.map(|line| (Ok(line), run))
        })
    }
}

impl Run {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.told() {
                return Some(line);
            }
            if self.ended {
                return None;
            }
            if let Some(object) = self.initial.pop_front() {
                return Some(self.line("ADDED", &object));
            }
            if std::mem::take(&mut self.initial_end) {
                return Some(self.bookmark(true));
            }
            // Seen before the events are read: a change in between wakes the wait at once.
            self.head.borrow_and_update();
            match self.store.events_after(self.cursor, BATCH) {
                Err(expired) => {
                    self.ended = true;
                    return Some(line("ERROR", &ApiError::from(expired).status()));
                }
                Ok(events) if !events.is_empty() => self.pending.extend(events),
                Ok(_) => {
                    if let Some(line) = self.wait().await {
                        return Some(line);
                    }
                }
            }
        }
    }

    /// The next of the fetched events that is to be told.
    fn told(&mut self) -> Option<Bytes> {
        while let Some(event) = self.pending.pop_front() {
            self.cursor = event.revision;
            let here = &*event.key.resource == self.watch.kind.resource
                && self
                    .watch
                    .namespace
                    .as_deref()
                    .is_none_or(|namespace| namespace == &*event.key.namespace);
            if here && let Some((name, object)) = transition(&self.watch.selector, &event) {
                return Some(self.line(name, &object));
            }
        }
        None
    }

    /// Waits for a change, or for the time of a bookmark, which is returned.
    async fn wait(&mut self) -> Option<Bytes> {
        tokio::select! {
            changed = self.head.changed() => self.ended = changed.is_err(),
            () = self.stop.cancelled() => self.ended = true,
            () = tokio::time::sleep_until(self.deadline) => {
                self.ended = true;
                return self.watch.bookmarks.then(|| self.bookmark(false));
            }
            () = tokio::time::sleep_until(self.bookmark_at), if self.watch.bookmarks => {
                self.bookmark_at = Instant::now() + BOOKMARK_EVERY;
                return Some(self.bookmark(false));
            }
        }
        None
    }

    fn line(&self, name: &str, object: &Value) -> Bytes {
        line(name, &render::object(self.watch.kind, object, self.watch.form))
    }

    fn bookmark(&self, initial_end: bool) -> Bytes {
        line(
            "BOOKMARK",
            &render::bookmark(self.watch.kind, self.cursor, initial_end, self.watch.form),
        )
    }
}

/// What an event is to somebody who sees only what is selected.
fn transition(selector: &Selector, event: &Event) -> Option<(&'static str, Arc<Value>)> {
    let seen = |object: &&Arc<Value>| selector.matches(object);
    let before = event.before.as_ref().filter(seen);
    let after = event.after.as_ref().filter(seen);
    match (before, after) {
        (None, None) => None,
        (None, Some(after)) => Some(("ADDED", after.clone())),
        (Some(_), Some(after)) => Some(("MODIFIED", after.clone())),
        (Some(before), None) => {
            let mut last = (**before).clone();
            last["metadata"]["resourceVersion"] = event.revision.to_string().into();
            Some(("DELETED", Arc::new(last)))
        }
    }
}

fn line(name: &str, object: &Value) -> Bytes {
    let mut line = json!({ "type": name, "object": object }).to_string();
    line.push('\n');
    line.into()
}
