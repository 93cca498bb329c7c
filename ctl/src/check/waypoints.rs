//! What is wrong with routes and waypoints, as the control plane says.

use std::collections::BTreeSet;

use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::Value;
use trefoil_api::names::GATEWAY_CONTROLLER;

use crate::config::{list, text};
use crate::kinds::Kind;
use crate::planes::{Planes, Role};

/// Routes with a condition of ours that does not hold.
pub(super) async fn unapplied(planes: &Planes) -> anyhow::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for kind in ["httproutes", "grpcroutes"] {
        let kind = Kind::named(kind)?;
        let routes = match kind.api(planes.client(), None).list(&ListParams::default()).await {
            Ok(routes) => routes,
            // Not a kind of this cluster.
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => return Err(error.into()),
        };
        for route in routes {
            let name = format!(
                "{} {}/{}",
                kind.singular(),
                route.namespace().unwrap_or_default(),
                route.name_any()
            );
            for parent in list(&route.data["status"], "parents") {
                let ours = text(&parent, "controllerName") == GATEWAY_CONTROLLER;
                let conditions = list(&parent, "conditions");
                for one in conditions
                    .iter()
                    .filter(|one| ours && text(one, "status") == "False")
                {
                    let reason = format!("{}: {}", text(one, "reason"), text(one, "message"));
                    found.push((name.clone(), reason));
                }
            }
        }
    }
    Ok(found)
}

/// What the control plane finds wrong with single objects.
pub(super) async fn findings(planes: &Planes) -> anyhow::Result<Vec<String>> {
    let mut findings = BTreeSet::new();
    let all = planes.all().await?;
    for plane in all.iter().filter(|plane| plane.role == Role::ControlPlane) {
        // One that does not answer is among what is unhealthy.
        let said = plane.ask(planes, "status").await.unwrap_or_default();
        let found = list(&said["overview"], "findings");
        findings.extend(found.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    Ok(findings.into_iter().collect())
}
