//! Nothing to steal: what a worker has is listed from outside, by the kernel's own word, and is what the
//! design says: no capability, a user of its own, no namespaces, no tokens, only its own workloads' keys.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;
use trefoil_api::names::uid;

use crate::mesh::processes::Part;
use crate::mesh::standard::{NODES, Standard};
use crate::mesh::{PodPlan, eventually};
use crate::report::Report;

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let standard = Standard::up(&super::mesh_of("nothing-to-steal"), &["--isolation", "namespace"]).await?;
    let plan = PodPlan {
        namespace: "ambient2".into(),
        mode: Some("ambient".into()),
        name: "neighbour".into(),
        node: "n1".into(),
        account: "neighbour".into(),
        ..PodPlan::default()
    };
    standard.mesh.run(&plan, &["sleep", "infinity"]).await?;
    let workers = eventually(Duration::from_secs(20), async || {
        let workers = standard.mesh.processes_of(Part::Worker, "n1")?;
        ensure!(
            workers.len() >= 2,
            "{} workers on n1, not one for each namespace",
            workers.len()
        );
        Ok(workers)
    })
    .await?;
    for worker in &workers {
        let Worker { id, .. } = Worker::read(*worker)?;
        println!("worker {id}:\n{}", Worker::read(*worker)?.listing());
    }
    examine(&standard, report, &workers);
    report.check("users of workers", distinct_users(&workers));
    approach(&standard, report, &workers).await?;
    report.check(
        "a worker of one namespace holds no other's keys",
        scopes(&standard).await,
    );
    for node in NODES {
        report.check(
            format!("the supervisor of {node} keeps no keys on disk"),
            no_keys(&standard, node),
        );
    }
    standard.mesh.down().await
}

/// A worker as the kernel describes it.
struct Worker {
    id: u32,
    status: BTreeMap<String, String>,
    environment: Vec<String>,
    descriptors: Vec<String>,
    /// Who owns its files under /proc: root where it may not be looked into.
    owner: u32,
}

impl Worker {
    fn read(id: u32) -> anyhow::Result<Self> {
        let path = PathBuf::from(format!("/proc/{id}"));
        let status = std::fs::read_to_string(path.join("status"))?
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| {
                (
                    key.to_owned(),
                    value.split_whitespace().collect::<Vec<_>>().join(" "),
                )
            })
            .collect();
        let environment = std::fs::read_to_string(path.join("environ"))?
            .split('\0')
            .filter(|variable| !variable.is_empty())
            .map(str::to_owned)
            .collect();
        let mut descriptors = Vec::new();
        for entry in std::fs::read_dir(path.join("fd"))? {
            if let Ok(target) = std::fs::read_link(entry?.path()) {
                descriptors.push(target.to_string_lossy().into_owned());
            }
        }
        descriptors.sort();
        let owner = std::fs::metadata(path.join("mem"))?.uid();
        Ok(Self {
            id,
            status,
            environment,
            descriptors,
            owner,
        })
    }

    fn status(&self, key: &str) -> &str {
        self.status.get(key).map_or("", String::as_str)
    }

    fn user(&self) -> anyhow::Result<u32> {
        let users: BTreeSet<&str> = self.status("Uid").split(' ').collect();
        ensure!(users.len() == 1, "several users: {users:?}");
        Ok(users.first().context("no user")?.parse()?)
    }

    fn listing(&self) -> String {
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for descriptor in &self.descriptors {
            let kind = descriptor
                .split_once(":[")
                .map_or(descriptor.as_str(), |(kind, _)| kind);
            *kinds.entry(kind.to_owned()).or_default() += 1;
        }
        let kinds: Vec<String> = kinds
            .iter()
            .map(|(kind, count)| format!("{count} × {kind}"))
            .collect();
        format!(
            "  user {}, groups [{}], capabilities {} {} {} {} {}, no new privileges {}\n  environment [{}]\n  descriptors {}",
            self.status("Uid"),
            self.status("Groups"),
            self.status("CapEff"),
            self.status("CapPrm"),
            self.status("CapInh"),
            self.status("CapBnd"),
            self.status("CapAmb"),
            self.status("NoNewPrivs"),
            self.environment.join(" "),
            kinds.join(", ")
        )
    }

    fn no_capability(&self) -> anyhow::Result<&'static str> {
        for set in ["CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"] {
            let bits = u64::from_str_radix(self.status(set), 16).with_context(|| set.to_owned())?;
            ensure!(bits == 0, "{set} is {bits:016x}");
        }
        ensure!(self.status("NoNewPrivs") == "1", "it may gain privileges");
        Ok("none of any kind, and no way to gain one")
    }

    fn only_carriers(&self) -> anyhow::Result<String> {
        const KNOWN: [&str; 9] = [
            "socket:",
            "pipe:",
            "anon_inode:[eventpoll]",
            "anon_inode:[eventfd]",
            "anon_inode:[timerfd]",
            "/memfd:",
            "/dev/null",
            "anon_inode:[signalfd]",
            // Where random numbers begin, in a program without a dynamic linker: opened once for the first certificate or
            // connection, and anybody's to read.
            "/dev/urandom",
        ];
        for descriptor in &self.descriptors {
            if descriptor.ends_with(".log") {
                continue;
            }
            ensure!(
                KNOWN.iter().any(|known| descriptor.starts_with(known)),
                "it holds {descriptor}"
            );
        }
        Ok(format!(
            "{} descriptors: sockets, pipes, event descriptors and the source of random numbers only",
            self.descriptors.len()
        ))
    }

    fn bare_environment(&self) -> anyhow::Result<String> {
        for variable in &self.environment {
            let lower = variable.to_lowercase();
            ensure!(
                !["token", "secret", "kubeconfig", "key="]
                    .iter()
                    .any(|word| lower.contains(word)),
                "{variable}"
            );
        }
        Ok(format!(
            "{} variables, no secret among them",
            self.environment.len()
        ))
    }
}

