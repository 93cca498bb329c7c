//! A GRPCRoute: told by the method which version answers, and what its status says of a good and of a bad one. The
//! versions are those that `routes` made.

use anyhow::{Context, ensure};
use serde_json::Value;

use super::{SOON, virtual_address};
use crate::mesh::eventually;
use crate::mesh::standard::Standard;
use crate::programs::call::Target;
use crate::programs::session::{Outcome, Protocol};
use crate::report::Report;

/// Calls of each check.
const CALLS: usize = 20;
/// The rule for all methods of the test server's service.
const ALL: &str = "{matches: [{method: {service: trefoil.test.Echo}}], backendRefs: [{name: v2, port: 80}]}";

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    // `Call` is what the test client calls; the rule for it is more specific than the one for its service.
    for (method, version) in [("Call", "v1"), ("Other", "v2")] {
        let only = format!(
            "{{matches: [{{method: {{service: trefoil.test.Echo, method: {method}}}}}], backendRefs: [{{name: v1, port: 80}}]}}"
        );
        apply(standard, &[ALL, &only]).await?;
        for client in ["sidecar", "ambient"] {
            let result = all(standard, client, |outcome| by(outcome, version)).await;
            report.check(format!("{client}: a route for the method {method}"), result);
        }
    }
    let good = conditions(
        standard,
        &[("Accepted", "True", ""), ("ResolvedRefs", "True", "")],
    )
    .await;
    report.check("the status of a good GRPCRoute", good);

    let nobody = "{backendRefs: [{name: nobody, port: 80}]}";
    apply(standard, &[nobody]).await?;
    let unresolved = [
        ("Accepted", "True", ""),
        ("ResolvedRefs", "False", "BackendNotFound"),
    ];
    let said = conditions(standard, &unresolved).await;
    report.check("the status of a GRPCRoute to a backend that there is not", said);
    for client in ["sidecar", "ambient"] {
        // UNAVAILABLE.
        let away =
            |outcome: &Outcome| matches!(outcome, Outcome::Failed(said) if said.contains("grpc-status 14"));
        let result = all(standard, client, away).await;
        report.check(format!("{client}: a backend that there is not"), result);
    }
    apply(standard, &[ALL]).await?;
    let result = all(standard, "ambient", |outcome| by(outcome, "v2")).await;
    report.check("a backend that there is again", result);
    report.check("a GRPCRoute that cannot be understood", malformed(standard).await);
    standard.mesh.delete("grpcroute", "ambient", "calls").await
}

fn by(outcome: &Outcome, version: &str) -> bool {
    matches!(outcome, Outcome::Served(answer) if answer.server == format!("ambient/{version}"))
}

async fn apply(standard: &Standard, rules: &[&str]) -> anyhow::Result<()> {
    let object = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\n\
         metadata: {{name: calls, namespace: ambient}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, name: server, port: 80}}], rules: [{}]}}\n",
        rules.join(", ")
    );
    standard.mesh.apply(&object).await
}

/// Once the route is in force, every call ends so.
async fn all(standard: &Standard, client: &str, right: impl Fn(&Outcome) -> bool) -> anyhow::Result<String> {
    let address = virtual_address(&standard.mesh, "ambient", "server", 80).await?;
    let target = Target {
        protocol: Protocol::Grpc,
        address,
    };
    eventually(SOON, async || {
        let calls = standard.call(client, &[target], CALLS).await?;
        let outcomes = &calls[0].outcomes;
        ensure!(outcomes.iter().all(&right), "{outcomes:?}");
        Ok(match &outcomes[0] {
            Outcome::Served(answer) => format!("{CALLS} of {CALLS} by {}", answer.server),
            other => format!("{CALLS} of {CALLS}: {other:?}"),
        })
    })
    .await
}

/// What the object's status says for its Service, about what was applied last: type, status, and reason.
async fn conditions(standard: &Standard, wanted: &[(&str, &str, &str)]) -> anyhow::Result<String> {
    eventually(SOON, async || {
        let route = read(standard).await?;
        let mut said = Vec::new();
        for (kind, status, reason) in wanted {
            let found = condition(&route, kind)?;
            ensure!(
                found["observedGeneration"] == route["metadata"]["generation"],
                "of another generation: {route}"
            );
            ensure!(
                found["status"] == *status && (reason.is_empty() || found["reason"] == *reason),
                "{found}"
            );
            said.push(format!("{kind} {status} ({})", found["reason"]));
        }
        let generation = &route["metadata"]["generation"];
        Ok(format!("{} of generation {generation}", said.join(", ")))
    })
    .await
}

async fn read(standard: &Standard) -> anyhow::Result<Value> {
    let asked = ["get", "grpcroute", "calls", "-n", "ambient", "-o", "json"];
    Ok(serde_json::from_str(&standard.mesh.ctl(&asked).await?)?)
}

fn condition<'a>(route: &'a Value, kind: &str) -> anyhow::Result<&'a Value> {
    let parents = route["status"]["parents"].as_array();
    let parent = parents.into_iter().flatten().find(|parent| {
        parent["controllerName"] == trefoil_api::names::GATEWAY_CONTROLLER
            && parent["parentRef"]["name"] == "server"
    });
    let conditions = parent.and_then(|parent| parent["conditions"].as_array());
    let mut conditions = conditions.into_iter().flatten();
    conditions
        .find(|one| one["type"] == kind)
        .with_context(|| format!("no condition {kind}: {route}"))
}

/// Refused at once or by its status, naming the field; the last good one stays in force.
async fn malformed(standard: &Standard) -> anyhow::Result<String> {
    let field = "rules[0].matches[0].method";
    let bad = "{matches: [{method: {type: RegularExpression, service: '(['}}], backendRefs: [{name: v1, port: 80}]}";
    let said = match apply(standard, &[bad]).await {
        Err(refused) => format!("{refused:#}"),
        Ok(()) => {
            conditions(standard, &[("Accepted", "False", "UnsupportedValue")]).await?;
            condition(&read(standard).await?, "Accepted")?["message"].to_string()
        }
    };
    ensure!(said.contains(field), "the field is not named: {said}");
    all(standard, "ambient", |outcome| by(outcome, "v2")).await?;
    Ok("the field is named; the last good one is in force".into())
}
