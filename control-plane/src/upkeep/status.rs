//! Writes what became of policies into their status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use trefoil_api::crd::{AuthorizationPolicy, PeerAuthentication};
use trefoil_api::routes::GATEWAY_GROUP;

use super::{SOON, Upkeep};
use trefoil_control_plane_index::{ObjectStatus, PolicyKind, PolicyReport, StatusKind};

impl Upkeep {
    /// Writes the statuses that are not written yet, whenever this replica is the one that writes.
    pub async fn write_statuses(mut self) {
        loop {
            let overview = self.overview.borrow_and_update().clone();
            let reports: Vec<&PolicyReport> = overview
                .reports
                .iter()
                .filter(|report| !report.is_written())
                .collect();
            let statuses: Vec<&ObjectStatus> = overview
                .statuses
                .iter()
                .filter(|status| !status.is_written())
                .collect();
            let mut again = false;
            for report in reports {
                again |= !(self.leads().await && write(&self.client, report).await);
            }
            for status in statuses {
                again |= !(self.leads().await && write_status(&self.client, status).await);
            }
            tokio::select! {
                changed = self.overview.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(SOON), if again => {}
            }
        }
    }
}

/// Writes one; whether that went well, or need not be tried again.
async fn write(client: &Client, report: &PolicyReport) -> bool {
    let patch = json!({"status": {"conditions": conditions(report, Timestamp::now())}});
    let (namespace, name) = (&report.key.namespace, &report.key.name);
    let parameters = PatchParams::default();
    let patch = Patch::Merge(patch);
    let outcome = match report.kind {
        PolicyKind::Authorization => {
            let policies: Api<AuthorizationPolicy> = Api::namespaced(client.clone(), namespace);
            policies.patch_status(name, &parameters, &patch).await.map(drop)
        }
        PolicyKind::PeerAuthentication => {
            let policies: Api<PeerAuthentication> = Api::namespaced(client.clone(), namespace);
            policies.patch_status(name, &parameters, &patch).await.map(drop)
        }
    };
    match outcome {
        Ok(()) => true,
        Err(kube::Error::Api(status)) if status.code == 404 => true,
        Err(error) => {
            tracing::warn!(policy = %report.key, %error, "its status cannot be written");
            false
        }
    }
}

/// Writes the status of a service or of an object of the Gateway API; whether that went well, or need not be tried again.
/// Others write to the same status: what they say is read first, and nothing is written over what changed since.
async fn write_status(client: &Client, status: &ObjectStatus) -> bool {
    match try_write_status(client, status).await {
        Ok(()) => true,
        Err(kube::Error::Api(error)) if error.code == 404 => true,
        Err(error) => {
            let conflict = matches!(&error, kube::Error::Api(error) if error.code == 409);
            if !conflict {
                tracing::warn!(kind = status.kind.name(), object = %status.key, %error, "its status cannot be written");
            }
            false
        }
    }
}

async fn try_write_status(client: &Client, status: &ObjectStatus) -> Result<(), kube::Error> {
    let group = match status.kind {
        StatusKind::Service => "",
        _ => GATEWAY_GROUP,
    };
    let kind = GroupVersionKind::gvk(group, "v1", status.kind.name());
    let resource = ApiResource::from_gvk(&kind);
    let objects: Api<DynamicObject> = match status.kind {
        StatusKind::GatewayClass => Api::all_with(client.clone(), &resource),
        _ => Api::namespaced_with(client.clone(), &status.key.namespace, &resource),
    };
    let mut object = objects.get(&status.key.name).await?;
    let merged = status.merged(
        &object.data["status"],
        &Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    );
    if merged == object.data["status"] {
        return Ok(());
    }
    object.data["status"] = merged;
    let parameters = PostParams::default();
    objects
        .replace_status(&status.key.name, &parameters, &object)
        .await?;
    Ok(())
}

/// The conditions; one that still says the same keeps its time.
fn conditions(report: &PolicyReport, now: Timestamp) -> Vec<Condition> {
    let condition = |one: &trefoil_control_plane_index::Statement| {
        let status = if one.holds { "True" } else { "False" };
        let known = report
            .current
            .iter()
            .find(|known| known.type_ == one.kind && known.status == status);
        Condition {
            type_: one.kind.into(),
            status: status.into(),
            reason: one.reason.into(),
            message: one.message.clone(),
            observed_generation: Some(report.generation),
            last_transition_time: known.map_or(Time(now), |known| known.last_transition_time.clone()),
        }
    };
    report.statements.iter().map(condition).collect()
}
