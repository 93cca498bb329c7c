//! Who writes: the holder of a Lease. A replica that cannot renew stops writing before another may begin. How long a
//! lease has stood unrenewed each replica measures itself: clocks of nodes may differ by anything.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::Mutex;
use tokio::time::Instant;
use trefoil_api::names::MESH_NAMESPACE;

#[cfg(test)]
mod tests;

/// Its name.
const NAME: &str = "trefoil-control-plane-status";
/// After this long without renewal, another may take it.
const DURATION: Duration = Duration::from_secs(15);

/// Whether this replica is the one that writes. All that write share it: they lead together.
#[derive(Clone)]
pub(crate) struct Election(Arc<Mutex<Candidate>>);

impl std::fmt::Debug for Election {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Election").finish_non_exhaustive()
    }
}

/// A candidate.
struct Candidate {
    leases: Api<Lease>,
    identity: String,
    held_until: Option<Instant>,
    seen: Seen,
}

/// The lease of another as it was last seen to change.
#[derive(Debug, Default)]
struct Seen(Option<(String, Instant)>);

impl Election {
    pub(super) fn new(client: Client) -> Self {
        Self(Arc::new(Mutex::new(Candidate {
            leases: Api::namespaced(client, MESH_NAMESPACE),
            identity: uuid::Uuid::new_v4().to_string(),
            held_until: None,
            seen: Seen::default(),
        })))
    }

    /// Whether this replica holds the lease now, after taking or renewing it where it may.
    pub(super) async fn holds(&self) -> Result<bool, kube::Error> {
        self.0.lock().await.holds().await
    }

    /// Gives the lease back, if it is held, so that another replica need not wait for its end. Nothing may be
    /// written after it.
    pub(crate) async fn resign(&self) -> Result<(), kube::Error> {
        self.0.lock().await.resign().await
    }
}

impl Candidate {
    async fn holds(&mut self) -> Result<bool, kube::Error> {
        let now = Instant::now();
        if self.held_until.is_some_and(|until| now < until) {
            return Ok(true);
        }
        self.held_until = None;
        let written = match self.leases.get_opt(NAME).await? {
            None => {
                self.leases
                    .create(&PostParams::default(), &self.lease(None, &self.identity))
                    .await
            }
            Some(lease) if self.seen.may_take(&lease, &self.identity, now) => {
                let lease = self.lease(lease.metadata.resource_version, &self.identity);
                self.leases.replace(NAME, &PostParams::default(), &lease).await
            }
            Some(_) => return Ok(false),
        };
        match written {
            Ok(_) => {
                // Renewed well before it ends.
                self.held_until = Some(now + DURATION / 3);
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn resign(&mut self) -> Result<(), kube::Error> {
        self.held_until = None;
        let Some(lease) = self.leases.get_opt(NAME).await? else {
            return Ok(());
        };
        if holder(&lease) != Some(&self.identity) {
            return Ok(());
        }
        let free = self.lease(lease.metadata.resource_version, "");
        match self.leases.replace(NAME, &PostParams::default(), &free).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            written => written.map(|_| ()),
        }
    }

    fn lease(&self, resource_version: Option<String>, holder: &str) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(NAME.into()),
                namespace: Some(MESH_NAMESPACE.into()),
                resource_version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
        }
    }
}

fn holder(lease: &Lease) -> Option<&String> {
    lease.spec.as_ref()?.holder_identity.as_ref()
}

impl Seen {
    /// Whether nobody holds the lease, or `own`, or somebody who has not renewed it for as long as he said, as far
    /// as it has been watched from here.
    fn may_take(&mut self, lease: &Lease, own: &str, now: Instant) -> bool {
        if holder(lease).is_none_or(|holder| holder.is_empty() || holder == own) {
            return true;
        }
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let duration = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let duration = Duration::from_secs(duration.unwrap_or(0).unsigned_abs().into());
        match &self.0 {
            Some((seen, since)) if *seen == version => now.duration_since(*since) > duration,
            _ => {
                self.0 = Some((version, now));
                false
            }
        }
    }
}
