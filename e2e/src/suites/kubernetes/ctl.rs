//! `trefoilctl` on a real cluster, where it reaches the planes through the API server alone: what it shows, and
//! what `why` says of pairs that work and of pairs that do not.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::cluster::{Cluster, LIMIT};
use super::{NODES, policy};
use crate::mesh::eventually;
use crate::programs::port;
use crate::report::Report;

/// How many checks it makes.
pub(super) const CHECKS: usize = 20;
/// Where it is put on the first node.
pub(super) const PROGRAM: &str = "/root/trefoilctl";

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    install(&cluster.script).await?;
    report.check("trefoilctl status", status(cluster).await);
    report.check("trefoilctl get", get(cluster).await);
    report.check("trefoilctl config POD", config(cluster).await);
    report.check("trefoilctl check, of a mesh without faults", sound(cluster).await);
    for client in ["sidecar", "ambient"] {
        pairs(cluster, report, client).await?;
    }
    strict(cluster, report).await?;
    operators(cluster, report).await;
    Ok(())
}

/// What operators ask.
async fn operators(cluster: &Cluster, report: &mut Report) {
    report.check("trefoilctl check --pre", room(cluster).await);
    report.check("trefoilctl proxy-status", proxies(cluster).await);
    report.check(
        "trefoilctl check: a NetworkPolicy that blocks tunnels",
        fence(cluster).await,
    );
    report.check(
        "trefoilctl check: a webhook that nobody answers",
        unanswered(cluster).await,
    );
    report.check("trefoilctl bugreport, without secrets", archive(cluster).await);
    report.check(
        "trefoilctl uninstall --check, of a mesh that is there",
        left(cluster).await,
    );
}

/// A cluster that the mesh runs in can take it; that it does is said.
async fn room(cluster: &Cluster) -> anyhow::Result<String> {
    let looked = told(cluster, &["check", "--pre"]).await?;
    let all = looked.as_array().context("a list")?;
    let verdict = |at: &str| {
        all.iter()
            .find(|one| one["at"].as_str().is_some_and(|said| said.starts_with(at)))
    };
    for (at, expected) in [
        ("API server", "good"),
        ("kernel of", "good"),
        ("kernel features", "unknown"),
        ("CNI configuration", "good"),
        ("rights to install", "good"),
        ("a privileged pod", "good"),
        ("earlier Trefoil", "odd"),
    ] {
        let found = verdict(at).with_context(|| format!("nothing of {at}: {looked}"))?;
        ensure!(found["verdict"] == expected, "{found}");
    }
    let bad: Vec<_> = all.iter().filter(|one| one["verdict"] == "bad").collect();
    ensure!(bad.is_empty(), "{bad:?}");
    Ok(format!("{} things looked at", all.len()))
}

async fn proxies(cluster: &Cluster) -> anyhow::Result<String> {
    eventually(Duration::from_secs(20), async || {
        let status = told(cluster, &["proxy-status"]).await?;
        ensure!(list(&status, "away").is_empty(), "{status}");
        let proxies = list(&status, "proxies");
        let of = |role: &str| proxies.iter().filter(|one| one["role"] == role).count();
        let (nodes, sidecars) = (of("node proxy"), of("sidecar"));
        ensure!(
            nodes >= 2 && sidecars >= 3,
            "{nodes} node proxies, {sidecars} sidecars: {status}"
        );
        let kinds = || proxies.iter().flat_map(|one| list(one, "kinds"));
        ensure!(kinds().all(|kind| kind["standing"] == "current"), "{status}");
        Ok(format!(
            "{nodes} node proxies and {sidecars} sidecars, all current"
        ))
    })
    .await
}

/// What `check` finds that mentions this.
async fn findings(cluster: &Cluster, mention: &str) -> anyhow::Result<Vec<String>> {
    let found = told(cluster, &["check"]).await?;
    let all = found.as_array().context("a list")?.iter().map(Value::to_string);
    Ok(all.filter(|one| one.contains(mention)).collect())
}

