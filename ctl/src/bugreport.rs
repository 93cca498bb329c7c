//! `bugreport`: an archive with all that somebody far away needs to understand a mesh, and nothing that is secret:
//! Secrets are not even asked for. What could not be got is said in it. It takes as long as it may, and then ends
//! with what it has.

mod archive;
mod logs;
mod objects;
mod scrub;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::Instant;
use trefoil_local::causes::causes;

use crate::output::{Format, Tone, toned};
use crate::planes::{Plane, Planes, Role};
use crate::{check, proxies, status};
use archive::{Archive, Written};

/// How many processes are asked at a time.
const AT_ONCE: usize = 8;
/// How many sidecars are asked: the first ones by name.
const SIDECARS: usize = 50;

/// How a report is made.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Where it is written; else a file in this folder, named by the time.
    #[arg(long, short)]
    file: Option<PathBuf>,
    /// How many seconds it may take; what has not come by then is left out, and that is said.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(5..=3600))]
    timeout: u64,
}

/// A report that is being made.
struct Report<'a> {
    planes: &'a Planes,
    archive: Archive,
    end: Instant,
}

/// Makes one.
pub(crate) async fn run(planes: &Planes, options: &Options, format: Format) -> anyhow::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let path = options
        .file
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("trefoil-bugreport-{now}.tar.gz")));
    let mut report = Report {
        planes,
        archive: Archive::create(&path, now)?,
        end: Instant::now() + Duration::from_secs(options.timeout),
    };
    report.archive.text("README.txt", README)?;
    report.summaries().await?;
    report.processes().await?;
    objects::collect(&mut report).await?;
    logs::collect(&mut report).await?;
    let written = report.archive.finish()?;
    format.print(&written, || render(&written))
}

const README: &str = "\
Made by `trefoilctl bugreport`. summary/: what `trefoilctl status`, `check` and `proxy-status` say. processes/: what each
process of the mesh says of itself. objects/: what the API server holds; of applications' pods the shape alone. logs/: of
the mesh's own processes. missing.txt: what could not be got, and why.

No Secret was asked for. Keys, tokens, passwords, values of environment variables and of headers are taken out of
everything (REDACTED). Names, addresses, labels, policies and paths of requests are in it: look through it before you
give it away.
";

impl Report<'_> {
    /// What something comes to within the time that is left; none, and why, if it fails or takes longer.
    async fn within<T>(&mut self, what: &str, asked: impl Future<Output = anyhow::Result<T>>) -> Option<T> {
        match tokio::time::timeout_at(self.end, asked).await {
            Ok(Ok(got)) => return Some(got),
            Ok(Err(error)) => self.archive.lacks(format!("{what}: {}", causes(&error))),
            Err(_) => self.archive.lacks(format!("{what}: it took too long")),
        }
        None
    }

    async fn summaries(&mut self) -> anyhow::Result<()> {
        let planes = self.planes;
        let version = async {
            let server = planes.client().apiserver_version().await?;
            anyhow::Ok(
                json!({ "trefoilctl": env!("CARGO_PKG_VERSION"), "api_server": server, "local": planes.local().is_some() }),
            )
        };
        if let Some(version) = self.within("versions", version).await {
            self.archive.json("summary/versions.json", &version)?;
        }
        if let Some(status) = self.within("status", status::gather(planes)).await {
            self.archive
                .text("summary/status.txt", &status::render(&status))?;
            self.archive.json("summary/status.json", &status)?;
        }
        if let Some(status) = self.within("proxy-status", proxies::gather(planes)).await {
            self.archive.json("summary/proxy-status.json", &status)?;
        }
        if let Some(checked) = self.within("check", check::gather(planes)).await {
            self.archive.json("summary/check.json", &checked.findings)?;
        }
        Ok(())
    }

    /// What every process says of itself.
    async fn processes(&mut self) -> anyhow::Result<()> {
        let planes = self.planes;
        let Some(all) = self.within("processes", planes.all()).await else {
            return Ok(());
        };
        let asked = bounded(all, |left| {
            self.archive.lacks(format!(
                "processes: {left} sidecars, beyond the first {SIDECARS}, were not asked"
            ))
        });
        let questions = asked.iter().flat_map(|plane| {
            plane
                .role
                .questions()
                .iter()
                .map(move |question| (plane, *question))
        });
        let mut answers = futures::stream::iter(questions)
            .map(async |(plane, question)| (plane, question, plane.ask(planes, question).await))
            .buffer_unordered(AT_ONCE);
        loop {
            match tokio::time::timeout_at(self.end, answers.next()).await {
                Ok(None) => return Ok(()),
                Ok(Some((plane, question, answer))) => self.answered(plane, question, answer)?,
                Err(_) => {
                    self.archive.lacks("processes: asking all of them took too long");
                    return Ok(());
                }
            }
        }
    }

    fn answered(
        &mut self,
        plane: &Plane,
        question: &str,
        answer: anyhow::Result<Value>,
    ) -> anyhow::Result<()> {
        let (role, of) = (plane.role.name().replace(' ', "-"), plane.of.replace('/', "."));
        match answer {
            Ok(answer) => self
                .archive
                .json(&format!("processes/{role}/{of}/{question}.json"), &answer),
            Err(error) => {
                self.archive.lacks(format!(
                    "{question} of the {} of {}: {}",
                    plane.role.name(),
                    plane.of,
                    causes(&error)
                ));
                Ok(())
            }
        }
    }
}

/// All but sidecars beyond a number; how many are left out.
fn bounded(all: Vec<Plane>, told: impl FnOnce(usize)) -> Vec<Plane> {
    let (sidecars, others): (Vec<Plane>, Vec<Plane>) =
        all.into_iter().partition(|plane| plane.role == Role::Sidecar);
    if let left @ 1.. = sidecars.len().saturating_sub(SIDECARS) {
        told(left);
    }
    others
        .into_iter()
        .chain(sidecars.into_iter().take(SIDECARS))
        .collect()
}

fn render(written: &Written) -> String {
    let mut text = format!("{}: {} files", written.file.display(), written.files);
    for missing in &written.missing {
        text.push_str(&format!("\n{} {missing}", toned(Tone::Odd, "missing:")));
    }
    text
}
