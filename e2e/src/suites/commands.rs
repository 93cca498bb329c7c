//! What somebody types in a first hour: `trefoilctl` and `kubectl` against a mesh on this machine say what was
//! done, what is wrong and what to do about it.

mod operators;

use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::mesh::{Mesh, PodPlan, eventually};
use crate::programs::port;
use crate::report::Report;

/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let mesh = Mesh::up(&super::mesh_of("commands"), &[]).await?;
    pods(&mesh).await?;
    report.check("status says since when", since(&mesh).await);
    report.check("kubectl get pods, svc and logs", foreign(&mesh).await);
    report.check("what is done, for programs", done(&mesh).await);
    report.check("a program that does not exist", nonexistent(&mesh).await);
    report.check("a pod that has ended is deleted", ended(&mesh).await);
    report.check("Ctrl-C ends the program and its pod", interrupted(&mesh).await);
    report.check("a pod and a service of one name", namesakes(&mesh).await);
    report.check("a client without a plane under Strict", strict(&mesh).await);
    report.check("a policy that closes what it guards", closing(&mesh).await);
    report.check("a principal that is nobody", nobody(&mesh).await);
    report.check("a refusal is said once", once(&mesh).await);
    operators::run(&mesh, report).await;
    let binaries = mesh.binaries().to_owned();
    mesh.down().await?;
    let removed = operators::removed(&binaries, &super::mesh_of("commands")).await;
    report.check("uninstall --check, of a mesh that has gone", removed);
    Ok(())
}

async fn pods(mesh: &Mesh) -> anyhow::Result<()> {
    let program = mesh.program()?;
    for (namespace, name) in [("sidecar", "web"), ("ambient", "cart"), ("none", "web")] {
        let plan = PodPlan {
            namespace: namespace.into(),
            name: name.into(),
            node: "n1".into(),
            account: name.into(),
            ports: vec![port::TCP],
            services: vec![format!("{name}:80:{}", port::TCP)],
            ..PodPlan::default()
        };
        mesh.run(&plan, &[&program, "serve", "--name", name]).await?;
    }
    Ok(())
}

async fn read(mesh: &Mesh, arguments: &[&str]) -> anyhow::Result<Value> {
    let said = mesh.said(&[arguments, &["-o", "json"]].concat()).await?;
    serde_json::from_str(&said).with_context(|| format!("reading {said:?}"))
}

/// That a command fails, and what it says then.
async fn refused(mesh: &Mesh, arguments: &[&str]) -> anyhow::Result<String> {
    match mesh.ctl(arguments).await {
        Ok(said) => anyhow::bail!("{} went well: {said}", arguments.join(" ")),
        Err(error) => Ok(error.root_cause().to_string()),
    }
}

async fn kubectl(mesh: &Mesh, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new("kubectl");
    command.arg("--kubeconfig").arg(mesh.kubeconfig()).args(arguments);
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    Ok(tokio::time::timeout(LIMIT, output).await??)
}

async fn since(mesh: &Mesh) -> anyhow::Result<String> {
    let text = mesh.said(&["status"]).await?;
    ensure!(text.contains("connected for "), "{text}");
    let status = read(mesh, &["status"]).await?;
    ensure!(status["remarks"].is_array(), "no remarks: {status}");
    Ok("connected for so long".into())
}

async fn foreign(mesh: &Mesh) -> anyhow::Result<String> {
    let pods = kubectl(mesh, &["get", "pods", "-n", "sidecar"]).await?;
    let pods = String::from_utf8(pods.stdout)?;
    ensure!(pods.contains("2/2"), "{pods}");
    let services = String::from_utf8(kubectl(mesh, &["get", "svc", "-n", "ambient"]).await?.stdout)?;
    ensure!(services.contains("80/TCP"), "{services}");
    for (arguments, instead) in [
        (
            &["logs", "-n", "ambient", "cart"][..],
            "trefoilctl local logs ambient/cart",
        ),
        (
            &["exec", "-n", "ambient", "cart", "--", "true"][..],
            "trefoilctl local exec ambient/cart",
        ),
    ] {
        let told = kubectl(mesh, arguments).await?;
        let told = String::from_utf8(told.stderr)?;
        ensure!(told.contains(instead), "{arguments:?}: {told}");
    }
    Ok("2/2 ready, ports, and where logs and exec are".into())
}

async fn done(mesh: &Mesh) -> anyhow::Result<String> {
    let apply = ["label", "namespace", "none", "a=b"];
    let labelled = read(mesh, &apply).await?;
    ensure!(labelled[0]["done"] == "labelled", "{labelled}");
    let told = refused(mesh, &["apply"]).await?;
    ensure!(told.contains("--file"), "{told}");
    Ok("as JSON".into())
}

async fn nonexistent(mesh: &Mesh) -> anyhow::Result<String> {
    let run = ["local", "run", "--detach", "-n", "ambient", "--name", "no"];
    refused(mesh, &[&run[..], &["--", "no-such-program"]].concat()).await
}

async fn ended(mesh: &Mesh) -> anyhow::Result<String> {
    mesh.local(&["run", "-n", "ambient", "--name", "job", "--", "true"])
        .await?;
    mesh.local(&["delete", "ambient/job"]).await?;
    let told = refused(mesh, &["get", "pod", "job", "-n", "ambient"]).await?;
    ensure!(told.contains("not found"), "{told}");
    refused(mesh, &["local", "delete", "ambient/job"]).await
}