async fn fence(cluster: &Cluster) -> anyhow::Result<String> {
    cluster
        .apply(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: fence, namespace: ambient}\n\
             spec: {podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress], ingress: [{ports: [{port: 8080}]}]}\n",
        )
        .await?;
    let found = findings(cluster, "networkpolicy ambient/fence").await;
    cluster
        .kubectl(&["delete", "networkpolicy", "-n", "ambient", "fence"])
        .await?;
    let found = found?;
    ensure!(found.len() == 1 && found[0].contains("15008"), "{found:?}");
    Ok(found.concat())
}

/// One beside ours, of a Service that is not there.
async fn unanswered(cluster: &Cluster) -> anyhow::Result<String> {
    cluster
        .apply(
            "apiVersion: admissionregistration.k8s.io/v1\nkind: MutatingWebhookConfiguration\nmetadata: {name: unanswered}\n\
             webhooks:\n- {name: unanswered.trefoil.dev, admissionReviewVersions: [v1], sideEffects: None, timeoutSeconds: 2, \
             namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: sidecar}}, \
             rules: [{apiGroups: [\"\"], apiVersions: [v1], operations: [CREATE], resources: [pods]}], \
             clientConfig: {service: {namespace: trefoil-system, name: nobody}}}\n",
        )
        .await?;
    let found = findings(cluster, "webhook").await;
    let delete = ["delete", "mutatingwebhookconfiguration", "unanswered"];
    cluster.kubectl(&delete).await?;
    let found = found?.join("\n");
    for expected in [
        "Service trefoil-system/nobody",
        "does not reach the webhook",
        "caBundle holds none",
    ] {
        ensure!(found.contains(expected), "no {expected:?}: {found}");
    }
    Ok("its endpoints, its bundle, its reach".into())
}

/// An archive with everything, and nothing of what was planted and of the authority's key.
async fn archive(cluster: &Cluster) -> anyhow::Result<String> {
    let planted = "Xy7-planted-hunter2";
    let pod = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: planted, namespace: trefoil-system}}\nstringData: {{password: {planted}}}\n\
         ---\napiVersion: v1\nkind: Pod\nmetadata: {{name: planted, namespace: none, annotations: {{note: {planted}}}}}\n\
         spec: {{nodeSelector: {{no: node}}, containers: [{{name: c, image: none, args: [{planted}], env: [{{name: X, value: {planted}}}]}}]}}\n"
    );
    cluster.apply(&pod).await?;
    let path = "jsonpath={.data.ca-key\\.pem}";
    let key = cluster
        .kubectl(&["get", "secret", "-n", "trefoil-system", "trefoil-ca", "-o", path])
        .await?;
    ensure!(key.len() > 100, "no key of the authority to look for: {key:?}");
    let make = format!(
        "rm -f /root/report.tar.gz; {PROGRAM} bugreport --file /root/report.tar.gz >&2 && zcat /root/report.tar.gz"
    );
    // Only what is looked for: the archive itself is not text.
    let count = |what: &str| format!("grep -a -c -e '{what}' /root/report.tar || true");
    let said = cluster
        .on("n1", &["sh", "-c", &format!("{make} >/root/report.tar")], None)
        .await;
    cluster
        .kubectl(&["delete", "pod", "-n", "none", "planted", "--now"])
        .await?;
    cluster
        .kubectl(&["delete", "secret", "-n", "trefoil-system", "planted"])
        .await?;
    said?;
    let counted = async |what: &str| {
        let lines = cluster.on("n1", &["sh", "-c", &count(what)], None).await?;
        lines
            .trim()
            .parse::<u64>()
            .with_context(|| format!("counting: {lines:?}"))
    };
    for needed in [
        "bugreport/logs/trefoil-system.trefoil-control-plane",
        "bugreport/processes/node-proxy/",
        "bugreport/summary/status.txt",
    ] {
        ensure!(counted(needed).await? > 0, "no {needed}");
    }
    for secret in [planted, &key] {
        ensure!(
            counted(secret).await? == 0,
            "a secret of {} characters is in it",
            secret.len()
        );
    }
    let size = cluster
        .on(
            "n1",
            &["sh", "-c", "stat -c %s /root/report.tar.gz; rm /root/report.tar*"],
            None,
        )
        .await?;
    Ok(format!("{} bytes", size.trim()))
}

