//! `check --pre`: whether a cluster, or this machine, can take the mesh. It says of everything that it looked at what
//! it found, and what it could not look at; what only an agent on a node can know is said to be unknown.

mod cluster;
mod machine;
mod nodes;
mod rights;
#[cfg(test)]
mod tests;

use kube::Client;
use serde::Serialize;

use crate::output::{Format, Tone, toned};
use crate::uninstall::Objects;

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Looked {
    /// At what.
    at: String,
    verdict: Verdict,
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// Whether the mesh can be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// It can.
    Good,
    /// Not known from here.
    Unknown,
    /// It can, and something of it will not work.
    Odd,
    /// It cannot.
    Bad,
}

impl Looked {
    fn new(at: impl Into<String>, verdict: Verdict, found: impl Into<String>) -> Self {
        Self {
            at: at.into(),
            verdict,
            found: found.into(),
            remedy: None,
        }
    }

    fn good(at: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(at, Verdict::Good, found)
    }

    fn unknown(at: impl Into<String>, found: impl Into<String>) -> Self {
        Self::new(at, Verdict::Unknown, found)
    }

    fn odd(at: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(at, Verdict::Odd, found).with(remedy)
    }

    fn bad(at: impl Into<String>, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(at, Verdict::Bad, found).with(remedy)
    }

    fn with(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// Looks at a cluster; 1 if it cannot take the mesh.
pub(crate) async fn cluster(client: &Client, format: Format) -> anyhow::Result<i32> {
    let version = client.apiserver_version().await?;
    let mut looked = vec![cluster::version(&version.git_version)];
    let objects = Objects::all(client).await?;
    looked.extend(nodes::judged(&objects));
    looked.extend(cluster::judged(&objects));
    looked.extend(rights::judged(client).await?);
    looked.extend(cluster::tried(client, &objects).await?);
    if !objects.unseen().is_empty() {
        let kinds: Vec<&str> = objects.unseen().iter().copied().collect();
        looked.push(Looked::unknown("what is not for you to see", kinds.join(", ")));
    }
    looked.extend(cluster::unknowable());
    print(&looked, format)
}

/// Looks at this machine; 1 if it cannot take the mesh.
pub(crate) async fn machine(format: Format) -> anyhow::Result<i32> {
    print(&machine::judged(&trefoil_local::machine::facts().await), format)
}

fn print(looked: &[Looked], format: Format) -> anyhow::Result<i32> {
    format.print(&looked, || render(looked))?;
    let worst = looked.iter().map(|one| one.verdict).max();
    Ok(i32::from(worst == Some(Verdict::Bad)))
}

fn render(looked: &[Looked]) -> String {
    let mut text = String::new();
    for one in looked {
        let mark = match one.verdict {
            Verdict::Good => toned(Tone::Good, "✓"),
            Verdict::Unknown => toned(Tone::Faint, "?"),
            Verdict::Odd => toned(Tone::Odd, "!"),
            Verdict::Bad => toned(Tone::Bad, "✗"),
        };
        text.push_str(&format!("{mark} {}: {}\n", one.at, one.found));
        if let Some(remedy) = &one.remedy {
            text.push_str(&format!("    remedy: {remedy}\n"));
        }
    }
    let bad = looked.iter().filter(|one| one.verdict == Verdict::Bad).count();
    let told = match bad {
        0 => toned(
            Tone::Good,
            "nothing that was looked at keeps the mesh from being installed",
        ),
        bad => toned(Tone::Bad, &format!("{bad} of this must change first")),
    };
    format!("{text}\n{told}")
}
