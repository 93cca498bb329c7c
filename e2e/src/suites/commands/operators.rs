//! What an operator asks of a mesh: whether there is room for it, what each plane has acknowledged, what policies of
//! the network do to tunnels, an archive for maintainers, and what is left when it has gone.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Command;

use super::{LIMIT, read};
use crate::mesh::processes::signal;
use crate::mesh::{Mesh, eventually};
use crate::report::Report;

/// What is planted where an archive might pick it up.
const PLANTED: &str = "Xy7-planted-hunter2";

pub(super) async fn run(mesh: &Mesh, report: &mut Report) {
    report.check("check --pre: this machine can take a mesh", machine(mesh).await);
    report.check(
        "proxy-status: every plane holds what is served",
        current(mesh).await,
    );
    report.check(
        "proxy-status: a plane that takes nothing is behind",
        behind(mesh).await,
    );
    report.check("check: a NetworkPolicy that blocks tunnels", blocking(mesh).await);
    report.check("bugreport: what is in it, and no secret is", archive(mesh).await);
    report.check("uninstall --check, of a mesh that is there", left(mesh).await);
}

async fn machine(mesh: &Mesh) -> anyhow::Result<String> {
    let looked = read(mesh, &["check", "--pre"]).await?;
    let all = looked.as_array().context("a list")?;
    let well = all.iter().all(|one| one["verdict"] == "good");
    ensure!(!all.is_empty() && well, "{looked}");
    Ok(format!("{} things are as they should be", all.len()))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

async fn current(mesh: &Mesh) -> anyhow::Result<String> {
    eventually(Duration::from_secs(20), async || {
        let status = read(mesh, &["proxy-status"]).await?;
        ensure!(list(&status, "away").is_empty(), "{status}");
        let proxies = list(&status, "proxies");
        for (role, count) in [("node proxy", 2), ("sidecar", 1)] {
            let found = proxies.iter().filter(|proxy| proxy["role"] == role).count();
            ensure!(found == count, "{found} of {count} {role}s: {status}");
        }
        for kind in proxies.iter().flat_map(|proxy| list(proxy, "kinds")) {
            let whole = kind["held"] == kind["served"] && kind["acknowledged_seconds"].is_u64();
            ensure!(kind["standing"] == "current" && whole, "{status}");
        }
        let versions = proxies
            .iter()
            .all(|proxy| proxy["version"] == env!("CARGO_PKG_VERSION"));
        ensure!(versions, "{status}");
        let one = mesh.ctl(&["proxy-status", "sidecar/web"]).await?;
        ensure!(one.contains("address") && one.contains(" ago"), "{one}");
        Ok(format!("{} planes", proxies.len()))
    })
    .await
}

/// A sidecar that is stopped acknowledges nothing: it is behind since the change, until it goes on.
async fn behind(mesh: &Mesh) -> anyhow::Result<String> {
    let sidecar = mesh
        .pod("sidecar", "web")
        .await?
        .sidecar
        .context("no sidecar runs")?;
    let standing = async || {
        let status = read(mesh, &["proxy-status", "sidecar/web"]).await?;
        let proxies = list(&status, "proxies").first().context("not there")?.clone();
        let address = list(&proxies, "kinds")
            .iter()
            .find(|kind| kind["kind"] == "address")
            .cloned();
        address.with_context(|| format!("no addresses: {status}"))
    };
    signal(sidecar, Signal::STOP)?;
    let seen = async {
        mesh.ctl(&["label", "pod", "cart", "-n", "ambient", "seen=yes"])
            .await?;
        mesh.apply("apiVersion: v1\nkind: Service\nmetadata: {name: late, namespace: ambient}\nspec: {ports: [{port: 80}]}\n").await?;
        eventually(Duration::from_secs(20), async || {
            let address = standing().await?;
            let seconds = address["behind_seconds"].as_u64().unwrap_or_default();
            ensure!(address["standing"] == "behind" && seconds >= 1, "{address}");
            Ok(seconds)
        })
        .await
    };
    let seen = seen.await;
    signal(sidecar, Signal::CONT)?;
    let seconds = seen?;
    eventually(Duration::from_secs(20), async || {
        let address = standing().await?;
        ensure!(address["standing"] == "current", "{address}");
        Ok(())
    })
    .await?;
    mesh.delete("service", "ambient", "late").await?;
    Ok(format!("behind for {seconds} s, then current"))
}

async fn blocking(mesh: &Mesh) -> anyhow::Result<String> {
    let policy = |ports: &str| {
        format!(
            "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: fence, namespace: ambient}}\n\
             spec: {{podSelector: {{}}, policyTypes: [Ingress], ingress: [{{ports: [{ports}]}}]}}\n"
        )
    };
    let about = async || {
        let findings = read(mesh, &["check"]).await?;
        let all = findings.as_array().cloned().context("a list")?;
        let about = all
            .into_iter()
            .filter(|one| one.to_string().contains("ambient/fence"));
        anyhow::Ok(about.collect::<Vec<Value>>())
    };
    mesh.apply(&policy("{port: 8080}")).await?;
    let blocked = about().await?;
    mesh.apply(&policy("{port: 8080}, {port: 15008}")).await?;
    let open = about().await?;
    mesh.delete("networkpolicy", "ambient", "fence").await?;
    ensure!(blocked.len() == 1 && open.is_empty(), "{blocked:?} {open:?}");
    let remedy = blocked[0]["remedy"].as_str().unwrap_or_default();
    ensure!(remedy.contains("15008"), "{blocked:?}");
    Ok(remedy.to_owned())
}

/// Secrets where one might look: a Secret, a policy's header, an annotation, a log, and the mesh's own.
async fn archive(mesh: &Mesh) -> anyhow::Result<String> {
    mesh.apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: planted, namespace: trefoil-system}}\nstringData: {{password: {PLANTED}}}\n\
         ---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: planted, namespace: ambient}}\ndata: {{any: {PLANTED}}}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: planted, namespace: ambient, annotations: {{note: {PLANTED}}}}}\nspec: {{ports: [{{port: 80}}]}}\n"
    ))
    .await?;
    let log = mesh.log("planted");
    std::fs::write(
        &log,
        format!("GET /login?password={PLANTED}\nAuthorization: Bearer {PLANTED}\n"),
    )?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("report.tar.gz");
    let path = file.to_str().context("a path")?;
    let written = read(mesh, &["bugreport", "--timeout", "60", "--file", path]).await?;
    ensure!(list(&written, "missing").is_empty(), "{written}");
    let unpacked = Command::new("tar")
        .args(["-xzf", path, "-C"])
        .arg(folder.path())
        .status()
        .await?;
    ensure!(unpacked.success(), "unpacking: {unpacked}");
    let text = everything(&folder.path().join("trefoil-bugreport"))?;
    for needed in [
        "summary/status.txt",
        "processes/control-plane/",
        "processes/sidecar/sidecar.web/connections.json",
        "objects/pods.json",
        "logs/planted.log",
        "logs/control-plane.log",
    ] {
        ensure!(text.contains(needed), "no {needed}: {written}");
    }
    for secret in secrets(mesh).await? {
        ensure!(
            !text.contains(&secret),
            "a secret of {} characters is in it",
            secret.len()
        );
    }
    std::fs::remove_file(log)?;
    for (kind, namespace) in [
        ("secret", "trefoil-system"),
        ("configmap", "ambient"),
        ("service", "ambient"),
    ] {
        mesh.delete(kind, namespace, "planted").await?;
    }
    Ok(format!("{} files, {} bytes", written["files"], text.len()))
}

