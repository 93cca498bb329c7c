//! Makes what waypoints consist of and keeps it so, where the API has Deployments: an embedded mesh makes their
//! pods itself. It writes over nothing that it has not made, and removes nothing: what it made goes with its Gateway.

use std::collections::BTreeMap;

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, ResourceExt};
use tokio::time::MissedTickBehavior;
use trefoil_api::names::{GATEWAY_CONTROLLER, WAYPOINT_CLASS};

use super::{AGAIN, SOON, Upkeep};
use crate::deployment::{self, Owner, Settings, Wanted};
use trefoil_control_plane_index::{Change, Deployable, ObjectKey};

/// By whom fields are set, as the API server is told.
const FIELD_MANAGER: &str = "trefoil-control-plane";

/// Why a waypoint cannot be made.
#[derive(Debug, thiserror::Error)]
enum Hindrance {
    /// Gateways are of a class that nobody has declared, or another controller's.
    #[error(
        "there is no GatewayClass {WAYPOINT_CLASS} of controller {GATEWAY_CONTROLLER}: `helm upgrade` of the mesh's chart adds it"
    )]
    NoClass,
    /// Its name is taken.
    #[error("{kind} {key} exists and is not the waypoint's: remove it, or name the waypoint otherwise")]
    Foreign {
        /// Of what kind.
        kind: String,
        /// Which.
        key: ObjectKey,
    },
    /// Its name is not free yet.
    #[error("{kind} {key} of an earlier Gateway of this name is still being removed")]
    Earlier {
        /// Of what kind.
        kind: String,
        /// Which.
        key: ObjectKey,
    },
    /// The API server.
    #[error("{kind} {key} cannot be written: {error}")]
    Api {
        /// Of what kind.
        kind: String,
        /// Which.
        key: ObjectKey,
        /// What it says.
        error: Box<kube::Error>,
    },
}

/// What was tried last.
struct Deployer {
    upkeep: Upkeep,
    settings: Settings,
    tried: BTreeMap<ObjectKey, [Wanted; 4]>,
    hindered: BTreeMap<ObjectKey, String>,
}

impl Upkeep {
    /// Keeps the waypoints' objects, whenever this replica is the one that writes.
    pub async fn deploy_waypoints(mut self, settings: Settings) {
        if !self.has_deployments().await {
            tracing::debug!("the API has no Deployments: others make the pods of waypoints");
            return;
        }
        let mut mesh = self.objects.mesh();
        let mut again = tokio::time::interval(AGAIN);
        let mut soon = tokio::time::interval(SOON);
        soon.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deployer = Deployer {
            upkeep: self.clone(),
            settings,
            tried: BTreeMap::new(),
            hindered: BTreeMap::new(),
        };
        loop {
            let overview = self.overview.borrow_and_update().clone();
            let trust_domain = mesh.borrow_and_update().trust_domain.clone();
            // Before everything is known, what is not there may only not have been seen.
            let leads =
                !overview.awaited.is_empty() || deployer.pass(&overview.waypoints, &trust_domain).await;
            tokio::select! {
                changed = self.overview.changed() => if changed.is_err() { return },
                changed = mesh.changed() => if changed.is_err() { return },
                _ = again.tick() => deployer.tried.clear(),
                _ = soon.tick(), if !leads || !deployer.hindered.is_empty() => deployer.try_again(),
            }
        }
    }

    /// Asked until it is known.
    async fn has_deployments(&self) -> bool {
        loop {
            match self.client.list_api_groups().await {
                Ok(all) => return all.groups.iter().any(|group| group.name == "apps"),
                Err(error) => tracing::debug!(%error, "the API's groups cannot be listed"),
            }
            tokio::time::sleep(SOON).await;
        }
    }
}

impl Deployer {
    /// Writes what has not been tried as it is to be; false if another replica is the one that writes.
    async fn pass(&mut self, waypoints: &[Deployable], trust_domain: &str) -> bool {
        let gone = |key: &ObjectKey| !waypoints.iter().any(|one| one.key == *key);
        self.tried.retain(|key, _| !gone(key));
        let unhindered: Vec<ObjectKey> = self.hindered.keys().filter(|key| gone(key)).cloned().collect();
        for key in unhindered {
            self.tell(&key, None).await;
        }
        for waypoint in waypoints {
            let wanted = deployment::wanted(waypoint, &self.settings, trust_domain);
            if self.tried.get(&waypoint.key) == Some(&wanted) {
                continue;
            }
            if !self.upkeep.leads().await {
                return false;
            }
            let hindrance = self.write(waypoint, &wanted).await.err();
            self.tried.insert(waypoint.key.clone(), wanted);
            self.tell(&waypoint.key, hindrance).await;
        }
        true
    }

    fn try_again(&mut self) {
        self.tried.retain(|key, _| !self.hindered.contains_key(key));
    }

    /// All of a waypoint's objects, or none: nothing is made beside something that is another's.
    async fn write(&self, waypoint: &Deployable, wanted: &[Wanted; 4]) -> Result<(), Hindrance> {
        if !waypoint.classed {
            return Err(Hindrance::NoClass);
        }
        let key = &waypoint.key;
        let api = |one: &Wanted| -> Api<DynamicObject> {
            Api::namespaced_with(self.upkeep.client.clone(), &key.namespace, &one.kind)
        };
        let mut versions = Vec::new();
        for one in wanted {
            let found = api(one).get_metadata_opt(&key.name).await;
            let (kind, key) = (one.kind.kind.clone(), key.clone());
            let found = found.map_err(|error| Hindrance::api(&kind, &key, error))?;
            let owner = found
                .as_ref()
                .map(|found| deployment::owner(&found.metadata, &waypoint.uid));
            versions.push(found.and_then(|found| found.resource_version()));
            match owner {
                None | Some(Owner::Ours) => {}
                Some(Owner::Earlier) => return Err(Hindrance::Earlier { kind, key }),
                Some(Owner::Foreign) => return Err(Hindrance::Foreign { kind, key }),
            }
        }
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        for (one, version) in wanted.iter().zip(versions) {
            let patch = Patch::Apply(&one.object);
            let written = api(one).patch(&key.name, &parameters, &patch).await;
            let written = written.map_err(|error| Hindrance::api(&one.kind.kind, key, error))?;
            if written.resource_version() != version {
                tracing::info!(waypoint = %key, kind = one.kind.kind, "written");
            }
        }
        Ok(())
    }

    /// Has the Gateway's status say what hinders its waypoint, or that nothing does.
    async fn tell(&mut self, key: &ObjectKey, hindrance: Option<Hindrance>) {
        let why = hindrance.map(|hindrance| hindrance.to_string());
        if self.hindered.get(key) == why.as_ref() {
            return;
        }
        if let Some(why) = &why {
            tracing::warn!(waypoint = %key, why, "it cannot be made");
            self.hindered.insert(key.clone(), why.clone());
        } else {
            self.hindered.remove(key);
        }
        let change = Change::Hindered(key.clone(), why);
        self.upkeep.objects.apply(vec![change]).await;
    }
}

impl Hindrance {
    fn api(kind: &str, key: &ObjectKey, error: kube::Error) -> Self {
        Self::Api {
            kind: kind.to_owned(),
            key: key.clone(),
            error: Box::new(error),
        }
    }
}
