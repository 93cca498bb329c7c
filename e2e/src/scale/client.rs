//! One discovery client of a fleet, as light as it can be: it subscribes as a plane does, holds versions, answers,
//! and comes again with what it holds whenever its stream ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::metadata::{Ascii, MetadataValue};
use trefoil_api::proto::type_url;

use super::ledger::Ledger;
use super::message::Request;
use super::stream::{Stream, Way};

/// Clients that say at a time what they hold. More than the control plane reads at a time.
static SUBSCRIBING: Semaphore = Semaphore::const_new(64);
/// Pauses between attempts, doubled from the first to the last, as planes have them.
const PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(15));

/// What a client subscribes to.
#[derive(Clone, Debug)]
pub enum Role {
    /// Everything, as the proxy of a node.
    Node,
    /// Everything, as one that reads HTTP.
    Sidecar,
    /// These services and what is behind them, on demand.
    OnDemand {
        /// Names of services, `NAMESPACE/HOSTNAME`.
        services: Vec<String>,
        /// How names of the workloads behind them begin.
        workloads: Vec<String>,
    },
}

impl Role {
    /// The types, in the order in which planes ask for them.
    fn types(&self) -> &'static [&'static str] {
        match self {
            Self::Sidecar => &[
                type_url::HTTP_AUTHORIZATION,
                type_url::MESH_SETTINGS,
                type_url::HTTP_ROUTE,
                type_url::ADDRESS,
            ],
            _ => &[
                type_url::AUTHORIZATION,
                type_url::MESH_SETTINGS,
                type_url::ADDRESS,
            ],
        }
    }

    fn asks_for(&self, type_url: &str) -> &[String] {
        match self {
            Self::OnDemand { services, .. } if type_url == type_url::ADDRESS => services,
            _ => &[],
        }
    }

    /// Whether it has a use for a resource.
    #[must_use]
    pub fn wants(&self, type_url: &str, name: &str) -> bool {
        match self {
            Self::OnDemand { services, workloads } if type_url == type_url::ADDRESS => {
                services.iter().any(|one| one == name) || workloads.iter().any(|one| name.starts_with(one))
            }
            _ => true,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    /// Its name, for people.
    pub name: String,
    /// What it asks for.
    pub role: Role,
    /// The value of its `authorization` header.
    pub authorization: MetadataValue<Ascii>,
    /// When workloads of the present stream were first answered, as the ledger counts; 0 for not yet.
    pub answered: AtomicU64,
}

/// The number of a type in the ledger.
#[must_use]
pub fn kind(type_url: &str) -> u8 {
    let all = [
        type_url::ADDRESS,
        type_url::AUTHORIZATION,
        type_url::HTTP_AUTHORIZATION,
        type_url::HTTP_ROUTE,
        type_url::MESH_SETTINGS,
    ];
    let found = all.iter().position(|one| *one == type_url);
    found.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

impl Client {
    /// Connects, and connects again whenever the stream ends. Cancel it by dropping it.
    pub async fn run(self: Arc<Self>, way: Way, ledger: Arc<Ledger>) {
        let mut held = Vec::new();
        let mut pause = PAUSES.0;
        loop {
            let before = self.answered.swap(0, Relaxed);
            // Why it ended is the control plane's to log; whether it comes to answer is what is measured.
            let _ = self.stream(&way, &ledger, &mut held).await;
            let answered = self.answered.load(Relaxed) > before;
            pause = if answered {
                PAUSES.0
            } else {
                (pause * 2).min(PAUSES.1)
            };
            tokio::time::sleep(pause.mul_f64(0.5 + jitter(&self.name, ledger.now()))).await;
        }
    }

    async fn stream(&self, way: &Way, ledger: &Ledger, held: &mut Vec<u64>) -> anyhow::Result<()> {
        // What all clients hold, written out, is more than the machine has memory for.
        let turn = SUBSCRIBING.acquire().await?;
        let (connection, stream) = way.open(&self.authorization).await?;
        tokio::select! {
            ended = connection => Ok(ended?),
            ended = self.converse(stream, turn, ledger, held) => ended,
        }
    }

    async fn converse(
        &self,
        mut stream: Stream,
        turn: SemaphorePermit<'_>,
        ledger: &Ledger,
        held: &mut Vec<u64>,
    ) -> anyhow::Result<()> {
        self.subscribe(&mut stream, ledger, held).await?;
        drop(turn);
        loop {
            let response = stream.next().await?;
            let type_url = response.type_url.as_str();
            let wants = |name: &str| self.role.wants(type_url, name);
            ledger.take(kind(type_url), &response, held, wants);
            if type_url == type_url::ADDRESS && self.answered.load(Relaxed) == 0 {
                self.answered.store(ledger.now(), Relaxed);
            }
            stream.send(&Request::acknowledge(&response)).await?;
        }
    }

    /// Subscribes to all types, and says what is held.
    async fn subscribe(&self, stream: &mut Stream, ledger: &Ledger, held: &[u64]) -> anyhow::Result<()> {
        for type_url in self.role.types() {
            let mut request = Request::subscribe(&self.name, type_url, self.role.asks_for(type_url));
            ledger.each_held(kind(type_url), held, |name, version| request.hold(name, version));
            stream.send(&request).await?;
        }
        Ok(())
    }
}

/// From 0 to a half, other for each client and time.
fn jitter(name: &str, now: u64) -> f64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (name, now).hash(&mut hasher);
    f64::from(u16::try_from(hasher.finish() & 0xffff).unwrap_or_default()) / 131_072.0
}
