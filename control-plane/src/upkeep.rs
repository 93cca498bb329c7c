//! What the control plane keeps true in the cluster: the roots in every namespace and in the webhook
//! configurations, the status of policies, and what waypoints consist of. One replica at a time writes the last two.

mod deployer;
mod lease;
mod status;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::ca::Keeper;
use crate::objects::{Objects, Overview};
pub(crate) use lease::Election;
use trefoil_control_plane_index::Change;

/// How often everything is looked at again, in case that somebody else changed it.
const AGAIN: Duration = Duration::from_secs(60);
/// How soon after a failure.
const SOON: Duration = Duration::from_secs(2);
/// How often the authority's Secret is read.
const RELOAD: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Clone)]
pub struct Upkeep {
    client: kube::Client,
    keeper: Keeper,
    objects: Objects,
    overview: watch::Receiver<Arc<Overview>>,
    election: Election,
}

impl Upkeep {
    /// Of what is seen through these.
    #[must_use]
    pub fn new(client: kube::Client, keeper: Keeper, objects: Objects) -> Self {
        Self {
            election: Election::new(client.clone()),
            overview: objects.overview(),
            client,
            keeper,
            objects,
        }
    }

    /// Who writes.
    pub(crate) fn election(&self) -> Election {
        self.election.clone()
    }

    /// Whether this replica is the one that writes: asked before each, since all take longer than a lease.
    async fn leads(&self) -> bool {
        // The holder writes; should it end, another does.
        self.election.holds().await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the lease cannot be read");
            false
        })
    }

    /// Puts the roots into every namespace, also into new ones, follows the operator's changes of them, and has planes
    /// told.
    pub async fn hand_out_roots(mut self) {
        let mut served = std::collections::BTreeSet::new();
        let mut again = tokio::time::interval(AGAIN);
        let mut reload = tokio::time::interval(RELOAD);
        let mut told = false;
        loop {
            let mut failed = false;
            if !told {
                let roots = self.keeper.authority().roots().to_owned();
                told = webhooks::tell_roots(&self.client, &roots).await;
                failed |= !told;
                let in_force = self.keeper.authority().in_force();
                if !self.objects.apply(vec![Change::Authority(in_force)]).await {
                    return;
                }
            }
            let namespaces = self.overview.borrow_and_update().namespaces.clone();
            served.retain(|known| namespaces.contains(known));
            for namespace in namespaces {
                if served.contains(&namespace) {
                    continue;
                }
                match self.keeper.hand_out(&namespace).await {
                    Ok(()) => {
                        served.insert(namespace);
                    }
                    Err(error) => {
                        failed = true;
                        tracing::warn!(%namespace, %error, "the roots cannot be handed out");
                    }
                }
            }
            tokio::select! {
                changed = self.overview.changed() => if changed.is_err() { return },
                _ = again.tick() => {
                    served.clear();
                    told = false;
                }
                _ = reload.tick() => match self.keeper.reload().await {
                    Ok(true) => {
                        tracing::info!("the certificate authority was changed");
                        served.clear();
                        told = false;
                    }
                    Ok(false) => {}
                    Err(error) => tracing::error!(%error, "the certificate authority's Secret is not taken over"),
                },
                () = tokio::time::sleep(SOON), if failed => {}
            }
        }
    }
}