fn examine(standard: &Standard, report: &mut Report, workers: &[u32]) {
    for (number, id) in workers.iter().enumerate() {
        let number = number + 1;
        let worker = match Worker::read(*id) {
            Ok(worker) => worker,
            Err(error) => {
                report.check(format!("worker {number}"), Err::<&str, _>(error));
                continue;
            }
        };
        report.check(format!("worker {number}, capabilities"), worker.no_capability());
        report.check(format!("worker {number}, descriptors"), worker.only_carriers());
        report.check(format!("worker {number}, environment"), worker.bare_environment());
        let hidden = if worker.owner == 0 {
            Ok("no other process of its user may look into it")
        } else {
            Err(anyhow::anyhow!("user {} may read its memory", worker.owner))
        };
        report.check(format!("worker {number}, memory"), hidden);
        let own = std::fs::metadata(format!("/proc/{id}/ns/net")).map(|file| file.ino());
        let node =
            std::fs::metadata(Path::new("/run/netns").join(standard.mesh.node("n1"))).map(|file| file.ino());
        let outside = match (own, node) {
            (Ok(own), Ok(node)) if own == node => Ok("it is in no pod's network namespace"),
            other => Err(anyhow::anyhow!("{other:?}")),
        };
        report.check(format!("worker {number}, namespace"), outside);
    }
}

fn distinct_users(workers: &[u32]) -> anyhow::Result<String> {
    let mut users = BTreeSet::new();
    for worker in workers {
        let user = Worker::read(*worker)?.user()?;
        ensure!(user >= uid::FIRST_WORKER, "user {user}");
        ensure!(users.insert(user), "two workers are user {user}");
    }
    Ok(format!("each its own: {users:?}"))
}

