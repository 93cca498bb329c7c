//! Pods that end: Jobs of a second, a CronJob, and what a pod may still ask for while it ends. A plane is there before
//! the application's first word, and after its last.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde::Deserialize;

use super::{Cluster, MESHED, NAMESPACES, delete, in_caller};
use crate::mesh::eventually;
use crate::report::Report;

/// How many checks it makes.
pub(super) const CHECKS: usize = NAMESPACES.len() * 2 + MESHED.len() + 1;
/// Pods of a Job, all at once.
const PODS: usize = 3;
/// How long its application may take, in whole seconds, as the kubelet notes them.
const SECONDS: i64 = 2;

/// A Job whose pods say one thing to a Redis of another namespace, once, and end.
const JOB: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: brief, namespace: NAMESPACE}
spec:
  completions: 3
  parallelism: 3
  backoffLimit: 0
  template:
    metadata: {labels: {app: brief}}
    spec:
      serviceAccountName: client
      restartPolicy: Never
      containers:
      - name: brief
        image: kube.test/applications:1
        imagePullPolicy: Never
        command: [sh, -c, 'redis-cli -e -h cache.SERVER INCR brief-NAMESPACE']
";

const CRON_JOB: &str = "
apiVersion: batch/v1
kind: CronJob
metadata: {name: minutely, namespace: NAMESPACE}
spec:
  schedule: '* * * * *'
  successfulJobsHistoryLimit: 20
  jobTemplate:
    spec:
      backoffLimit: 0
      template:
        spec:
          serviceAccountName: client
          restartPolicy: Never
          containers:
          - name: minutely
            image: kube.test/applications:1
            imagePullPolicy: Never
            command: [sh, -c, 'redis-cli -e -h cache.SERVER INCR minutely-NAMESPACE']
";

/// A pod that says a last word once it is told to end.
const PARTING: &str = "
apiVersion: v1
kind: Pod
metadata: {name: parting, namespace: NAMESPACE}
spec:
  serviceAccountName: client
  nodeName: n1
  terminationGracePeriodSeconds: 20
  containers:
  - name: parting
    image: kube.test/applications:1
    imagePullPolicy: Never
    command: [sh, -c, 'trap \"sleep 2; redis-cli -h cache.SERVER SET parting-NAMESPACE said; exit\" TERM; while :; do sleep 0.2; done']
";

/// What kubectl prints of several objects.
#[derive(Deserialize)]
struct List<Object> {
    items: Vec<Object>,
}

/// Whose Redis is told.
fn told_by(namespace: &str) -> &'static str {
    match namespace {
        "ambient" => "sidecar",
        "sidecar" => "ambient",
        _ => "none",
    }
}

fn of(objects: &str, namespace: &str) -> String {
    let objects = objects.replace("SERVER", told_by(namespace));
    objects.replace("NAMESPACE", namespace)
}

/// CronJobs wait for their minute: they are made early.
pub(super) async fn begin(cluster: &Cluster) -> anyhow::Result<()> {
    for namespace in NAMESPACES {
        cluster.apply(&of(CRON_JOB, namespace)).await?;
    }
    Ok(())
}

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    for namespace in NAMESPACES {
        cluster.apply(&of(JOB, namespace)).await?;
    }
    for namespace in MESHED {
        cluster.apply(&of(PARTING, namespace)).await?;
    }
    for namespace in NAMESPACES {
        let result = brief(cluster, namespace).await;
        report.check(
            format!("{PODS} pods of a Job end in a second, {namespace}"),
            result,
        );
    }
    report.check(
        "a sidecar starts before the application, and ends after it",
        around(cluster).await,
    );
    for namespace in MESHED {
        let result = parting(cluster, namespace).await;
        report.check(format!("a pod that ends says its last word, {namespace}"), result);
    }
    for namespace in NAMESPACES {
        let result = minutely(cluster, namespace).await;
        report.check(format!("a CronJob's Job is complete, {namespace}"), result);
    }
    for namespace in NAMESPACES {
        delete(cluster, &of(JOB, namespace)).await?;
        delete(cluster, &of(CRON_JOB, namespace)).await?;
    }
    Ok(())
}

/// What a Redis holds under the name of one that has told it.
async fn heard(cluster: &Cluster, of: &str, namespace: &str) -> anyhow::Result<String> {
    // Asked from within its own namespace: that is no part of what is shown.
    let script = format!("redis-cli -h cache.{} GET {of}-{namespace}", told_by(namespace));
    let value = in_caller(cluster, told_by(namespace), &script).await?;
    Ok(value.trim().to_owned())
}

