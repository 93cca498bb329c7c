//! Applications that nobody here wrote the protocol of, unmodified, in three namespaces: Redis, PostgreSQL, nginx,
//! gRPC's interoperability programs, the members of a StatefulSet by their names, Jobs and a CronJob. Each by its own
//! client and by names of services; what they say is searched for between the nodes.

use std::time::Duration;

use anyhow::{Context, ensure};

use super::{Cluster, NAMESPACES};
use crate::capture::Capture;
use crate::mesh::eventually;
use crate::report::Report;
use programs::{PROGRAMS, Program, program};

mod lifetimes;
mod programs;

/// How many checks it makes.
pub(super) const CHECKS: usize =
    1 + NAMESPACES.len() * NAMESPACES.len() * (PROGRAMS.len() + 1) + 2 + POLICY_CHECKS + lifetimes::CHECKS;
const POLICY_CHECKS: usize = 8;
const OBJECTS: &str = include_str!("../../../cluster/manifests/applications.yaml");
/// The namespaces of the mesh.
const MESHED: [&str; 2] = ["sidecar", "ambient"];

/// One policy that denies a caller, and one that allows a caller, each of one program and of nothing else.
const POLICIES: &str = "
apiVersion: trefoil.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: cache, namespace: ambient}
spec:
  selector: {matchLabels: {app: cache}}
  action: Deny
  rules: [{from: [{principals: [cluster.local/ns/sidecar/sa/client]}], to: [{ports: [6379]}]}]
---
apiVersion: trefoil.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: database, namespace: sidecar}
spec:
  selector: {matchLabels: {app: database}}
  action: Allow
  rules: [{from: [{principals: [cluster.local/ns/ambient/sa/client]}], to: [{ports: [5432]}]}]
";

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let strict = MESHED.map(strict).join("---\n");
    // Earlier steps may have left it; what is open first is shown to be.
    delete(cluster, &strict).await?;
    let begun = tokio::time::Instant::now();
    for namespace in NAMESPACES {
        cluster.apply(&OBJECTS.replace("NAMESPACE", namespace)).await?;
    }
    lifetimes::begin(cluster).await?;
    let started = started(cluster).await;
    let took = begun.elapsed().as_secs_f64();
    report.check(
        "the applications start",
        started.map(|pods| format!("{pods} pods in {took:.1} s")),
    );
    for (client, server) in pairs(|client, server| client == "none" || server == "none") {
        pair(cluster, report, client, server).await?;
    }
    cluster.apply(&strict).await?;
    for server in MESHED {
        let result = kept_out(cluster, server).await;
        report.check(format!("under STRICT, none → applications of {server}"), result);
    }
    for (client, server) in pairs(|client, server| client != "none" && server != "none") {
        pair(cluster, report, client, server).await?;
    }
    policies(cluster, report).await?;
    lifetimes::run(cluster, report).await?;
    delete(cluster, &strict).await?;
    for namespace in NAMESPACES {
        delete(cluster, &OBJECTS.replace("NAMESPACE", namespace)).await?;
    }
    Ok(())
}

fn pairs(wanted: impl Fn(&str, &str) -> bool) -> Vec<(&'static str, &'static str)> {
    let all = NAMESPACES
        .iter()
        .flat_map(|client| NAMESPACES.map(|server| (*client, server)));
    all.filter(|(client, server)| wanted(client, server)).collect()
}

fn strict(namespace: &str) -> String {
    format!(
        "apiVersion: trefoil.dev/v1alpha1\nkind: PeerAuthentication\n\
         metadata: {{name: applications, namespace: {namespace}}}\nspec: {{mtls: Strict}}\n"
    )
}

async fn delete(cluster: &Cluster, objects: &str) -> anyhow::Result<()> {
    let delete = [
        "kubectl",
        "delete",
        "--ignore-not-found",
        "--wait=false",
        "-f",
        "-",
    ];
    cluster.on("n1", &delete, Some(objects)).await.map(drop)
}

/// Waits until all of them are ready; how many pods they have.
async fn started(cluster: &Cluster) -> anyhow::Result<usize> {
    let mut pods = 0;
    for namespace in NAMESPACES {
        for set in [
            "deployment/cache",
            "deployment/database",
            "deployment/web",
            "deployment/interop",
            "statefulset/member",
        ] {
            let status = ["rollout", "status", "-n", namespace, set, "--timeout=80s"];
            cluster.kubectl(&status).await?;
        }
        let wait = ["wait", "-n", namespace, "--for=condition=Ready", "pod/caller"];
        cluster.kubectl(&wait).await?;
        let of = "app in (cache,database,web,interop,member)";
        let get = ["get", "pods", "-n", namespace, "-l", of, "-o", "name"];
        pods += 1 + cluster.kubectl(&get).await?.lines().count();
    }
    Ok(pods)
}