/// What someone who took a worker over could try: its user and capabilities, no more.
async fn approach(standard: &Standard, report: &mut Report, workers: &[u32]) -> anyhow::Result<()> {
    let user = Worker::read(*workers.first().context("no worker")?)?
        .user()?
        .to_string();
    let run = standard.mesh.directory().join("n1");
    let netns = standard.mesh.node("n1");
    let other = workers.get(1).context("one worker alone")?;
    let connect = |path: PathBuf| {
        format!(
            "import socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET)\ns.settimeout(3)\n\
             s.connect('{}')\ns.send(bytes([26,0]))\nsys.exit(0 if s.recv(100) else 1)",
            path.display()
        )
    };
    let read = |path: String| format!("open('{path}','rb').read(16)");
    let tokens = files_named(&run, "token")?;
    ensure!(!tokens.is_empty(), "no token file under {}", run.display());
    let mut tries = vec![
        (
            "ask the descriptor store".to_owned(),
            connect(run.join("descriptors.sock")),
        ),
        (
            "listen to the feed of pods".to_owned(),
            connect(run.join("pods.sock")),
        ),
        (
            "read another worker's memory".to_owned(),
            read(format!("/proc/{other}/mem")),
        ),
        (
            "read another worker's environment".to_owned(),
            read(format!("/proc/{other}/environ")),
        ),
        (
            "enter a pod's network namespace".to_owned(),
            enter(&standard.mesh.netns(standard.client("ambient")?)),
        ),
    ];
    for token in tokens {
        let name = token.strip_prefix(&run).unwrap_or(&token).display().to_string();
        tries.push((
            format!("read the token {name}"),
            read(token.display().to_string()),
        ));
    }
    for (what, script) in tries {
        let result = as_user(&netns, &user, &script).await;
        report.check(format!("a worker's user cannot {what}"), result);
    }
    Ok(())
}

/// Tries a script with a worker's user and capabilities; its refusal, in the kernel's words.
async fn as_user(netns: &str, user: &str, script: &str) -> anyhow::Result<String> {
    let tried = Command::new("ip")
        .args([
            "netns",
            "exec",
            netns,
            "setpriv",
            "--reuid",
            user,
            "--regid",
            user,
            "--clear-groups",
        ])
        .args(["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"])
        .args(["timeout", "10", "python3", "-c", script])
        .output()
        .await?;
    ensure!(!tried.status.success(), "it could");
    let told = String::from_utf8_lossy(&tried.stderr);
    let refusal = told.lines().last().unwrap_or_default();
    // Anything else would be a try that failed, not one that was refused.
    ensure!(refusal.starts_with("PermissionError"), "{refusal}");
    Ok(refusal.to_owned())
}

fn enter(netns: &str) -> String {
    format!(
        "import ctypes,os\nlibc=ctypes.CDLL(None,use_errno=True)\n\
         if libc.setns(os.open('/run/netns/{netns}',os.O_RDONLY),0x40000000):\n\
         \traise OSError(ctypes.get_errno(),os.strerror(ctypes.get_errno()))"
    )
}

fn files_named(folder: &Path, name: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.file_name().to_string_lossy().contains(name) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// What the proxy itself says of its certificates, worker by worker.
async fn scopes(standard: &Standard) -> anyhow::Result<String> {
    let socket = standard.mesh.directory().join("n1/node/admin.sock");
    let told = Command::new("curl")
        .args(["-sSf", "-m", "5", "--unix-socket"])
        .arg(&socket)
        .arg("http://admin/certificates")
        .output()
        .await?;
    ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: serde_json::Value = serde_json::from_slice(&told.stdout)?;
    let certificates = told["certificates"]
        .as_array()
        .context("a list of certificates")?;
    let mut held: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for certificate in certificates {
        let worker = certificate["worker"].as_str().context("whose")?;
        let identity = certificate["identity"].as_str().context("for whom")?;
        let namespace = identity.split('/').nth(4).context("a SPIFFE id")?;
        held.entry(worker).or_default().insert(namespace);
    }
    ensure!(
        held.len() >= 2,
        "{} workers told of their certificates",
        held.len()
    );
    for (worker, namespaces) in &held {
        ensure!(
            namespaces.len() == 1,
            "worker {worker} holds keys of {namespaces:?}"
        );
    }
    Ok(format!("{held:?}"))
}

/// No private key in any file of the node proxy's state.
fn no_keys(standard: &Standard, node: &str) -> anyhow::Result<String> {
    let folder = standard.mesh.directory().join(node);
    let files = files_named(&folder, "")?;
    let mut read = 0;
    for file in &files {
        let Ok(content) = std::fs::read(file) else {
            continue;
        };
        ensure!(
            !content.windows(11).any(|window| window == b"PRIVATE KEY"),
            "{} holds a key",
            file.display()
        );
        read += 1;
    }
    Ok(format!("{read} files read"))
}
