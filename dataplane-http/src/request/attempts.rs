//! A request is tried until there is an answer, or no more is to be tried: what a rule allows, within its limits.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use http::{Response, Version};
use rand::Rng;
use tokio::time::{Instant, sleep};
use trefoil_dataplane_core::telemetry::Flag;

use super::limits::{self, Limit, within};
use super::{Asked, Connection};
use crate::answer::Refusal;
use crate::body::Source;
use crate::head::says_its_length;
use crate::incoming::Incoming;
use crate::interim;
use crate::retry::wait;
use crate::routing::Retry;
use crate::seam::Permit;
use crate::telemetry::Record;
use crate::under_way::{Passage, as_known};
use crate::upstream::{self, Lease, SendError};

/// Attempts beyond the first, whatever the rule, where nothing was sent or it does no harm to send it again.
const UNSENT: u32 = 2;

/// An attempt that was answered.
pub(super) struct Answered {
    pub(super) response: Response<Incoming>,
    pub(super) using: Using,
    pub(super) backend: Option<usize>,
}

/// What a response uses until it has ended.
pub(super) struct Using {
    pub(super) lease: Lease,
    /// When the response must have ended, and what it is then that has run out.
    pub(super) until: Option<Limit>,
    pub(super) passage: Arc<Passage>,
}

/// What an attempt failed of, and whether the same may be sent again.
struct Failed {
    refusal: Refusal,
    again: bool,
    sent: bool,
}

impl Connection {
    /// Tries until there is an answer, or no more is to be tried.
    pub(super) async fn attempts(
        &self,
        asked: &Arc<Asked>,
        source: &Source,
        record: &mut Record,
    ) -> Result<Answered, Refusal> {
        let rule = asked.rule.as_deref();
        let retry = rule.and_then(|rule| rule.retry.as_ref());
        if let Some(retry) = retry {
            retry.budget.deposit();
        }
        let whole = limits::of_request(asked, record.began);
        let late = |moment: Instant| whole.filter(|(until, _)| *until <= moment);
        if let Some((_, what)) = late(Instant::now()) {
            return Err(Refusal::TimedOut(what));
        }
        let mut tried = 0;
        loop {
            record.attempts = tried + 1;
            let came = self.attempt(asked, source, whole, record).await;
            let least = retry.map_or(Duration::ZERO, |retry| retry.backoff);
            let pause = wait(least, tried, rand::rng().random());
            // One that would come too late is not begun: what there is already says more.
            let in_time = late(Instant::now() + pause).is_none();
            let more = |retry: &Retry| in_time && tried < retry.attempts && retry.budget.withdraw();
            match came {
                Ok(answered) => {
                    let code = answered.response.status().as_u16();
                    let again = |retry: &&Retry| retry.codes.contains(&code) && source.replayable();
                    if !retry.filter(again).is_some_and(more) {
                        return Ok(answered);
                    }
                    // Its application may be sent the body still, of which the next is the only reader.
                    let over = Refusal::Broken("it is tried again".into());
                    answered.using.passage.end(over);
                }
                Err(Failed { refusal, again, sent }) => {
                    let spared = !sent && tried < UNSENT && in_time;
                    if !again || !(spared || retry.is_some_and(more)) {
                        return Err(refusal);
                    }
                }
            }
            sleep(pause).await;
            tried += 1;
        }
    }

    /// One attempt: choose, decide, send.
    async fn attempt(
        &self,
        asked: &Arc<Asked>,
        source: &Source,
        whole: Option<Limit>,
        record: &mut Record,
    ) -> Result<Answered, Failed> {
        let rule = asked.rule.as_deref();
        let (server, backend) = self.choose(rule).map_err(never)?;
        record.service.clone_from(&server.service);
        let server = Arc::new(server);
        record.server = Some(server.clone());
        // Before it is decided about: what changes from here on ends it.
        let passage = self.under_way.enter(asked, &server);
        // What was dialled itself is what it was when the connection began: policies that select it may be others now.
        let now = as_known(&self.engine.store, &server).ok_or_else(|| never(Refusal::Unknown))?;
        let server = Arc::new(now);
        record.server = Some(server.clone());
        let changed = backend.and_then(|at| rule.map(|rule| &rule.backends[at]));
        let mut sending = self.sending(asked, server, changed).map_err(never)?;
        if let Permit::Authorized(authorized) = &sending.permit {
            record.allowed(authorized);
            self.engine.config.connections.audited(&record.audit);
        }
        let until = limits::of_attempt(asked, whole);
        if let (Some((until, _)), Some(_)) = (until, asked.timeout) {
            sending.has_until(until);
        }
        if asked.parts.version >= Version::HTTP_11 {
            sending.tells(&passage);
        }
        let sending = sending.send(self, source.attempt(&passage));
        let sent = self.unless_denied(asked, &passage, within(until, sending)).await;
        let sent = sent.map_err(never)?.map_err(|what| Failed {
            refusal: Refusal::TimedOut(what),
            again: source.replayable(),
            sent: true,
        })?;
        match sent {
            Ok((response, _)) if !says_its_length(response.headers()) => {
                let ambiguous = "its answer does not say its length in one way";
                Err(never(Refusal::Broken(ambiguous.into())))
            }
            Ok((response, lease)) => Ok(Answered {
                response,
                using: Using {
                    lease,
                    until,
                    passage,
                },
                backend,
            }),
            Err(error) => Err(failed(error, asked, source)),
        }
    }

    /// What `work` comes to, or why it is no longer allowed. Meanwhile interim responses are passed on.
    async fn unless_denied<T>(
        &self,
        asked: &Asked,
        passage: &Passage,
        work: impl Future<Output = T>,
    ) -> Result<T, Refusal> {
        let done = tokio::select! {
            biased;
            refusal = poll_fn(|cx| {
                let denied = passage.poll_response(cx);
                self.pass_interim(asked, passage);
                denied
            }) => return Err(refusal),
            done = work => done,
        };
        // One may have come just now: it goes before the response.
        self.pass_interim(asked, passage);
        Ok(done)
    }

    fn pass_interim(&self, asked: &Asked, passage: &Passage) {
        for said in passage.take_interim() {
            match &asked.stream {
                Some(stream) => stream.interim(said),
                None => self.wire.interim(&interim::written(&said)),
            }
        }
    }
}

/// Nothing that another attempt would change.
fn never(refusal: Refusal) -> Failed {
    Failed {
        refusal,
        again: false,
        sent: false,
    }
}

fn failed(error: SendError, asked: &Asked, source: &Source) -> Failed {
    match error {
        SendError::Open(failure) => Failed {
            again: failure.flag != Flag::Deny,
            sent: false,
            refusal: failure.into(),
        },
        SendError::Broken { error, reused } => Failed {
            refusal: upstream::broke(&error),
            again: source.replayable(),
            // It may be sent again where it was not acted upon, and where that is no harm (RFC 9110, section 9.2.2).
            sent: !(error.not_acted_upon()
                || reused && error.ended_in_order() && asked.parts.method.is_idempotent()),
        },
    }
}
