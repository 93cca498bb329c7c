//! Two Services that use different waypoints over one pod: nobody reaches it by whichever way, both are named, and
//! it is reached again once they agree.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;

use super::{SOON, virtual_address};
use crate::mesh::standard::{NAMESPACES, Standard};
use crate::mesh::{PodPlan, eventually};
use crate::programs::call::Target;
use crate::programs::port;
use crate::programs::session::Protocol;
use crate::report::Report;

/// The Services; the first uses its namespace's waypoint.
const SERVICES: [&str; 2] = ["one", "other"];
/// The waypoint that the second uses.
const SECOND: &str = "second";

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let mesh = &standard.mesh;
    let plan = PodPlan {
        namespace: "ambient".into(),
        name: "contested".into(),
        node: "n2".into(),
        account: "server".into(),
        labels: vec!["app=contested".into()],
        ports: vec![port::HTTP, port::TCP],
        ..PodPlan::default()
    };
    let program = mesh.program()?;
    let pod = mesh
        .run(&plan, &[&program, "serve", "--name", "ambient/contested"])
        .await?;
    for name in SERVICES {
        mesh.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: ambient}}\n\
             spec: {{selector: {{app: contested}}, ports: [{{port: 80, targetPort: {}}}]}}\n",
            port::HTTP
        ))
        .await?;
    }
    mesh.ctl(&["waypoint", "apply", "--namespace", "ambient", "--name", SECOND])
        .await?;
    let mut targets = vec![
        Target {
            protocol: Protocol::H1,
            address: pod.at(port::HTTP),
        },
        Target {
            protocol: Protocol::Tcp,
            address: pod.at(port::TCP),
        },
    ];
    for name in SERVICES {
        targets.push(Target {
            protocol: Protocol::H1,
            address: virtual_address(mesh, "ambient", name, 80).await?,
        });
    }
    let agreed = reached(standard, &targets, true).await;
    report.check("a pod of two services that have one waypoint", agreed);

    let other = format!("trefoil.dev/use-waypoint={SECOND}");
    mesh.ctl(&[
        "label",
        "service",
        "other",
        "-n",
        "ambient",
        &other,
        "--overwrite",
    ])
    .await?;
    let closed = reached(standard, &targets, false).await;
    report.check("a pod of two services that have different waypoints", closed);
    report.check("both services are named", named(standard).await);
    report.check("both services say it", said(standard, "Contended").await);

    mesh.ctl(&[
        "label",
        "service",
        "other",
        "-n",
        "ambient",
        "trefoil.dev/use-waypoint-",
    ])
    .await?;
    let agreed = reached(standard, &targets, true).await;
    report.check("a pod whose services agree again", agreed);
    report.check("and say that, too", said(standard, "Bound").await);
    mesh.ctl(&["waypoint", "delete", "--namespace", "ambient", "--name", SECOND])
        .await?;
    mesh.end(&pod).await
}

/// Every client reaches the pod by every way, or none by any.
async fn reached(standard: &Standard, targets: &[Target], wanted: bool) -> anyhow::Result<String> {
    eventually(SOON, async || {
        for client in NAMESPACES {
            for calls in standard.call(client, targets, 3).await? {
                let expected = if wanted { 3 } else { 0 };
                ensure!(
                    calls.served() == expected,
                    "{client} at {}: {:?}",
                    calls.target,
                    calls.outcomes
                );
            }
        }
        let ways = targets.len() * NAMESPACES.len();
        Ok(format!(
            "{} of {ways} ways lead to it",
            if wanted { ways } else { 0 }
        ))
    })
    .await
}

/// By `trefoilctl check`, with what each asks for.
async fn named(standard: &Standard) -> anyhow::Result<String> {
    eventually(SOON, async || {
        let told = standard.mesh.said(&["check"]).await?;
        let found = told.lines().find(|line| line.contains("ambient/contested"));
        let found = found.unwrap_or_default();
        for part in [
            "ambient/one",
            "ambient/other",
            "ambient/waypoint",
            "ambient/second",
        ] {
            ensure!(found.contains(part), "{part} is not named: {told}");
        }
        Ok(found.trim().to_owned())
    })
    .await
}

/// In the services' own status.
async fn said(standard: &Standard, reason: &str) -> anyhow::Result<String> {
    let services: Api<Service> = Api::namespaced(standard.mesh.client().await?, "ambient");
    eventually(SOON, async || {
        let mut messages = Vec::new();
        for name in SERVICES {
            let status = services.get(name).await?.status.unwrap_or_default();
            let mut conditions = status.conditions.unwrap_or_default().into_iter();
            let ours = conditions.find(|one| one.type_ == "trefoil.dev/WaypointBound");
            let ours = ours.with_context(|| format!("{name} says nothing"))?;
            ensure!(ours.reason == reason, "{name}: {}: {}", ours.reason, ours.message);
            messages.push(format!("{name}: {}", ours.message));
        }
        Ok(messages.join("; "))
    })
    .await
}
