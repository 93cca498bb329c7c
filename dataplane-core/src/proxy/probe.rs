//! A real connection that somebody asked for, to see what becomes of it: by the way that the pod's own
//! connections take, as the pod and as nobody else. No byte is sent to the server, and a few are made a
//! second only. It leaves its line in the access log and counts like any other.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use trefoil_api::question::{Arriving, Leaving, Outcome, Probed};

use super::Proxy;
use super::connections::Tracked;
use super::evaluate::{NotAnswered, fault};
use super::failure::Failure;
use super::inbound::{Arrival, Reached, close, far, try_reach};
use super::outbound::{Way, connect};
use super::pod::Served;
use crate::forward::{Broken, ForwardError, Heard, Side, listen};
use crate::identify::Peer;
use crate::telemetry::{Record, Reporter};

/// How many are made in an [`AGAIN`].
const AT_ONCE: usize = 4;
/// How long a place is taken at least.
const AGAIN: Duration = Duration::from_secs(1);
/// How long making one may take: who asks waits no longer than five seconds.
const CONNECT: Duration = Duration::from_secs(3);
/// How long the server has to speak or to end it.
const LISTEN: Duration = Duration::from_millis(400);

/// The places there are.
pub(super) struct Probes(Arc<Semaphore>);

impl Default for Probes {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Probes {
    /// Takes a place, which is free again after a while at the earliest.
    fn take(&self) -> Result<(), NotAnswered> {
        let place = self.0.clone().try_acquire_owned();
        let place = place.map_err(|_| NotAnswered::Busy)?;
        tokio::spawn(async move {
            sleep(AGAIN).await;
            drop(place);
        });
        Ok(())
    }
}

/// What became of one.
type Made = Result<Heard, Failure>;

impl Proxy {
    /// Has a pod that is served here dial.
    pub async fn probe(&self, question: &Leaving) -> Result<Probed, NotAnswered> {
        let (pod, own) = self.asked_about(&question.workload)?;
        let source = own.addresses.first();
        let source = *source.ok_or_else(|| NotAnswered::NotKnown(own.uid.clone()))?;
        self.probes.take()?;
        let mut record = self.probe_record(Reporter::Source, source);
        record.source.identity = Some(pod.identity.clone());
        let dialled = Box::pin(dial(self, &pod, question.destination, &mut record));
        let made = match timeout(CONNECT, dialled).await {
            Ok(Ok(way)) => way.hear(self, &mut record).await,
            Ok(Err(failure)) => Err(failure),
            Err(_) if record.tunnel_address.is_some() => Err(Failure::PlaneSilent(CONNECT)),
            Err(_) => Err(Failure::Silent(CONNECT)),
        };
        Ok(self.probed(record, &made))
    }

    /// Has a connection in the clear arrive at a pod that is served here, from the address that is named.
    pub async fn reach(&self, question: &Arriving) -> Result<Probed, NotAnswered> {
        let (pod, _) = self.asked_about(&question.workload)?;
        self.probes.take()?;
        let mut record = self.probe_record(Reporter::Destination, question.source);
        let arrival = Arrival {
            peer: Peer::Unauthenticated,
            source: record.source_address,
            destination: question.destination,
            service: None,
        };
        let arrived = Box::pin(arrive(self, &pod, &mut record, arrival));
        let made = match timeout(CONNECT, arrived).await {
            Ok(Ok((application, mut tracked, _permit))) => hear(application, &mut tracked, &mut record).await,
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::Silent(CONNECT)),
        };
        Ok(self.probed(record, &made))
    }

    fn probe_record(&self, reporter: Reporter, source: IpAddr) -> Record {
        Record::new(&self.metrics, reporter, SocketAddr::new(source, 0))
    }

    /// Puts on record what became of it, and says it.
    fn probed(&self, mut record: Record, made: &Made) -> Probed {
        close(self, &mut record, made);
        let outcome = match made {
            Ok(Heard::Speech) => Outcome::Answered,
            Ok(Heard::Silence) => Outcome::Open,
            Ok(Heard::End) => Outcome::Closed,
            // Reset once it was made: as good as an end, if nobody says why.
            Err(failure @ Failure::Forward(_)) if failure.is_silent() => Outcome::Closed,
            Err(_) => Outcome::Failed,
        };
        let failure = made.as_ref().err().filter(|_| outcome == Outcome::Failed);
        Probed {
            outcome,
            fault: failure.map(|failure| fault(failure, self.config.plane, far(&record))),
            path: record.path.into(),
            address: record.destination_address,
            workload: record
                .destination
                .workload
                .as_ref()
                .map(|workload| workload.uid.clone()),
        }
    }
}

/// A connection that the pod made, and its place among those.
struct Dialled {
    way: Way,
    tracked: Tracked,
    _permit: OwnedSemaphorePermit,
}

async fn dial(
    proxy: &Proxy,
    pod: &Served,
    destination: SocketAddr,
    record: &mut Record,
) -> Result<Dialled, Failure> {
    record.destination_address = Some(destination);
    let permit = pod.dial(proxy)?;
    let (way, tracked) = connect(proxy, pod, destination, record).await?;
    Ok(Dialled {
        way,
        tracked,
        _permit: permit,
    })
}

async fn arrive(
    proxy: &Proxy,
    pod: &Served,
    record: &mut Record,
    arrival: Arrival,
) -> Result<(Side, Tracked, OwnedSemaphorePermit), Failure> {
    let permit = pod.room(proxy)?;
    let (application, tracked) = try_reach(proxy, pod, record, &arrival).await?;
    Ok((application, tracked, permit))
}

impl Dialled {
    /// On the same node both ends are reported here, as of any other connection.
    async fn hear(self, proxy: &Proxy, record: &mut Record) -> Made {
        record.opened(self.tracked.counters());
        match self.way {
            Way::Open(mut side) => listen(&mut side, LISTEN).await.map_err(broken),
            Way::SameNode(reached, _permit) => {
                let Reached {
                    server,
                    record: mut at_server,
                    mut tracked,
                } = *reached;
                let made = hear(server, &mut tracked, &mut at_server).await;
                close(proxy, &mut at_server, &made);
                made
            }
        }
    }
}

/// What the application does, unless policy ends it first.
async fn hear(mut server: Side, tracked: &mut Tracked, record: &mut Record) -> Made {
    record.opened(tracked.counters());
    tokio::select! {
        heard = listen(&mut server, LISTEN) => heard.map_err(broken),
        denied = tracked.cut() => Err(denied.into()),
    }
}

fn broken(broken: Broken) -> Failure {
    ForwardError::Server(broken).into()
}
