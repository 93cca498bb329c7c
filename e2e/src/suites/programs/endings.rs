//! Pods that come and go: members of a headless service by name, a job that ends.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::Route;
use crate::mesh::{PodPlan, eventually};
use crate::programs::port;

/// Two members of a headless service, each reached by its own name.
pub(super) async fn stateful(route: &Route<'_>, namespace: &str) -> anyhow::Result<String> {
    let mesh = &route.standard.mesh;
    let program = mesh.program()?;
    mesh.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: member, namespace: {namespace}}}\n\
         spec: {{clusterIP: None, selector: {{app: member}}, ports: [{{port: {}}}]}}\n",
        port::HTTP
    ))
    .await?;
    for (index, node) in ["n1", "n2"].iter().enumerate() {
        let name = format!("member-{index}");
        let plan = PodPlan {
            namespace: namespace.into(),
            name: name.clone(),
            node: (*node).into(),
            account: "server".into(),
            labels: vec!["app=member".into()],
            ports: vec![port::HTTP],
            subdomain: Some("member".into()),
            ..PodPlan::default()
        };
        mesh.run(&plan, &[&program, "serve", "--name", &name]).await?;
    }
    for index in 0..2 {
        let host = format!("member-{index}.member.{namespace}.svc.cluster.local");
        let url = format!("http://{host}:{}/", port::HTTP);
        eventually(Duration::from_secs(10), async || {
            let told = route.client(&["curl", "-sSf", "-m", "5", &url]).await?;
            ensure!(told.starts_with(&format!("member-{index} ")), "{url}: {told}");
            Ok(())
        })
        .await?;
    }
    Ok("2 members answered to their names".into())
}

/// A pod whose program ends by itself, and its plane with it.
pub(super) async fn job(route: &Route<'_>, namespace: &str) -> anyhow::Result<String> {
    let mesh = &route.standard.mesh;
    let target = format!("h1@{}", route.server.at(port::HTTP));
    let program = mesh.program()?;
    let command = [
        "run",
        "--namespace",
        namespace,
        "--name",
        "job",
        "--node",
        "n1",
        "--",
        &program,
        "call",
        "--attempts",
        "3",
        &target,
    ];
    let told = mesh.local(&command).await.context("the job")?;
    let calls: Vec<crate::programs::call::Calls> = serde_json::from_str(told.trim())?;
    ensure!(calls[0].served() == 3, "{:?}", calls[0].outcomes);
    eventually(Duration::from_secs(15), async || {
        ensure!(mesh.pod(namespace, "job").await.is_err(), "the pod still runs");
        Ok(())
    })
    .await?;
    Ok("3 of 3 calls served; the pod and its plane are gone".into())
}
