//! What the mesh's parts may not do in the cluster, asked of the API server in their names, beside what they must.

use anyhow::{bail, ensure};

use super::Cluster;
use crate::report::Report;

/// How many checks it makes.
pub(super) const CHECKS: usize = 11;

const AGENT: &str = "--as=system:serviceaccount:trefoil-system:trefoil-cni --as-user-extra=authentication.kubernetes.io/node-name=n2";
const CONTROL_PLANE: &str = "--as=system:serviceaccount:trefoil-system:trefoil-control-plane";

/// A pod of an ambient namespace.
const POD: &str = "run was-here -n ambient --image=x --dry-run=server";

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let near = pod(cluster, "n2").await?;
    let far = pod(cluster, "n3").await?;
    for (name, command, refusal) in [
        (
            "an agent annotates a pod of its node",
            format!("{AGENT} annotate -n ambient {near} suite=was-here"),
            None,
        ),
        (
            "an agent does not label it",
            format!("{AGENT} label -n ambient {near} suite=was-here"),
            Some("writes annotations of pods, and nothing else"),
        ),
        (
            "an agent does not annotate a pod of another node",
            format!("{AGENT} annotate -n ambient {far} suite=was-here"),
            Some("writes to its own node"),
        ),
        (
            "an agent lays no taint",
            format!("{AGENT} taint node n2 suite=was-here:NoExecute"),
            Some("takes its startup taint"),
        ),
        (
            "an agent reads no Secret",
            format!("{AGENT} get secrets -n trefoil-system"),
            Some("forbidden"),
        ),
        (
            "the control plane makes no ConfigMap but that of the roots",
            format!("{CONTROL_PLANE} create configmap was-here -n ambient"),
            Some("writes no other ConfigMap"),
        ),
        (
            "the control plane reads no Secret but its own",
            format!("{CONTROL_PLANE} get secrets -n ambient"),
            Some("forbidden"),
        ),
        (
            "the control plane deletes no pod",
            format!("{CONTROL_PLANE} delete -n ambient {near} --dry-run=server"),
            Some("forbidden"),
        ),
        (
            "nobody shows the uid of sidecars in a pod without one",
            format!("{POD} --overrides={{\"spec\":{{\"securityContext\":{{\"runAsUser\":15008}}}}}}"),
            Some("15008 is reserved for sidecars"),
        ),
        (
            "nobody brings along what would be taken for a sidecar",
            format!(
                "{POD} --overrides={{\"spec\":{{\"containers\":[{{\"name\":\"trefoil-sidecar\",\"image\":\"x\"}}]}}}}"
            ),
            Some("the name of the mesh's own sidecar"),
        ),
    ] {
        report.check(name, answered(cluster, &command, refusal).await);
    }
    report.check(
        "everything but node proxies and agents is restricted",
        restricted(cluster).await,
    );
    Ok(())
}

async fn pod(cluster: &Cluster, node: &str) -> anyhow::Result<String> {
    let name = cluster
        .of_set("ambient", "redis", node, "{.items[0].metadata.name}")
        .await?;
    Ok(format!("pod/{name}"))
}

/// Whether it is done, or refused with these words.
async fn answered(cluster: &Cluster, command: &str, refusal: Option<&str>) -> anyhow::Result<String> {
    let arguments: Vec<&str> = command.split_whitespace().collect();
    match (cluster.kubectl(&arguments).await, refusal) {
        (Ok(done), None) => Ok(done.trim().into()),
        (Ok(done), Some(_)) => bail!("it was done: {done}"),
        (Err(error), None) => Err(error),
        (Err(error), Some(words)) => {
            let said = format!("{error:#}");
            ensure!(said.contains(words), "{said}");
            Ok(format!("refused: {words}"))
        }
    }
}

/// Pod Security names those of the mesh's pods that would break its strictest level.
async fn restricted(cluster: &Cluster) -> anyhow::Result<String> {
    let label = "kubectl label namespace trefoil-system pod-security.kubernetes.io/enforce=restricted \
                 --dry-run=server --overwrite 2>&1";
    let said = cluster.on("n1", &["sh", "-c", label], None).await?;
    let breaking: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("Warning: trefoil-"))
        .collect();
    let others = breaking.iter().filter(|line| {
        let of = |part: &str| line.contains(&format!("Warning: trefoil-{part}-"));
        !of("node") && !of("cni") || line.contains("control-plane")
    });
    ensure!(!breaking.is_empty() && others.count() == 0, "{said}");
    Ok(format!(
        "{} warnings, of node proxies and agents only",
        breaking.len()
    ))
}