/// The names and the content of all files.
fn everything(folder: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        text.push_str(&format!("\n{}\n", path.display()));
        text.push_str(&match path.is_dir() {
            true => everything(&path)?,
            false => std::fs::read_to_string(&path)?,
        });
    }
    Ok(text)
}

/// What was planted, every token and key of the mesh's folder, and what its Secrets hold.
async fn secrets(mesh: &Mesh) -> anyhow::Result<Vec<String>> {
    let mut secrets = vec![PLANTED.to_owned()];
    let files = everything_of(&mesh.directory(), &["token", "api-token"])?;
    ensure!(
        files.len() >= 4,
        "only {} tokens: they were looked for in the wrong place",
        files.len()
    );
    secrets.extend(files);
    let kubeconfig = std::fs::read_to_string(mesh.kubeconfig())?;
    let long = kubeconfig.split(['"', ' ', '\n']).filter(|word| word.len() > 100);
    secrets.extend(long.map(str::to_owned));
    let held = read(mesh, &["get", "secrets", "-n", "trefoil-system"]).await?;
    let values = list(&held, "items")
        .iter()
        .filter_map(|one| one["data"].as_object());
    // Of the authority's: its certificate and its roots are for everybody.
    let values = values.flatten().filter(|(key, _)| !key.contains("cert"));
    let before = secrets.len();
    secrets.extend(values.filter_map(|(_, value)| value.as_str()).map(str::to_owned));
    ensure!(
        secrets.len() > before + 1,
        "the authority's key is not among the Secrets"
    );
    Ok(secrets)
}

/// The content of all files of these names.
fn everything_of(folder: &Path, names: &[&str]) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(everything_of(&path, names)?);
        } else if path
            .file_name()
            .is_some_and(|name| names.iter().any(|one| name == *one))
        {
            found.push(std::fs::read_to_string(&path)?.trim().to_owned());
        }
    }
    Ok(found)
}

async fn left(mesh: &Mesh) -> anyhow::Result<String> {
    let found = read(mesh, &["uninstall", "--check"]).await?;
    let left = list(&found, "left").len();
    ensure!(found["installed"] == true && left > 0, "{found}");
    Ok(format!("{left} traces"))
}

/// The same of a mesh that has been removed: its exit code says so too.
pub(super) async fn removed(binaries: &Path, name: &str) -> anyhow::Result<String> {
    let mut command = Command::new(binaries.join("trefoilctl"));
    command.args(["--mesh", name, "uninstall", "--check"]);
    // Nobody's cluster: this machine is meant.
    command
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await??;
    let said = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success() && said.contains("nothing is left"),
        "{}: {said}",
        output.status
    );
    Ok("nothing is left".into())
}
