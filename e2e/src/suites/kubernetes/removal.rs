//! `helm uninstall`: the cluster is as it was before the mesh. What is left in pods and on nodes is asked of the
//! kernel and of files, what is left in the cluster of the API server; never of the mesh's own programs.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::Value;

use super::{Cluster, NAMESPACES, NODES, cell};
use crate::mesh::eventually;
use crate::report::Report;

/// How many checks it makes.
pub(super) const CHECKS: usize = 20;

/// Redirect rules in each of the node's pods that has any, one number a line.
const REDIRECTS: &str = "for pod in /run/netns/*; do nsenter --net=$pod nft list ruleset 2>/dev/null | grep -c redirect; done; true";
/// What of the mesh there is in the host's part of a node: rules, the CNI configuration, its plugin.
const ON_HOST: &str = "nft list tables | grep trefoil; grep -l trefoil /etc/cni/net.d/*; ls -A /opt/cni/bin | grep trefoil; true";
/// Objects of every kind by whose name they are the mesh's.
const OBJECTS: &str = "for kind in $(kubectl api-resources --verbs=list -o name | grep -v '^events'); do \
     kubectl get $kind -A -o name --ignore-not-found 2>/dev/null; done | grep trefoil | sort -u";
/// What stays, and why: the namespace is the user's, since helm removes none; with it go its Secret, so that whoever
/// installs the mesh again may keep its root, and its lease.
const STAYS: [&str; 3] = [
    "namespace/trefoil-system",
    "secret/trefoil-ca",
    "lease.coordination.k8s.io/trefoil-control-plane-status",
];
const NEW: &str = "
apiVersion: v1
kind: Pod
metadata: {name: new, namespace: NAMESPACE}
spec:
  nodeName: n3
  terminationGracePeriodSeconds: 1
  containers:
  - name: server
    image: kube.test/trefoil-e2e:1
    imagePullPolicy: Never
    args: [serve, --name=NAMESPACE/new]
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
";

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let before = redirects(cluster).await.and_then(|found| {
        ensure!(found.iter().all(|&(_, rules)| rules > 0), "{found:?}");
        Ok(format!("pods on each node have them: {found:?}"))
    });
    report.check("redirect targets before helm uninstall", before);
    report.check("helm uninstall", uninstall(cluster).await);
    let after = redirects(cluster).await.and_then(|found| {
        ensure!(
            found.iter().all(|&(pods, rules)| pods > 0 && rules == 0),
            "{found:?}"
        );
        let pods: usize = found.iter().map(|(pods, _)| pods).sum();
        Ok(format!("none in {pods} network namespaces"))
    });
    report.check("redirect targets after helm uninstall", after);
    for node in NODES {
        let result = bare(cluster, node).await;
        report.check(format!("nothing of the mesh is left on {node}"), result);
    }
    report.check("nothing of the mesh is left in the API", objects(cluster).await);
    report.check("no pod says that it is redirected", unmarked(cluster).await);
    for client in NAMESPACES {
        for server in NAMESPACES {
            let address = cluster.address(server, "server", "n2").await?;
            let result = cell(cluster, client, &format!("{server}/n2"), &address).await;
            report.check(format!("without the mesh, {client} → {server}"), result);
        }
    }
    for namespace in NAMESPACES {
        let result = starts(cluster, namespace).await;
        report.check(
            format!("a new pod of {namespace} starts without the mesh"),
            result,
        );
    }
    report.check("namespaces go, with all that is in them", gone(cluster).await);
    Ok(())
}

/// Of each node, how many network namespaces of pods it has, and how many redirect rules there are in them.
async fn redirects(cluster: &Cluster) -> anyhow::Result<Vec<(usize, usize)>> {
    let mut found = Vec::new();
    for node in NODES {
        let said = cluster.on(node, &["sh", "-c", REDIRECTS], None).await?;
        let rules: Result<Vec<usize>, _> = said.lines().map(|line| line.trim().parse()).collect();
        let rules = rules?;
        found.push((rules.len(), rules.iter().sum()));
    }
    Ok(found)
}

