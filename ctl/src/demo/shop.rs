//! HTTP: a front end calls a gRPC API of which two versions run behind a waypoint. A route shifts between them, a
//! policy denies one caller one of the API's methods, and who dials a pod's own address comes by no other verdict.

mod verdicts;

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};
use trefoil_demo_programs::load::Visits;

use super::cast::{self, CATALOG, GRPC};
use super::{Demo, heading};
use crate::object::apply::apply_one;
use crate::output::{Format, Table, Tone, toned};
use crate::waypoint::{self, Serves, WaypointCommand, Which};
use trefoil_local::objects::create_namespace;

/// The namespace of the API.
const SHOP: &str = "shop";
/// Its waypoint.
const WAYPOINT: &str = "waypoint";
/// Visits at the front end that are counted for each share.
const VISITS: u32 = 400;
/// Visits that show whether a route is in force.
const TRIES: u32 = 40;
/// How long a route or a policy may take to be in force.
const PATIENCE: Duration = Duration::from_secs(10);

/// Shows all of it.
pub(super) async fn show(demo: &mut Demo) -> anyhow::Result<()> {
    heading("A front end that calls a gRPC API, in two versions behind a waypoint");
    start(demo).await?;
    shifts(demo).await?;
    verdicts::show(demo).await
}

/// The pods, the service of both versions, and the waypoint, as a user would make it.
async fn start(demo: &mut Demo) -> anyhow::Result<()> {
    let client = demo.planes.client();
    let began = Instant::now();
    create_namespace(client, SHOP, Some("ambient")).await?;
    apply_one(client, service(), None).await?;
    let mesh = &demo.mesh;
    futures::future::try_join_all(demo.shop.iter_mut().map(|member| member.start(mesh))).await?;
    let apply = WaypointCommand::Apply {
        which: Which {
            namespace: SHOP.into(),
            name: WAYPOINT.into(),
        },
        serves: Serves::Service,
        replicas: None,
        enroll_namespace: true,
    };
    waypoint::run(client, apply, Format::default()).await?;
    println!(
        "4 pods and their waypoint in {:.1} s: a store in a sidecar, an office, a catalog of v1 and one of v2",
        began.elapsed().as_secs_f32()
    );
    Ok(())
}

fn service() -> Value {
    let (label, value) = CATALOG;
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "catalog", "namespace": SHOP },
        "spec": {
            "selector": { label: value },
            "ports": [{ "name": "grpc", "port": 80, "targetPort": GRPC, "appProtocol": "grpc" }],
        },
    })
}

/// A route of shares, in percent.
fn route(first: u32, second: u32) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GRPCRoute",
        "metadata": { "name": "catalog", "namespace": SHOP },
        "spec": {
            "parentRefs": [{ "group": "", "kind": "Service", "name": "catalog", "port": 80 }],
            "rules": [{
                "matches": [{ "method": { "service": "shop.Catalog" } }],
                "backendRefs": [
                    { "name": "catalog-v1", "port": 80, "weight": first },
                    { "name": "catalog-v2", "port": 80, "weight": second },
                ],
            }],
        },
    })
}

/// The route shifts; who visits the front end sees which version it asked.
async fn shifts(demo: &Demo) -> anyhow::Result<()> {
    let mut table = Table::new(&["ROUTE", "IN FORCE AFTER", "VISITS", "FAILED", "BY V1", "BY V2"]);
    for (first, second) in [(90, 10), (0, 100)] {
        let applied = Instant::now();
        apply_one(demo.planes.client(), route(first, second), None).await?;
        until_shared(demo, second).await?;
        let after = applied.elapsed();
        let counted = visits(demo, VISITS).await?;
        let (by_first, by_second) = (by(&counted, "v1"), by(&counted, "v2"));
        table.row([
            format!("{first}/{second}"),
            toned(Tone::Faint, &format!("{} ms", after.as_millis())),
            VISITS.to_string(),
            toned(Tone::Good, &counted.failed.len().to_string()),
            by_first.to_string(),
            by_second.to_string(),
        ]);
        anyhow::ensure!(
            by_first + by_second == VISITS && fits(by_second, second),
            "a route of {first}/{second} came to {by_first} and {by_second} of {VISITS} visits: {:?}",
            counted.failed
        );
    }
    print!("{}", table.render());
    Ok(())
}

/// Visits the front end through its service, from another plane than its own.
async fn visits(demo: &Demo, visits: u32) -> anyhow::Result<Visits> {
    let (visitor, store) = (demo.member("api-2")?, demo.member("store")?);
    let command = [
        &cast::program()?,
        "demo-app",
        "visit",
        &store.service_address(),
        "--visits",
        &visits.to_string(),
    ];
    let counted = visitor.run(&demo.mesh, &command.map(Into::into)).await?;
    serde_json::from_str(&counted).context("the visits said something else")
}

fn by(visits: &Visits, version: &str) -> u32 {
    let of = |(answer, _): &(&String, &u32)| answer.ends_with(version);
    visits.answers.iter().filter(of).map(|(_, count)| count).sum()
}

/// The route is in force once both versions answer, or the second alone.
async fn until_shared(demo: &Demo, percent: u32) -> anyhow::Result<()> {
    let in_force = async {
        loop {
            let tried = visits(demo, TRIES).await?;
            anyhow::ensure!(tried.failed.is_empty(), "visits failed: {:?}", tried.failed);
            if by(&tried, "v2") > 0 && (by(&tried, "v1") == 0) == (percent == 100) {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, in_force)
        .await
        .context("the route has had no effect")?
}

/// Within five standard deviations of its share, which one demonstration in a million is not.
fn fits(count: u32, percent: u32) -> bool {
    let share = f64::from(percent) / 100.0;
    let mean = share * f64::from(VISITS);
    (f64::from(count) - mean).abs() <= 5.0 * (mean * (1.0 - share)).sqrt()
}
