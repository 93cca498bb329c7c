//! Redis, pipelined; PostgreSQL, with and without TLS of its own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use super::Route;
use crate::mesh::{Pod, PodPlan};

/// 20,000 commands in one pipeline, each answered.
pub(super) async fn redis(route: &Route<'_>, namespace: &str) -> anyhow::Result<String> {
    let command = [
        "redis-server",
        "--save",
        "",
        "--protected-mode",
        "no",
        "--port",
        "6379",
    ];
    let pod = route.run("redis", namespace, 6379, &command).await?;
    let address = pod.addresses[0];
    let script = format!("seq -f 'SET key%.0f value' 20000 | redis-cli -h {address} --pipe");
    let told = route.shell(&script).await?;
    ensure!(told.contains("errors: 0, replies: 20000"), "{told}");
    let size = route
        .client(&["redis-cli", "-h", &address.to_string(), "DBSIZE"])
        .await?;
    ensure!(size.trim() == "20000", "{size} keys");
    Ok("20,000 pipelined commands, all answered".into())
}

/// PostgreSQL: a query and a COPY of 100 MB there and back, its own TLS off and on.
pub(super) async fn postgres(
    route: &Route<'_>,
    namespace: &str,
    files: &Path,
) -> Vec<(&'static str, anyhow::Result<String>)> {
    let pod = match start(route, namespace, files).await {
        Ok(pod) => pod,
        Err(error) => return vec![("PostgreSQL", Err(error))],
    };
    vec![
        ("PostgreSQL", copy(route, &pod, "disable").await),
        ("PostgreSQL with its own TLS", copy(route, &pod, "require").await),
    ]
}

async fn start(route: &Route<'_>, namespace: &str, files: &Path) -> anyhow::Result<Pod> {
    let data = files.join(format!("postgres-{namespace}"));
    let data = data.to_str().context("a path")?;
    let script = format!(
        "set -eu; bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1); chmod 755 {files}; \
         install -d -o postgres -g postgres -m 700 {data}; cd /; \
         setpriv --reuid postgres --regid postgres --init-groups $bin/initdb -D {data} -A trust >/dev/null; \
         openssl req -new -x509 -days 2 -nodes -subj /CN=test -out {data}/server.crt -keyout {data}/server.key 2>/dev/null; \
         chown postgres:postgres {data}/server.*; chmod 600 {data}/server.key; \
         echo 'host all all all trust' >>{data}/pg_hba.conf; \
         id -u postgres; id -g postgres; echo $bin",
        files = files.display()
    );
    let output = Command::new("bash").args(["-c", &script]).output()?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "initdb: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut lines = told.lines();
    let (user, group) = (lines.next().context("uid")?, lines.next().context("gid")?);
    let postgres = format!("{}/postgres", lines.next().context("folder")?);
    let plan = PodPlan {
        namespace: namespace.into(),
        name: "postgres".into(),
        node: route.server.node.clone(),
        account: "server".into(),
        ports: vec![5432],
        services: vec!["postgres:5432".into()],
        labels: vec!["app=postgres".into()],
        user: Some(format!("{user}:{group}")),
        ..PodPlan::default()
    };
    let command = [
        postgres.as_str(),
        "-D",
        data,
        "-c",
        "listen_addresses=*",
        "-c",
        "ssl=on",
        "-c",
        "fsync=off",
        "-c",
        "unix_socket_directories=",
    ];
    route.standard.mesh.run(&plan, &command).await
}

async fn copy(route: &Route<'_>, pod: &Pod, mode: &str) -> anyhow::Result<String> {
    let script = format!(
        "q() {{ psql -X -q -t -A 'host={address} user=postgres dbname=postgres sslmode={mode} connect_timeout=10' \"$@\"; }}\n\
         rows() {{ seq -f '%012.0f aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' 900000; }}\n\
         q -c 'drop table if exists t' -c 'create unlogged table t (line text)' 2>/dev/null\n\
         rows | q -c 'copy t from stdin'\n\
         [ \"$(q -c 'select count(*) from t')\" = 900000 ]\n\
         [ \"$(q -c 'copy t to stdout' | md5sum)\" = \"$(rows | md5sum)\" ]\n\
         q -c \"select ssl from pg_stat_ssl where pid = pg_backend_pid()\"",
        address = pod.addresses[0]
    );
    let told = route.shell(&script).await?;
    let encrypted = told.trim() == "t";
    ensure!(encrypted == (mode == "require"), "its own TLS: {told:?}");
    Ok("COPY of 100 MB there and back, all rows and checksums".into())
}