async fn pods(cluster: &Cluster, namespace: &str) -> anyhow::Result<Vec<Pod>> {
    let get = ["get", "pods", "-n", namespace, "-l", "app=brief", "-o", "json"];
    let pods: List<Pod> = serde_json::from_str(&cluster.kubectl(&get).await?)?;
    Ok(pods.items)
}

/// When a container that has ended began and ended, in seconds since the epoch.
fn lasted(status: &ContainerStatus) -> anyhow::Result<(i64, i64)> {
    let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    let ended = ended.with_context(|| format!("{} has not ended", status.name))?;
    let (began, ended) = (&ended.started_at, &ended.finished_at);
    let began = began.as_ref().context("no beginning")?.0.as_second();
    Ok((began, ended.as_ref().context("no end")?.0.as_second()))
}

/// The Job is complete, none of its pods failed, each was short, and each was heard.
async fn brief(cluster: &Cluster, namespace: &str) -> anyhow::Result<String> {
    let wait = ["wait", "-n", namespace, "--for=condition=Complete", "job/brief"];
    cluster.kubectl(&[&wait[..], &["--timeout=60s"]].concat()).await?;
    let pods = pods(cluster, namespace).await?;
    ensure!(pods.len() == PODS, "{} pods", pods.len());
    let mut longest = 0;
    for pod in &pods {
        let status = pod.status.as_ref().context("a pod without a status")?;
        let own = status.container_statuses.iter().flatten().next();
        let (began, ended) = lasted(own.context("no container")?)?;
        longest = longest.max(ended - began);
    }
    ensure!(longest <= SECONDS, "one took {longest} s");
    let heard = heard(cluster, "brief", namespace).await?;
    ensure!(heard == PODS.to_string(), "{heard:?} of {PODS} were heard");
    Ok(format!(
        "complete, {heard} of {PODS} heard, the longest took {longest} s"
    ))
}

async fn around(cluster: &Cluster) -> anyhow::Result<String> {
    let mut seen = 0;
    for pod in pods(cluster, "sidecar").await? {
        let status = pod.status.context("a pod without a status")?;
        let own = status.container_statuses.iter().flatten().next();
        let own = lasted(own.context("no container")?)?;
        let mut beside = status.init_container_statuses.iter().flatten();
        let sidecar = beside.find(|one| one.name == "trefoil-sidecar");
        let sidecar = sidecar.context("no sidecar")?;
        let (began, ended) = lasted(sidecar)?;
        ensure!(
            began <= own.0 && own.1 <= ended,
            "{began} to {ended}, the application {own:?}"
        );
        let code = sidecar.state.as_ref().and_then(|state| state.terminated.as_ref());
        let code = code.map(|ended| ended.exit_code);
        ensure!(code == Some(0) && sidecar.restart_count == 0, "{sidecar:?}");
        seen += 1;
    }
    ensure!(seen == PODS, "{seen} pods");
    Ok(format!("in {seen} pods; each ended by itself"))
}

async fn parting(cluster: &Cluster, namespace: &str) -> anyhow::Result<String> {
    let pod = ["-n", namespace, "pod/parting", "--timeout=40s"];
    let wait = [&["wait", "--for=condition=Ready"], &pod[..]].concat();
    cluster.kubectl(&wait).await?;
    let before = heard(cluster, "parting", namespace).await?;
    ensure!(before.is_empty(), "it has said {before:?} before its end");
    cluster.kubectl(&[&["delete"], &pod[..]].concat()).await?;
    let after = heard(cluster, "parting", namespace).await?;
    ensure!(after == "said", "{after:?} was heard");
    Ok("2 s after it was told to end".into())
}

async fn minutely(cluster: &Cluster, namespace: &str) -> anyhow::Result<String> {
    eventually(Duration::from_secs(90), async || {
        let get = ["get", "jobs", "-n", namespace, "-o", "json"];
        let jobs: List<Job> = serde_json::from_str(&cluster.kubectl(&get).await?)?;
        let mut made = 0;
        for job in &jobs.items {
            let name = job.metadata.name.as_deref().unwrap_or_default();
            if !name.starts_with("minutely-") {
                continue;
            }
            let status = job.status.as_ref().context("a Job without a status")?;
            ensure!(status.failed.unwrap_or(0) == 0, "a pod of {name} failed");
            ensure!(status.succeeded == Some(1), "{name} is not complete yet");
            made += 1;
        }
        ensure!(made > 0, "none was made yet");
        let heard = heard(cluster, "minutely", namespace).await?;
        ensure!(heard == made.to_string(), "{heard:?} of {made} were heard");
        Ok(format!("{heard} of {made} heard"))
    })
    .await
}