/// On a terminal of its own, which sends what Ctrl-C sends.
async fn interrupted(mesh: &Mesh) -> anyhow::Result<String> {
    let ctl = mesh.binaries().join("trefoilctl");
    let run = "local run -n ambient --name typed -- sleep 1000";
    let line = format!("{} --mesh {} {run}", ctl.display(), super::mesh_of("commands"));
    let mut terminal = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    eventually(Duration::from_secs(30), async || {
        let processes = mesh.local(&["exec", "ambient/typed", "--", "true"]).await;
        processes.context("the pod does not run")
    })
    .await?;
    let mut keys = terminal.stdin.take().context("a keyboard")?;
    keys.write_all(b"\x03").await?;
    let exit = tokio::time::timeout(LIMIT, terminal.wait())
        .await
        .context("it goes on")??;
    ensure!(mesh.pod("ambient", "typed").await.is_err(), "the pod still runs");
    mesh.local(&["delete", "ambient/typed"]).await?;
    Ok(format!("{exit}"))
}

async fn namesakes(mesh: &Mesh) -> anyhow::Result<String> {
    let either = read(mesh, &["why", "sidecar/web", "ambient/cart"]).await?;
    ensure!(either["server"] == "pod ambient/cart", "{either}");
    ensure!(either.to_string().contains("svc/ambient/cart"), "{either}");
    let service = read(mesh, &["why", "sidecar/web", "svc/ambient/cart"]).await?;
    ensure!(service["server"] == "service ambient/cart", "{service}");
    ensure!(
        either["well"] == true && service["well"] == true,
        "{either} {service}"
    );
    Ok("each is said".into())
}

async fn strict(mesh: &Mesh) -> anyhow::Result<String> {
    mesh.apply(
        "apiVersion: trefoil.dev/v1alpha1\nkind: PeerAuthentication\n\
         metadata: {name: strict, namespace: ambient}\nspec: {mtls: Strict}\n",
    )
    .await?;
    let result = eventually(Duration::from_secs(10), async || {
        let why = read(mesh, &["why", "none/web", "svc/ambient/cart"]).await?;
        ensure!(why["layer"] == "policy", "{why}");
        let remedy = why["remedy"].as_str().unwrap_or_default().to_owned();
        ensure!(
            remedy.contains("label namespace none trefoil.dev/dataplane-mode"),
            "{why}"
        );
        Ok(remedy)
    })
    .await;
    mesh.delete("peerauthentication", "ambient", "strict").await?;
    result
}

fn policy(rule: &str) -> String {
    format!(
        "apiVersion: trefoil.dev/v1alpha1\nkind: AuthorizationPolicy\n\
         metadata: {{name: odd, namespace: ambient}}\nspec: {{action: Deny, rules: [{rule}]}}\n"
    )
}

async fn applied(mesh: &Mesh, policy: &str) -> anyhow::Result<String> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), policy)?;
    let path = file.path().to_str().context("a path")?;
    mesh.ctl(&["apply", "-f", path]).await
}

async fn closing(mesh: &Mesh) -> anyhow::Result<String> {
    let told = applied(mesh, &policy("{to: [{paths: [/admin]}]}")).await?;
    ensure!(told.contains("warning: not Enforced (NeedsHttp)"), "{told}");
    let table = mesh.ctl(&["get", "policies", "-n", "ambient"]).await?;
    ensure!(table.contains("not Enforced: NeedsHttp"), "{table}");
    let findings = about_odd(mesh).await?;
    ensure!(findings.len() == 1, "{findings:?}");
    let remedy = findings[0]["remedy"].as_str().unwrap_or_default().to_owned();
    ensure!(!remedy.contains("last good"), "{remedy}");
    mesh.delete("authorizationpolicy", "ambient", "odd").await?;
    Ok(remedy)
}

/// What `check` finds about the policy.
async fn about_odd(mesh: &Mesh) -> anyhow::Result<Vec<Value>> {
    let findings = read(mesh, &["check"]).await?;
    let all = findings.as_array().cloned().unwrap_or_default();
    let about = |one: &Value| one.to_string().contains("ambient/odd");
    Ok(all.into_iter().filter(about).collect())
}

async fn nobody(mesh: &Mesh) -> anyhow::Result<String> {
    for impossible in ["sidecar/web", "spiffe://cluster.local/ns/sidecar/sa/web"] {
        let told = applied(
            mesh,
            &policy(&format!("{{from: [{{principals: [\"{impossible}\"]}}]}}")),
        )
        .await;
        ensure!(told.is_err(), "{impossible}: {told:?}");
    }
    applied(
        mesh,
        &policy("{from: [{principals: [cluster.local/ns/sidecar/sa/wbe]}]}"),
    )
    .await?;
    let findings = about_odd(mesh).await?;
    ensure!(
        findings.len() == 1 && findings[0].to_string().contains("sa/wbe"),
        "{findings:?}"
    );
    mesh.delete("authorizationpolicy", "ambient", "odd").await?;
    Ok("refused, or found".into())
}

async fn once(mesh: &Mesh) -> anyhow::Result<String> {
    let told = refused(mesh, &["get", "pod", "nobody", "-n", "ambient"]).await?;
    ensure!(told.matches("not found").count() == 1, "{told}");
    Ok(told)
}
