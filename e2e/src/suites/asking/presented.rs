//! What the planes show when they are the ones that ask: a server's plane is the tests' own, and reads the
//! certificates of the tunnels that both planes open to it, from the same node and from the other. One that
//! shows another's certificate in its turn is told nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::{Wish, ask, signed_for};
use crate::hbone::server::Tunnel;
use crate::mesh::standard::{NODES, Standard};
use crate::mesh::{Mesh, Pod, PodPlan, eventually};
use crate::programs::port;
use crate::report::Report;

/// Where the tests' own plane listens, in the pod that it serves.
const PLANE: u16 = 25008;
/// The longest life of a workload's certificate, and the leeway for clocks that differ.
const LIFETIME: i64 = 24 * 3600 + 600;
/// How long a tunnel may take to be seen.
const PATIENCE: Duration = Duration::from_secs(10);

/// Brought there ahead of the mesh's own rules, which stay as they are.
const RULES: &str = "table inet foreign {
  chain arrivals {
    type nat hook prerouting priority -150; policy accept;
    tcp dport 15008 redirect to :25008
  }
}";

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    for node in NODES {
        let own = Plane::start(standard, node, "peer").await?;
        let mut own = own;
        for (namespace, plane) in [("sidecar", "a sidecar"), ("ambient", "a node proxy")] {
            let place = if node == "n1" { "same" } else { "other" };
            let shown = own.shown_by(standard, namespace).await;
            report.check(format!("{plane} as client, {place} node: what it shows"), shown);
        }
    }
    let mut impostor = Plane::start(standard, "n2", "impostor").await?;
    for (namespace, plane) in [("sidecar", "a sidecar"), ("ambient", "a node proxy")] {
        let told = impostor.told_by(standard, namespace).await;
        report.check(format!("{plane} as client of another than it dialled"), told);
    }
    Ok(())
}

/// The tests' own plane in a pod, in the place of its sidecar.
struct Plane {
    pod: Pod,
    name: String,
    lines: Lines<BufReader<ChildStdout>>,
    /// Ends with this.
    _child: Child,
}

impl Plane {
    /// The `peer` shows the certificate of its pod, the `impostor` that of somebody else.
    async fn start(standard: &Standard, node: &str, account: &str) -> anyhow::Result<Self> {
        let mesh = &standard.mesh;
        let name = format!("{account}-{node}");
        let plan = PodPlan {
            namespace: "sidecar".into(),
            name: name.clone(),
            node: node.into(),
            account: account.into(),
            ..PodPlan::default()
        };
        let pod = mesh.run(&plan, &["sleep", "infinity"]).await?;
        let credentials = if account == "peer" {
            credentials(standard, ("sidecar", account), &pod).await?
        } else {
            credentials(standard, ("none", "client"), standard.client("none")?).await?
        };
        redirect(mesh, &pod).await?;
        let mut child = serving(mesh, &pod, &credentials, &name)?;
        let stdout = child.stdout.take().context("what it prints")?;
        let plane = Self {
            lines: BufReader::new(stdout).lines(),
            _child: child,
            pod,
            name,
        };
        eventually(PATIENCE, async || {
            let listening = crate::kernel::listeners(&mesh.netns(&plane.pod), PLANE).await?;
            ensure!(
                !listening.is_empty(),
                "nothing listens at port {PLANE} of {}",
                plane.name
            );
            Ok(())
        })
        .await?;
        Ok(plane)
    }

    /// The certificate of a client's plane, judged.
    async fn shown_by(&mut self, standard: &Standard, namespace: &str) -> anyhow::Result<String> {
        let at = self.pod.at(port::TCP);
        let calls = standard
            .call(namespace, &[format!("tcp@{at}").parse()?], 1)
            .await?;
        ensure!(calls[0].served() == 1, "{:?}", calls[0].outcomes);
        ensure!(
            format!("{:?}", calls[0].outcomes).contains(&self.name),
            "somebody else answered: {:?}",
            calls[0].outcomes
        );
        let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.context("no tunnel was seen")??;
        let tunnel: Tunnel = serde_json::from_str(&line.context("the tests' own plane has ended")?)?;
        let identity = format!("spiffe://cluster.local/ns/{namespace}/sa/client");
        judge(&tunnel, &identity)?;
        ensure!(tunnel.authority == at.to_string(), "{tunnel:?}");
        Ok(format!("{identity} alone, {}, h2", tunnel.tls))
    }

    /// A client that verifies whom it reaches opens no tunnel to an impostor.
    async fn told_by(&mut self, standard: &Standard, namespace: &str) -> anyhow::Result<String> {
        let at = self.pod.at(port::TCP);
        let calls = standard
            .call(namespace, &[format!("tcp@{at}").parse()?], 3)
            .await?;
        ensure!(calls[0].served() == 0, "{:?}", calls[0].outcomes);
        let told = tokio::time::timeout(Duration::from_millis(500), self.lines.next_line()).await;
        ensure!(told.is_err(), "it was told {told:?}");
        Ok("no tunnel, 0 of 3 served".into())
    }
}

fn judge(tunnel: &Tunnel, identity: &str) -> anyhow::Result<()> {
    let certificate = &tunnel.certificate;
    // Its chain to the mesh's root has been verified by the handshake: the tests' own plane knows no other.
    ensure!(certificate.uris == [identity.to_owned()], "{tunnel:?}");
    ensure!(certificate.names == 1 && !certificate.authority, "{tunnel:?}");
    ensure!(tunnel.tls == "TLSv1_3", "{tunnel:?}");
    ensure!(tunnel.protocol.as_deref() == Some("h2"), "{tunnel:?}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let now = i64::try_from(now.as_secs())?;
    ensure!(
        certificate.not_before <= now && now < certificate.not_after,
        "it is not valid at {now}: {certificate:?}"
    );
    ensure!(
        certificate.not_after - certificate.not_before <= LIFETIME,
        "it is valid for too long: {certificate:?}"
    );
    Ok(())
}

async fn credentials(standard: &Standard, account: (&str, &str), pod: &Pod) -> anyhow::Result<PathBuf> {
    let (namespace, name) = account;
    let identity = format!("spiffe://cluster.local/ns/{namespace}/sa/{name}");
    let token = standard
        .mesh
        .token(account, Some(pod), "trefoil-ca", 3600)
        .await?;
    let wish = Wish {
        token,
        uris: vec![&identity],
        impersonate: None,
    };
    let (answer, folder) = ask(standard, &format!("plane-{}", pod.name), &wish).await?;
    signed_for(&answer, &identity)?;
    Ok(folder)
}

async fn redirect(mesh: &Mesh, pod: &Pod) -> anyhow::Result<()> {
    let status = Command::new("ip")
        .args(["netns", "exec", &mesh.netns(pod), "nft", RULES])
        .status()
        .await?;
    ensure!(status.success(), "nft: {status}");
    Ok(())
}

fn serving(mesh: &Mesh, pod: &Pod, credentials: &Path, name: &str) -> anyhow::Result<Child> {
    let program = mesh.program()?;
    Command::new("ip")
        .args(["netns", "exec", &mesh.netns(pod)])
        .args([
            &program,
            "hbone-serve",
            "--listen",
            &format!("0.0.0.0:{PLANE}"),
            "--name",
            name,
        ])
        .arg("--credentials")
        .arg(credentials)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("starting the tests' own plane")
}