async fn left(cluster: &Cluster) -> anyhow::Result<String> {
    let found = told(cluster, &["uninstall", "--check"]).await?;
    let all = list(&found, "left");
    let hindering = all.iter().filter(|one| one["hinders"] == true).count();
    ensure!(found["installed"] == true && hindering > 0, "{found}");
    let injector = all
        .iter()
        .find(|one| one["object"] == "mutatingwebhookconfigurations/trefoil");
    ensure!(injector.is_some_and(|one| one["hinders"] == true), "{found}");
    Ok(format!(
        "{} traces, of which {hindering} would hinder pods",
        all.len()
    ))
}

/// Puts the program that lies beside this one on a node: the cluster's network is not this machine's.
pub(super) async fn install(script: &Path) -> anyhow::Result<()> {
    let program = std::env::current_exe()?.with_file_name("trefoilctl");
    let program = tokio::fs::read(&program)
        .await
        .with_context(|| program.display().to_string())?;
    let write = format!("cat >{PROGRAM} && chmod 0755 {PROGRAM}");
    let mut child = Command::new(script)
        .args(["exec", "n1", "sh", "-c", &write])
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut input = child.stdin.take().context("the node takes no input")?;
    input.write_all(&program).await?;
    drop(input);
    let exit = tokio::time::timeout(LIMIT, child.wait()).await??;
    ensure!(exit.success(), "putting trefoilctl on a node: {exit}");
    Ok(())
}

