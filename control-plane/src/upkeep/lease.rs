//! Who writes: the holder of a Lease. A replica that cannot renew stops writing before another may begin.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::Mutex;
use trefoil_api::names::MESH_NAMESPACE;

/// Its name.
const NAME: &str = "trefoil-control-plane-status";
/// After this long without renewal, another may take it.
const DURATION: Duration = Duration::from_secs(15);

/// Whether this replica is the one that writes. All that write share it: they lead together.
#[derive(Clone)]
pub(super) struct Election(Arc<Mutex<Candidate>>);

/// A candidate.
struct Candidate {
    leases: Api<Lease>,
    identity: String,
    held_until: Option<Timestamp>,
}

impl Election {
    pub(super) fn new(client: Client) -> Self {
        Self(Arc::new(Mutex::new(Candidate {
            leases: Api::namespaced(client, MESH_NAMESPACE),
            identity: uuid::Uuid::new_v4().to_string(),
            held_until: None,
        })))
    }

    /// Whether this replica holds the lease now, after taking or renewing it where it may.
    pub(super) async fn holds(&self) -> Result<bool, kube::Error> {
        self.0.lock().await.holds().await
    }
}

impl Candidate {
    async fn holds(&mut self) -> Result<bool, kube::Error> {
        let now = Timestamp::now();
        if self.held_until.is_some_and(|until| now < until) {
            return Ok(true);
        }
        self.held_until = None;
        let written = match self.leases.get_opt(NAME).await? {
            None => {
                self.leases
                    .create(&PostParams::default(), &self.lease(None, now))
                    .await
            }
            Some(lease) if self.may_take(&lease, now) => {
                let version = lease.metadata.resource_version;
                let lease = self.lease(version, now);
                self.leases.replace(NAME, &PostParams::default(), &lease).await
            }
            Some(_) => return Ok(false),
        };
        match written {
            Ok(_) => {
                // Renewed well before it ends.
                self.held_until = now.checked_add(DURATION / 3).ok();
                Ok(true)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn may_take(&self, lease: &Lease, now: Timestamp) -> bool {
        let Some(spec) = &lease.spec else { return true };
        if spec
            .holder_identity
            .as_deref()
            .is_none_or(|holder| holder == self.identity)
        {
            return true;
        }
        let seconds = spec.lease_duration_seconds.unwrap_or(0).unsigned_abs();
        let renewed = spec.renew_time.as_ref().map(|time| time.0);
        renewed.is_none_or(|renewed| {
            let ended = renewed.checked_add(Duration::from_secs(seconds.into()));
            ended.is_ok_and(|ended| ended < now)
        })
    }

    fn lease(&self, resource_version: Option<String>, now: Timestamp) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(NAME.into()),
                namespace: Some(MESH_NAMESPACE.into()),
                resource_version,
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                renew_time: Some(MicroTime(now)),
                ..LeaseSpec::default()
            }),
        }
    }
}
