//! Two processes: the embedded API with its store, as a cluster's API server would be, and the control plane that is
//! measured. Both listen on loopback only, and end with this one.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::mesh::eventually;

/// How long a process may take to become ready.
const READY: Duration = Duration::from_secs(120);

/// A `trefoil-control-plane`.
#[derive(Debug)]
pub struct Process {
    child: Child,
    command: Vec<String>,
    log: PathBuf,
    metrics: SocketAddr,
    /// Where discovery, certificates and agents are served.
    pub listens: SocketAddr,
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Used {
    /// CPU time.
    pub cpu: Duration,
    /// Resident memory, MiB.
    pub resident: f64,
    /// The most that it ever was.
    pub peak: f64,
}

impl Process {
    /// The embedded API, with its store in a folder.
    pub async fn api(program: &Path, folder: &Path) -> anyhow::Result<(Self, Client)> {
        let address = free()?;
        let kubeconfig = folder.join("kubeconfig");
        let text = |path: &Path| path.display().to_string();
        let more = [
            "--store".to_owned(),
            text(&folder.join("store")),
            "--api-listen".to_owned(),
            address.to_string(),
            "--kubeconfig-out".to_owned(),
            text(&kubeconfig),
        ];
        let process = Self::start(program, folder, "api", &more).await?;
        let options = KubeConfigOptions::default();
        let config =
            kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &options).await?;
        Ok((process, Client::try_from(config)?))
    }

    /// The control plane over it.
    pub async fn control_plane(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        let kubeconfig = folder.join("kubeconfig").display().to_string();
        Self::start(
            program,
            folder,
            "control-plane",
            &["--kubeconfig".into(), kubeconfig],
        )
        .await
    }

    async fn start(program: &Path, folder: &Path, name: &str, more: &[String]) -> anyhow::Result<Self> {
        let (listens, metrics) = (free()?, free()?);
        let mut command = vec![program.display().to_string(), "run".into()];
        for (flag, value) in [
            ("--listen", listens.to_string()),
            ("--metrics-listen", metrics.to_string()),
            ("--webhook-listen", "127.0.0.1:0".into()),
            (
                "--admin-socket",
                folder.join(name).join("admin.sock").display().to_string(),
            ),
        ] {
            command.extend([flag.to_owned(), value]);
        }
        command.extend_from_slice(more);
        let log = folder.join(format!("{name}.log"));
        let process = Self {
            child: spawn(&command, &log)?,
            command,
            log,
            metrics,
            listens,
        };
        process.ready().await?;
        Ok(process)
    }

    /// Waits until it serves.
    pub async fn ready(&self) -> anyhow::Result<()> {
        let ready = eventually(READY, async || {
            let answer = self.get("/healthz/ready").await?;
            ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            Ok(())
        });
        ready.await.with_context(|| format!("see {}", self.log.display()))
    }

    /// Kills it, and starts it again where it was; at once, without waiting until it is ready.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.child.kill().await?;
        self.child = spawn(&self.command, &self.log)?;
        Ok(())
    }

    /// What it has used since it was started.
    pub fn used(&self) -> anyhow::Result<Used> {
        used(&self.child.id().context("it has ended")?.to_string())
    }

    /// The sum of a metric over its labels.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.get("/metrics").await?;
        let of_name = text.lines().filter(|line| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with([' ', '{']))
        });
        let values: Vec<f64> = of_name
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        ensure!(!values.is_empty(), "no metric {name}");
        Ok(values.iter().sum())
    }

    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = tokio::net::TcpStream::connect(self.metrics).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(text)
    }
}

/// What a process has used: `self`, or its number.
pub fn used(process: &str) -> anyhow::Result<Used> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}"));
    let stat = read("stat")?;
    // The name of the program, which may hold anything, ends at the last parenthesis.
    let (_, fields) = stat.rsplit_once(") ").context("/proc/PID/stat")?;
    let ticks: u64 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    let status = read("status")?;
    let mebibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kibibytes.unwrap_or_default() / 1024.0
    };
    Ok(Used {
        // The kernel's unit for user space is a hundredth of a second on every architecture.
        cpu: Duration::from_millis(ticks * 10),
        resident: mebibytes("VmRSS:"),
        peak: mebibytes("VmHWM:"),
    })
}

fn spawn(command: &[String], log: &Path) -> anyhow::Result<Child> {
    let log = std::fs::File::options().create(true).append(true).open(log)?;
    // Also where this process is killed nothing stays behind.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .args(command)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("starting a control plane")
}

/// A port of loopback that nobody has now.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
