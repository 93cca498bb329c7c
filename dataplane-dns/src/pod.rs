//! One pod's queries: as datagrams here, over TCP in the module `stream`. What is known is answered at once; whatever
//! waits for a resolver is a task, and they are bounded.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::Level;
use trefoil_dataplane_core::Drain;
use trefoil_dataplane_state::Store;

use crate::datagrams::{Arrival, Datagrams};
use crate::forward::{self, ForwardError};
use crate::message::{self, Question, Transport, Wanted};
use crate::metrics::{self, Outcome};
use crate::{Config, Metrics, Sockets, names};

/// Where resolvers are asked.
const DOMAIN: u16 = 53;
/// A pod that leaves is served for so many quiet times at most.
const IMPATIENCE: u32 = 10;
/// The longest query that is taken as a datagram; longer ones come over TCP.
const LONGEST_QUERY: usize = 4096;

/// A pod that is served.
pub(crate) struct Served {
    pub(crate) store: Store,
    pub(crate) metrics: Metrics,
    pub(crate) config: Config,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) sockets: Arc<dyn Sockets>,
    pub(crate) drain: Drain,
    pub(crate) waiting: Arc<Semaphore>,
}

/// A query while it is served: what is said of it at its end.
pub(crate) struct Asked {
    pub(crate) question: Option<Question>,
    pub(crate) resolver: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) since: Instant,
}

impl Asked {
    pub(crate) fn now(question: Option<Question>, resolver: IpAddr, transport: Transport) -> Self {
        Self {
            question,
            resolver: SocketAddr::new(resolver, DOMAIN),
            transport,
            since: Instant::now(),
        }
    }
}

impl Served {
    /// The answer from what is known, if it is.
    pub(crate) fn answer(&self, query: &[u8], asked: &Asked) -> Option<Vec<u8>> {
        let question = asked.question.as_ref()?;
        if question.wanted == Wanted::Other {
            return None;
        }
        let found = names::find(&self.store.snapshot(), &question.name)?;
        message::answer(query, question.wanted, &found, asked.transport)
    }

    /// What a resolver said, or that it said nothing.
    pub(crate) fn conclude(
        &self,
        query: &[u8],
        asked: &Asked,
        response: Result<Vec<u8>, ForwardError>,
    ) -> Option<Vec<u8>> {
        match response {
            Ok(response) => {
                self.metrics.responded(asked.since.elapsed());
                self.done(asked, Outcome::Forwarded, None);
                Some(response)
            }
            Err(error) => {
                self.done(asked, Outcome::Failed, Some(&error));
                message::failure(query)
            }
        }
    }

    /// Counts a query, and says what became of it.
    pub(crate) fn done(&self, asked: &Asked, outcome: Outcome, error: Option<&ForwardError>) {
        self.metrics.count(outcome, asked.transport);
        let question = asked.question.as_ref();
        let (workload, namespace) = (self.name.as_str(), self.namespace.as_str());
        tracing::event!(
            target: "access",
            Level::DEBUG,
            src.workload = workload,
            src.namespace = namespace,
            dns.name = question.map(|question| question.name.as_str()),
            dns.kind = question.map(|question| question.kind.as_str()),
            dns.resolver = %asked.resolver.ip(),
            transport = metrics::name(asked.transport),
            outcome = outcome.as_str(),
            duration = %format_args!("{}ms", asked.since.elapsed().as_millis()),
            error = error.map(display),
            "query"
        );
    }
}

/// Takes datagrams until the pod leaves and asks nothing more.
pub(crate) async fn answer_datagrams(pod: Arc<Served>, socket: Arc<Datagrams>) {
    // Before the mesh is known nobody is asked to send queries here.
    tokio::select! {
        () = pod.store.until_synced() => {}
        () = pod.drain.draining() => return,
    }
    let mut pulse = interval(pod.config.pulse);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut buffer = vec![0; LONGEST_QUERY];
    let mut leaving: Option<Leaving> = None;
    loop {
        let until = leaving.as_ref().map_or_else(Instant::now, Leaving::until);
        tokio::select! {
            _ = pulse.tick(), if leaving.is_none() => {
                if let Err(error) = socket.pulse().await {
                    tracing::debug!(%error, "redirection is not told that queries are answered");
                }
            }
            received = socket.receive(&mut buffer) => match received {
                Ok(arrival) => {
                    if !socket.is_pulse(&arrival) && let Some(leaving) = &mut leaving {
                        leaving.heard(&pod.config);
                    }
                    datagram(&pod, &socket, arrival, &buffer).await;
                }
                // Of an earlier response whose client went, for one.
                Err(error) => tracing::debug!(%error, "a datagram could not be received"),
            },
            () = pod.drain.draining(), if leaving.is_none() => leaving = Some(Leaving::now(&pod.config)),
            () = sleep_until(until), if leaving.is_some() => return,
        }
    }
}

/// When a pod that leaves is left.
struct Leaving {
    quiet: Instant,
    last: Instant,
}

impl Leaving {
    fn now(config: &Config) -> Self {
        let now = Instant::now();
        Self {
            quiet: now + config.quiet,
            last: now + config.quiet * IMPATIENCE,
        }
    }

    fn heard(&mut self, config: &Config) {
        self.quiet = Instant::now() + config.quiet;
    }

    fn until(&self) -> Instant {
        self.quiet.min(self.last)
    }
}

async fn datagram(pod: &Arc<Served>, socket: &Arc<Datagrams>, arrival: Arrival, buffer: &[u8]) {
    if socket.is_pulse(&arrival) {
        return;
    }
    let transport = Transport::Datagram;
    let Some(resolver) = arrival.resolver else {
        return pod.metrics.count(Outcome::Misdirected, transport);
    };
    let query = &buffer[..arrival.length.min(buffer.len())];
    let Ok(question) = message::read(query) else {
        return pod.metrics.count(Outcome::Malformed, transport);
    };
    let asked = Asked::now(question, resolver, transport);
    let response = match pod.answer(query, &asked) {
        Some(answer) => {
            pod.done(&asked, Outcome::Answered, None);
            Some(answer)
        }
        None => match pod.waiting.clone().try_acquire_owned() {
            Ok(place) => {
                let (pod, socket, query) = (pod.clone(), socket.clone(), query.to_vec());
                let tasks = pod.drain.clone();
                drop(tasks.spawn(async move {
                    let patience = pod.config.patience;
                    let response = forward::ask(&*pod.sockets, asked.resolver, &query, patience).await;
                    respond(&socket, pod.conclude(&query, &asked, response), arrival.from).await;
                    drop(place);
                }));
                None
            }
            Err(_) => {
                pod.done(&asked, Outcome::Overloaded, None);
                message::failure(query)
            }
        },
    };
    respond(socket, response, arrival.from).await;
}

async fn respond(socket: &Datagrams, response: Option<Vec<u8>>, to: SocketAddr) {
    if let Some(response) = response
        && let Err(error) = socket.send(&response, to).await
    {
        tracing::debug!(%error, %to, "a response could not be sent");
    }
}
