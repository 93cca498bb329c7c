//! Makes what waypoints consist of and keeps it so, where the API has Deployments: an embedded mesh makes their
//! pods itself. It writes over nothing that it has not made. What it made goes with its Gateway; it removes an
//! autoscaler that is not to be any more, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use tokio::time::MissedTickBehavior;
use trefoil_api::names::{GATEWAY_CONTROLLER, WAYPOINT_CLASS};

use super::{AGAIN, SOON, Upkeep};
use crate::deployment::parameters::{Parameters, Refused};
use crate::deployment::{self, Owner, Settings, Wanted};
use trefoil_control_plane_index::{Change, Deployable, Hindrance, ObjectKey};

/// By whom fields are set, as the API server is told.
const FIELD_MANAGER: &str = "trefoil-control-plane";

/// How often the ConfigMaps that Gateways name are looked at: to be told of those alone is no right that there is.
const LOOK: Duration = Duration::from_secs(5);

/// Why a waypoint cannot be made.
#[derive(Debug, thiserror::Error)]
enum Hindered {
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
    /// Its parameters.
    #[error(transparent)]
    Parameters(#[from] Refused),
    /// Its parameters are not known.
    #[error("ConfigMap {key} cannot be read: {error}")]
    Unread {
        /// Which.
        key: ObjectKey,
        /// What the API server says.
        error: Box<kube::Error>,
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
    tried: BTreeMap<ObjectKey, Vec<Wanted>>,
    hindered: BTreeMap<ObjectKey, Hindrance>,
    /// Those that Gateways name, as they were looked at last, and for whom.
    parameters: BTreeMap<ObjectKey, (Deployable, Parameters)>,
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
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deployer = Deployer {
            upkeep: self.clone(),
            settings,
            tried: BTreeMap::new(),
            hindered: BTreeMap::new(),
            parameters: BTreeMap::new(),
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
                _ = look.tick(), if !deployer.parameters.is_empty() => deployer.parameters.clear(),
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
        self.parameters.retain(|key, _| !gone(key));
        for waypoint in waypoints {
            if waypoint.parameters.is_some() && !self.upkeep.leads().await {
                return false;
            }
            let parameters = match self.parameters(waypoint).await {
                Ok(parameters) => parameters,
                Err(hindrance) => {
                    // What was tried is what there is, and is tried again with the next that are understood.
                    self.tried.remove(&waypoint.key);
                    self.tell(&waypoint.key, Some(hindrance)).await;
                    continue;
                }
            };
            let wanted = deployment::wanted(waypoint, &parameters, &self.settings, trust_domain);
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

    /// What the ConfigMap says that its Gateway names, if it names one.
    async fn parameters(&mut self, waypoint: &Deployable) -> Result<Parameters, Hindered> {
        let Some(reference) = &waypoint.parameters else {
            return Ok(Parameters::default());
        };
        if let Some((of, known)) = self.parameters.get(&waypoint.key)
            && of == waypoint
        {
            return Ok(known.clone());
        }
        if (reference.group.as_str(), reference.kind.as_str()) != ("", "ConfigMap") {
            let kind = [reference.group.as_str(), reference.kind.as_str()].join("/");
            return Err(Refused::Kind(kind).into());
        }
        let key = ObjectKey::new(waypoint.key.namespace.as_str(), reference.name.as_str());
        let maps: Api<ConfigMap> = Api::namespaced(self.upkeep.client.clone(), &key.namespace);
        let map = maps.get_opt(&key.name).await.map_err(|error| Hindered::Unread {
            key: key.clone(),
            error: Box::new(error),
        })?;
        let map = map.ok_or(Refused::Absent(key))?;
        let parameters = Parameters::read(&map, waypoint.replicas)?;
        let known = (waypoint.clone(), parameters.clone());
        self.parameters.insert(waypoint.key.clone(), known);
        Ok(parameters)
    }

    fn try_again(&mut self) {
        self.tried.retain(|key, _| !self.hindered.contains_key(key));
    }

    /// All of a waypoint's objects, or none: nothing is made beside something that is another's.
    async fn write(&self, waypoint: &Deployable, wanted: &[Wanted]) -> Result<(), Hindered> {
        if !waypoint.classed {
            return Err(Hindered::NoClass);
        }
        let key = &waypoint.key;
        let api = |one: &Wanted| -> Api<DynamicObject> {
            Api::namespaced_with(self.upkeep.client.clone(), &key.namespace, &one.kind)
        };
        let mut versions = Vec::new();
        for one in wanted {
            let found = api(one).get_metadata_opt(&key.name).await;
            let (kind, key) = (one.kind.kind.clone(), key.clone());
            let found = found.map_err(|error| Hindered::api(&kind, &key, error))?;
            let owner = found
                .as_ref()
                .map(|found| deployment::owner(&found.metadata, &waypoint.uid));
            versions.push(found.and_then(|found| found.resource_version()));
            match owner {
                None | Some(Owner::Ours) => {}
                Some(Owner::Earlier) => return Err(Hindered::Earlier { kind, key }),
                Some(Owner::Foreign) => return Err(Hindered::Foreign { kind, key }),
            }
        }
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        for (one, version) in wanted.iter().zip(versions) {
            let patch = Patch::Apply(&one.object);
            let written = api(one).patch(&key.name, &parameters, &patch).await;
            let written = written.map_err(|error| Hindered::api(&one.kind.kind, key, error))?;
            if written.resource_version() != version {
                tracing::info!(waypoint = %key, kind = one.kind.kind, "written");
            }
        }
        let kind = deployment::autoscaler_kind();
        if wanted.iter().any(|one| one.kind == kind) {
            return Ok(());
        }
        self.remove(waypoint, &kind).await
    }

    /// Removes what of this kind was made for a waypoint and is not to be any more.
    async fn remove(&self, waypoint: &Deployable, kind: &ApiResource) -> Result<(), Hindered> {
        let key = &waypoint.key;
        let api: Api<DynamicObject> = Api::namespaced_with(self.upkeep.client.clone(), &key.namespace, kind);
        let failed = |error| Hindered::api(&kind.kind, key, error);
        let Some(found) = api.get_metadata_opt(&key.name).await.map_err(failed)? else {
            return Ok(());
        };
        if deployment::owner(&found.metadata, &waypoint.uid) != Owner::Ours {
            return Ok(());
        }
        // This one, as it was seen.
        let parameters = DeleteParams::default().preconditions(Preconditions {
            uid: found.uid(),
            resource_version: found.resource_version(),
        });
        match api.delete(&key.name, &parameters).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(failed(error)),
            Ok(_) => {
                tracing::info!(waypoint = %key, kind = kind.kind, "removed");
                Ok(())
            }
        }
    }

    /// Has the Gateway's status say what hinders its waypoint, or that nothing does.
    async fn tell(&mut self, key: &ObjectKey, hindrance: Option<Hindered>) {
        let hindrance = hindrance.map(|hindrance| hindrance.told());
        if self.hindered.get(key) == hindrance.as_ref() {
            return;
        }
        if let Some(hindrance) = &hindrance {
            tracing::warn!(waypoint = %key, why = hindrance.why(), "it cannot be made");
            self.hindered.insert(key.clone(), hindrance.clone());
        } else {
            self.hindered.remove(key);
        }
        let change = Change::Hindered(key.clone(), hindrance);
        self.upkeep.objects.apply(vec![change]).await;
    }
}

impl Hindered {
    /// As its Gateway's status says it.
    fn told(&self) -> Hindrance {
        match self {
            Self::Parameters(_) => Hindrance::Parameters(self.to_string()),
            _ => Hindrance::Objects(self.to_string()),
        }
    }

    fn api(kind: &str, key: &ObjectKey, error: kube::Error) -> Self {
        Self::Api {
            kind: kind.to_owned(),
            key: key.clone(),
            error: Box::new(error),
        }
    }
}
