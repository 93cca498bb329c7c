//! A route to two versions: the shares that it says, and what it says next, for every client; what it changes
//! of a request is what the application sees.

use std::time::Duration;

use anyhow::ensure;

use super::{SOON, virtual_address};
use crate::mesh::eventually;
use crate::mesh::standard::Standard;
use crate::programs::call::Target;
use crate::programs::session::{Outcome, Protocol};
use crate::report::Report;

/// Attempts for each share.
const ATTEMPTS: usize = 400;

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    for version in ["v1", "v2"] {
        standard.run_version("ambient", version).await?;
    }
    for (first, second) in [(90, 10), (0, 100)] {
        route(standard, first, second).await?;
        for client in ["sidecar", "ambient"] {
            let result = shares(standard, client, second).await;
            report.check(format!("{client}: a route of {first} to {second}"), result);
        }
        // Whose plane does not choose the way dials an endpoint: handed over, it gets policy and no route.
        let result = unrouted(standard).await;
        report.check(
            format!("none: handed over in spite of a route of {first} to {second}"),
            result,
        );
    }
    report.check("a route that cannot be understood", refused(standard).await);
    standard.mesh.delete("httproute", "ambient", "shift").await
}

async fn route(standard: &Standard, first: u32, second: u32) -> anyhow::Result<()> {
    let object = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{name: shift, namespace: ambient}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: server, port: 80}}], \
         rules: [{{backendRefs: [{{name: v1, port: 80, weight: {first}}}, {{name: v2, port: 80, weight: {second}}}]}}]}}\n"
    );
    standard.mesh.apply(&object).await
}

/// The second version's share, within four standard deviations of what was asked.
async fn shares(standard: &Standard, client: &str, percent: u32) -> anyhow::Result<String> {
    let address = virtual_address(&standard.mesh, "ambient", "server", 80).await?;
    let target = Target {
        protocol: Protocol::H1,
        address,
    };
    let versions = async |attempts| {
        let calls = standard.call(client, &[target], attempts).await?;
        let named = |version: &str| {
            let by = |outcome: &&Outcome| matches!(outcome, Outcome::Served(answer) if answer.server.ends_with(version));
            calls[0].outcomes.iter().filter(by).count()
        };
        ensure!(calls[0].served() == attempts, "{:?}", calls[0].outcomes);
        Ok((named("/v1"), named("/v2")))
    };
    // The route is in force once no other pod answers.
    eventually(SOON, async || {
        let (first, second) = versions(50).await?;
        ensure!(
            first + second == 50 && (percent < 100 || first == 0),
            "{first} by v1, {second} by v2 of 50"
        );
        Ok(())
    })
    .await?;
    tokio::time::timeout(Duration::from_secs(60), async {
        let (first, second) = versions(ATTEMPTS).await?;
        let (share, mean) = (
            f64::from(percent) / 100.0,
            f64::from(percent) / 100.0 * as_float(ATTEMPTS),
        );
        let spread = 4.0 * (mean * (1.0 - share)).sqrt();
        ensure!(first + second == ATTEMPTS, "{first} by v1, {second} by v2");
        ensure!(
            (as_float(second) - mean).abs() <= spread,
            "{second} of {ATTEMPTS} by v2"
        );
        Ok(format!("{first} by v1, {second} by v2 of {ATTEMPTS}"))
    })
    .await?
}

async fn unrouted(standard: &Standard) -> anyhow::Result<String> {
    let address = virtual_address(&standard.mesh, "ambient", "server", 80).await?;
    let target = Target {
        protocol: Protocol::H1,
        address,
    };
    let calls = standard.call("none", &[target], 20).await?;
    let dialled = |outcome: &&Outcome| matches!(outcome, Outcome::Served(answer) if answer.server.contains("/server-n"));
    let reached = calls[0].outcomes.iter().filter(dialled).count();
    ensure!(reached == 20, "{:?}", calls[0].outcomes);
    Ok(format!("{reached} of 20 by the endpoint that was dialled"))
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn as_float(count: usize) -> f64 {
    count as f64
}

/// The last good version stays in force, and the object says what is wrong with the new one.
async fn refused(standard: &Standard) -> anyhow::Result<String> {
    let object = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {name: shift, namespace: ambient}\n\
         spec: {parentRefs: [{group: '', kind: Service, name: server, port: 80}], \
         rules: [{matches: [{path: {type: RegularExpression, value: '/(['}}], backendRefs: [{name: v1, port: 80}]}]}\n";
    let Err(error) = standard.mesh.apply(object).await else {
        let printed = eventually(SOON, async || {
            let printed = standard
                .mesh
                .ctl(&["get", "httproute", "-n", "ambient", "shift", "-o", "yaml"])
                .await?;
            ensure!(
                printed.contains("Accepted") && printed.contains("rules[0].matches[0].path"),
                "{printed}"
            );
            Ok(printed)
        });
        printed.await?;
        shares(standard, "ambient", 100).await?;
        return Ok("its status names the field; the last good one is in force".into());
    };
    let said = format!("{error:#}");
    ensure!(
        said.contains("rules[0].matches[0].path"),
        "refused without the field: {said}"
    );
    shares(standard, "ambient", 100).await?;
    Ok("refused with the field; the last good one is in force".into())
}
