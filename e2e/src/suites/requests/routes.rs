//! Routes in the sidecars of clients: a service's own where no waypoint applies them, and before those the ones that the
//! client's namespace has for itself. Each is applied once, and whoever has no plane that reads HTTP is named.

use anyhow::ensure;

use crate::mesh::eventually;
use crate::mesh::standard::Standard;
use crate::programs::call::Target;
use crate::programs::session::{Outcome, Protocol};
use crate::report::Report;
use crate::suites::http::{SOON, until_printed, virtual_address};

/// Calls of each check.
const CALLS: usize = 60;
/// A route that may only be applied once: each time that it is, the path grows.
const GROWING: &str = "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /once}}}], \
    matches: [{path: {type: PathPrefix, value: /}}]";

/// Who answers: the versions by their names, or a server that no route leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Version(&'static str),
    Unrouted,
}

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    for version in ["v1", "v2"] {
        standard.run_version("ambient", version).await?;
    }
    // The service's own, which has no waypoint.
    route(standard, "ambient", "own", "v1").await?;
    let cases = [
        (
            "sidecar",
            By::Version("v1"),
            "the service's route, applied by the client's sidecar",
        ),
        ("ambient", By::Unrouted, "no plane of the client's reads HTTP"),
    ];
    for (client, by, what) in cases {
        report.check(format!("{client}: {what}"), answered(standard, client, by).await);
    }
    report.check("whom no plane routes for is named", named(standard).await);

    // The clients' namespace has one of its own, which goes before it.
    standard.mesh.apply(GRANT).await?;
    route(standard, "sidecar", "theirs", "v2").await?;
    let result = answered(standard, "sidecar", By::Version("v2")).await;
    report.check(
        "sidecar: its own namespace's route goes before the service's",
        result,
    );
    let result = once(standard, "sidecar", "/once/path").await;
    report.check("sidecar: a route is applied once", result);

    // A waypoint applies the service's route, and not again what the client's plane has applied.
    let arguments = [
        "waypoint",
        "apply",
        "--namespace",
        "ambient",
        "--for",
        "all",
        "--enroll-namespace",
    ];
    let made = standard.mesh.ctl(&arguments).await.map(|_| "programmed");
    report.check("a waypoint for ambient", made);
    let cases = [
        ("sidecar", By::Version("v2"), "its own route, through a waypoint"),
        (
            "ambient",
            By::Version("v1"),
            "the service's route, applied by its waypoint",
        ),
    ];
    for (client, by, what) in cases {
        report.check(format!("{client}: {what}"), answered(standard, client, by).await);
        let result = once(standard, client, "/once/path").await;
        report.check(
            format!("{client}: applied once, with a waypoint on the way"),
            result,
        );
    }
    standard.mesh.delete("httproute", "sidecar", "theirs").await?;
    let result = answered(standard, "sidecar", By::Version("v1")).await;
    report.check("sidecar: without its own, the service's by the waypoint", result);
    let result = once(standard, "sidecar", "/once/path").await;
    report.check("sidecar: applied by the waypoint and not at home", result);
    standard.mesh.delete("httproute", "ambient", "own").await
}

/// Lets routes of the namespace `sidecar` lead to services of `ambient`.
const GRANT: &str = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
    metadata: {name: clients, namespace: ambient}\n\
    spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: sidecar}], \
    to: [{group: '', kind: Service}]}\n";

/// A route for the service `server` of `ambient` to one of its versions.
async fn route(standard: &Standard, namespace: &str, name: &str, version: &str) -> anyhow::Result<()> {
    let object = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: server, namespace: ambient, port: 80}}], \
         rules: [{{{GROWING}, backendRefs: [{{name: {version}, namespace: ambient, port: 80}}]}}]}}\n"
    );
    standard.mesh.apply(&object).await
}

async fn answered(standard: &Standard, client: &str, by: By) -> anyhow::Result<String> {
    let address = virtual_address(&standard.mesh, "ambient", "server", 80).await?;
    let targets = [Protocol::H1, Protocol::H2].map(|protocol| Target { protocol, address });
    let right = |outcome: &Outcome| match (outcome, by) {
        (Outcome::Served(answer), By::Version(version)) => answer.server.ends_with(version),
        (Outcome::Served(answer), By::Unrouted) => answer.server.contains("/server-n"),
        _ => false,
    };
    eventually(SOON, async || {
        for calls in standard.call(client, &targets, CALLS).await? {
            let wrong: Vec<&Outcome> = calls.outcomes.iter().filter(|outcome| !right(outcome)).collect();
            ensure!(wrong.is_empty(), "{}: {wrong:?}", calls.target.protocol);
        }
        Ok(format!("{CALLS} of {CALLS} by {by:?}, in HTTP/1.1 and in HTTP/2"))
    })
    .await
}

/// The path that the application sees.
async fn once(standard: &Standard, client: &str, path: &str) -> anyhow::Result<String> {
    let address = virtual_address(&standard.mesh, "ambient", "server", 80).await?;
    let url = format!("http://{address}/path");
    let wanted = format!("x-path: {path}\r\n");
    let command = ["curl", "-sS", "-i", "-m", "5", &url];
    until_printed(standard, client, &command, |printed| printed.contains(&wanted)).await?;
    Ok(format!("/path came as {path}"))
}

/// The route's status and `check` say whose clients it is not applied for.
async fn named(standard: &Standard) -> anyhow::Result<String> {
    eventually(SOON, async || {
        let route = standard
            .mesh
            .ctl(&["get", "httproute", "-n", "ambient", "own", "-o", "yaml"])
            .await?;
        ensure!(route.contains("ambient clients in ambient"), "{route}");
        let checked = standard.mesh.said(&["check"]).await?;
        ensure!(checked.contains("httproute ambient/own"), "{checked}");
        Ok("in its status, and by check".into())
    })
    .await
}
