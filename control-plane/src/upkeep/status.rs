//! Writes what became of policies into their status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use trefoil_api::crd::{AuthorizationPolicy, PeerAuthentication};

use super::lease::Election;
use super::{SOON, Upkeep};
use crate::index::{PolicyKind, PolicyReport};

impl Upkeep {
    /// Writes the statuses that are not written yet, whenever this replica is the one that writes.
    pub async fn write_statuses(mut self) {
        let mut election = Election::new(self.client.clone());
        loop {
            let overview = self.overview.borrow_and_update().clone();
            let due: Vec<&PolicyReport> = overview
                .reports
                .iter()
                .filter(|report| !report.is_written())
                .collect();
            let mut again = false;
            if !due.is_empty() {
                match election.holds().await {
                    Ok(true) => {
                        for report in due {
                            again |= !write(&self.client, report).await;
                        }
                    }
                    // The holder writes; should it end, this one does.
                    Ok(false) => again = true,
                    Err(error) => {
                        again = true;
                        tracing::debug!(%error, "the lease cannot be read");
                    }
                }
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

/// The conditions; one that still says the same keeps its time.
fn conditions(report: &PolicyReport, now: Timestamp) -> Vec<Condition> {
    let condition = |one: &crate::index::Statement| {
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