async fn uninstall(cluster: &Cluster) -> anyhow::Result<String> {
    let begun = Instant::now();
    let uninstall = [
        "uninstall",
        "trefoil",
        "-n",
        "trefoil-system",
        "--wait",
        "--timeout",
        "4m",
    ];
    cluster.helm(&uninstall).await?;
    let took = begun.elapsed().as_secs_f64();
    // Pods end after the objects that they are of.
    eventually(Duration::from_secs(60), async || {
        let get = ["get", "pods", "-n", "trefoil-system", "-o", "name"];
        let pods = cluster.kubectl(&get).await?;
        ensure!(pods.trim().is_empty(), "there still are {pods}");
        Ok(())
    })
    .await?;
    Ok(format!(
        "done in {took:.1} s, the last pod gone after {:.1} s",
        begun.elapsed().as_secs_f64()
    ))
}

async fn bare(cluster: &Cluster, node: &str) -> anyhow::Result<String> {
    let left = cluster.on(node, &["sh", "-c", ON_HOST], None).await?;
    ensure!(left.trim().is_empty(), "{left}");
    let configuration = cluster
        .on(node, &["sh", "-c", "cat /etc/cni/net.d/*"], None)
        .await?;
    let configuration: Value = serde_json::from_str(&configuration)?;
    let plugins = configuration["plugins"].as_array().into_iter().flatten();
    let chain: Vec<&str> = plugins.filter_map(|plugin| plugin["type"].as_str()).collect();
    ensure!(chain == ["bridge", "portmap"], "the chain is {chain:?}");
    Ok(format!("no rule, no plugin; the chain is {}", chain.join(", ")))
}

async fn objects(cluster: &Cluster) -> anyhow::Result<String> {
    eventually(Duration::from_secs(20), async || {
        let left = cluster
            .on("n1", &["sh", "-c", &format!("{OBJECTS}; true")], None)
            .await?;
        let left: Vec<&str> = left.lines().filter(|object| !STAYS.contains(object)).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok("but for the namespace, its Secret and its lease".to_owned())
    })
    .await
}

async fn unmarked(cluster: &Cluster) -> anyhow::Result<String> {
    let path = r"jsonpath={range .items[*]}{.metadata.annotations.trefoil\.dev/redirection}{end}";
    // One that has ended has nothing that could be redirected, and keeps what was written on it.
    let running = "--field-selector=status.phase=Running";
    let said = cluster
        .kubectl(&["get", "pods", "-A", running, "-o", path])
        .await?;
    ensure!(said.is_empty(), "{said}");
    Ok("the annotation is gone".into())
}

/// It is ready, has one container only, and is reached.
async fn starts(cluster: &Cluster, namespace: &str) -> anyhow::Result<String> {
    cluster.apply(&NEW.replace("NAMESPACE", namespace)).await?;
    let wait = [
        "wait",
        "-n",
        namespace,
        "--for=condition=Ready",
        "pod/new",
        "--timeout=60s",
    ];
    cluster.kubectl(&wait).await?;
    let path = "jsonpath={.status.podIP} {.spec.initContainers[*].name}";
    let said = cluster
        .kubectl(&["get", "pod", "-n", namespace, "new", "-o", path])
        .await?;
    let (address, sidecar) = said.split_once(' ').unwrap_or((&said, ""));
    ensure!(sidecar.is_empty(), "it has {sidecar}");
    cell(cluster, "none", &format!("{namespace}/new"), address).await
}

async fn gone(cluster: &Cluster) -> anyhow::Result<String> {
    let delete = [
        "delete",
        "namespace",
        "sidecar",
        "shop",
        "trefoil-system",
        "--ignore-not-found",
        "--timeout=80s",
    ];
    cluster.kubectl(&delete).await?;
    Ok("sidecar, shop, trefoil-system".into())
}