/// What it prints, whatever its exit code: where something is wrong that is not zero.
pub(super) async fn told(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<Value> {
    let run = ["sh", "-c", "\"$@\" || [ $? = 1 ]", "sh", PROGRAM, "-o", "json"];
    let said = cluster.on("n1", &[&run[..], arguments].concat(), None).await?;
    serde_json::from_str(&said).with_context(|| format!("reading {said:?}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

async fn status(cluster: &Cluster) -> anyhow::Result<String> {
    eventually(Duration::from_secs(20), async || {
        let status = told(cluster, &["status"]).await?;
        let planes = list(&status, "planes");
        for (role, count) in [
            ("control plane", 2),
            ("agent", NODES.len()),
            ("node proxy", NODES.len()),
        ] {
            let ready = |plane: &&Value| plane["role"] == role && plane["ready"] == true;
            let found = planes.iter().filter(ready).count();
            ensure!(found == count, "{found} of {count} {role}s are ready: {status}");
        }
        let sidecars = planes.iter().filter(|plane| plane["role"] == "sidecar").count();
        ensure!(sidecars >= 3, "{sidecars} sidecars");
        let away = planes
            .iter()
            .find(|plane| plane["role"] != "control plane" && plane["connected_or_away_seconds"].is_null());
        ensure!(away.is_none(), "it is not said since when: {away:?}");
        Ok(format!("{} planes", planes.len()))
    })
    .await
}

async fn get(cluster: &Cluster) -> anyhow::Result<String> {
    let pods = told(cluster, &["get", "pods,services", "-n", "ambient"]).await?;
    let named = |kind: &str| {
        list(&pods, "items")
            .iter()
            .filter(|one| one["kind"] == kind)
            .count()
    };
    let (pods, services) = (named("Pod"), named("Service"));
    ensure!(pods >= 5 && services >= 2, "{pods} pods and {services} services");
    Ok(format!("{pods} pods and {services} services"))
}

async fn config(cluster: &Cluster) -> anyhow::Result<String> {
    let mut said = Vec::new();
    for (namespace, plane) in [("sidecar", "sidecar"), ("ambient", "node")] {
        let config = told(cluster, &["config", &format!("{namespace}/client")]).await?;
        ensure!(config["redirection"] == plane, "{config}");
        let identity = format!("spiffe://cluster.local/ns/{namespace}/sa/client");
        ensure!(config["workload"]["identity"] == *identity, "{config}");
        let held = list(&config, "certificates");
        ensure!(held.iter().any(|one| one["state"] == "valid"), "{config}");
        said.push(identity);
    }
    Ok(said.join(", "))
}

async fn sound(cluster: &Cluster) -> anyhow::Result<String> {
    eventually(Duration::from_secs(20), async || {
        let findings = told(cluster, &["check"]).await?;
        ensure!(findings.as_array().is_some_and(Vec::is_empty), "{findings}");
        Ok("nothing is found".to_owned())
    })
    .await
}

/// A pair that works, and one fault after the other.
async fn pairs(cluster: &Cluster, report: &mut Report, client: &str) -> anyhow::Result<()> {
    let server = format!("ambient/{}", server_on(cluster, "ambient", "n2").await?);
    let (open, closed) = (format!("{server}:{}", port::TCP), format!("{server}:7777"));
    let result = why(cluster, client, &open, None, "connection was made").await;
    report.check(format!("why {client} → ambient: no fault"), result);

    cluster.apply(&policy("ambient", "Deny", client)).await?;
    let result = why(cluster, client, &open, Some("policy"), "ambient/smoke").await;
    report.check(format!("why {client} → ambient: denied by policy"), result);
    cluster
        .kubectl(&["delete", "authorizationpolicy", "-n", "ambient", "smoke"])
        .await?;
    why(cluster, client, &open, None, "connection was made").await?;

    let result = why(cluster, client, &closed, Some("application"), "7777").await;
    report.check(
        format!("why {client} → ambient: the application is closed"),
        result,
    );

    let nobody = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: nobody, namespace: {client}}}\n\
         spec: {{selector: {{app: nobody}}, ports: [{{port: 80}}]}}\n"
    );
    cluster.apply(&nobody).await?;
    let result = why(cluster, client, "svc/nobody", Some("endpoint"), "").await;
    report.check(format!("why {client} → a service over nobody"), result);
    cluster
        .kubectl(&["delete", "service", "-n", client, "nobody"])
        .await?;
    Ok(())
}

/// A client without a plane: its server's plane says what becomes of it, and the remedy is a plane.
async fn strict(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let server = format!(
        "ambient/{}:{}",
        server_on(cluster, "ambient", "n2").await?,
        port::TCP
    );
    let result = why(cluster, "none", &server, None, "connection was made").await;
    report.check("why none → ambient: no fault", result);
    cluster
        .apply(
            "apiVersion: trefoil.dev/v1alpha1\nkind: PeerAuthentication\n\
             metadata: {name: strict, namespace: ambient}\nspec: {mtls: Strict}\n",
        )
        .await?;
    let result = async {
        let why = why(cluster, "none", &server, Some("policy"), "strict").await?;
        ensure!(why.contains("dataplane-mode"), "the remedy is no plane: {why}");
        Ok(why)
    };
    report.check("why none → ambient under Strict", result.await);
    cluster
        .kubectl(&["delete", "peerauthentication", "-n", "ambient", "strict"])
        .await?;
    Ok(())
}

/// The name of the pod of the server's set on a node.
async fn server_on(cluster: &Cluster, namespace: &str, node: &str) -> anyhow::Result<String> {
    let field = format!("spec.nodeName={node}");
    let path = "jsonpath={.items[0].metadata.name}";
    let which = ["-l", "app=server", "--field-selector", &field, "-o", path];
    let get = [&["get", "pods", "-n", namespace], &which[..]].concat();
    cluster.kubectl(&get).await
}

/// That `why` names this layer, or none, for a reason that mentions this; the planes may have to hear of it first.
async fn why(
    cluster: &Cluster,
    client: &str,
    server: &str,
    layer: Option<&str>,
    mention: &str,
) -> anyhow::Result<String> {
    eventually(Duration::from_secs(15), async || {
        let why = told(cluster, &["why", &format!("{client}/client"), server]).await?;
        let reason = why["reason"].as_str().unwrap_or_default();
        ensure!(
            why["layer"].as_str() == layer && reason.contains(mention),
            "{why}"
        );
        ensure!((why["well"] == true) == layer.is_none(), "{why}");
        let remedy = why["remedy"].as_str().unwrap_or_default();
        ensure!(layer.is_none() || !remedy.is_empty(), "no remedy: {why}");
        Ok(format!("{}: {reason} {remedy}", layer.unwrap_or("well")))
    })
    .await
}