/// Every program of a client's namespace with those of a server's, and what of it is seen between the nodes: all where
/// one of the two is not of the mesh, so that it would be seen, and nothing where both are.
async fn pair(cluster: &Cluster, report: &mut Report, client: &str, server: &str) -> anyhow::Result<()> {
    let capture = Capture::start("kubenet").await?;
    for program in &PROGRAMS {
        let result = served(cluster, client, server, program, program.asked).await;
        report.check(format!("{client} → {server}, {}", program.name), result);
    }
    let words = PROGRAMS.map(|program| program.word);
    let found = capture.stop_and_find(&words).await?;
    let plain = client == "none" || server == "none";
    let seen = PROGRAMS.iter().zip(&found);
    let seen: Vec<String> = seen.map(|(of, count)| format!("{} {count}", of.name)).collect();
    let seen = seen.join(", ");
    let result = if found.iter().all(|count| (*count > 0) == plain) {
        Ok(format!("in the clear: {seen}"))
    } else {
        Err(anyhow::anyhow!("in the clear: {seen}"))
    };
    report.check(
        format!("{client} → {server}, what applications say on the wire"),
        result,
    );
    Ok(())
}

/// How many of the client's requests were answered: as many as are wanted.
async fn served(
    cluster: &Cluster,
    client: &str,
    server: &str,
    program: &Program,
    wanted: usize,
) -> anyhow::Result<String> {
    let answered = asked(cluster, client, server, program).await?;
    let of = format!("{answered} of {} answered", program.asked);
    ensure!(answered == wanted, "{of}, not {wanted}");
    Ok(of)
}

async fn asked(cluster: &Cluster, client: &str, server: &str, program: &Program) -> anyhow::Result<usize> {
    let script = program.script(client, server);
    let said = in_caller(cluster, client, &script).await?;
    let last = said.lines().last().unwrap_or_default().trim();
    last.parse().with_context(|| format!("reading {said:?}"))
}

/// A script in the pod from which a namespace's clients call.
async fn in_caller(cluster: &Cluster, namespace: &str, script: &str) -> anyhow::Result<String> {
    let exec = [
        "exec", "-n", namespace, "caller", "-c", "caller", "--", "sh", "-c", script,
    ];
    cluster.kubectl(&exec).await
}

/// A stranger's plaintext is refused by every one of them.
async fn kept_out(cluster: &Cluster, server: &str) -> anyhow::Result<String> {
    let web = program("nginx")?;
    // The policy is on its way.
    eventually(Duration::from_secs(15), async || {
        served(cluster, "none", server, web, 0).await
    })
    .await?;
    let mut kept = Vec::new();
    for program in &PROGRAMS {
        let seen = served(cluster, "none", server, program, 0).await;
        kept.push(format!(
            "{} {}",
            program.name,
            seen.with_context(|| program.name)?
        ));
    }
    Ok(kept.join(", "))
}

/// Of two callers one is denied one program, and the other is not; nor is the first denied another program.
async fn policies(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    cluster.apply(POLICIES).await?;
    for (client, server, name, allowed) in [
        ("sidecar", "ambient", "Redis", false),
        ("ambient", "ambient", "Redis", true),
        ("sidecar", "ambient", "PostgreSQL", true),
        ("sidecar", "sidecar", "PostgreSQL", false),
        ("ambient", "sidecar", "PostgreSQL", true),
        ("sidecar", "sidecar", "Redis", true),
    ] {
        let program = program(name)?;
        let wanted = if allowed { program.asked } else { 0 };
        let result = eventually(Duration::from_secs(20), async || {
            served(cluster, client, server, program, wanted).await
        });
        let verdict = if allowed { "allowed" } else { "denied" };
        report.check(
            format!("{client} → {server}, {name} is {verdict} by its identity"),
            result.await,
        );
    }
    delete(cluster, POLICIES).await?;
    for (server, name) in [("ambient", "Redis"), ("sidecar", "PostgreSQL")] {
        let program = program(name)?;
        let result = eventually(Duration::from_secs(20), async || {
            served(cluster, "sidecar", server, program, program.asked).await
        });
        report.check(
            format!("sidecar → {server}, {name} with the policy gone"),
            result.await,
        );
    }
    Ok(())
}
