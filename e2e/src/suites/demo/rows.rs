//! What the demonstration must have shown: a row for every mode of client with every mode of server, the
//! policy's effect, a switch that lost nothing, and a waypoint's routes and verdicts. Compares with the design, not with what is printed otherwise.

use anyhow::{Context, ensure};

use crate::report::Report;

const WEB: &str = "spiffe://cluster.local/ns/sidecar/sa/web";
const API: &str = "spiffe://cluster.local/ns/ambient/sa/api";
const PLAINTEXT: &str = "(none: plaintext)";
const NO_PLANE: &str = "(no plane)";
const WITHIN: &str = "within the node proxy, not encrypted to itself";

/// Client, server, the path between them, the identity that the server's side verified.
const PAIRS: [(&str, &str, &str, &str); 18] = [
    (
        "sidecar/web",
        "sidecar/orders",
        "sidecar → HBONE, mTLS → sidecar",
        WEB,
    ),
    (
        "sidecar/web",
        "ambient/api-1",
        "sidecar → HBONE, mTLS → node proxy",
        WEB,
    ),
    (
        "sidecar/web",
        "ambient/api-2",
        "sidecar → HBONE, mTLS → node proxy",
        WEB,
    ),
    (
        "sidecar/web",
        "ambient/cache",
        "sidecar → HBONE, mTLS → node proxy",
        WEB,
    ),
    ("sidecar/web", "none/legacy", "sidecar → plaintext", NO_PLANE),
    ("sidecar/web", "none/partner", "sidecar → plaintext", NO_PLANE),
    (
        "ambient/api-2",
        "sidecar/web",
        "node proxy → HBONE, mTLS → sidecar",
        API,
    ),
    (
        "ambient/api-2",
        "sidecar/orders",
        "node proxy → HBONE, mTLS → sidecar",
        API,
    ),
    (
        "ambient/api-2",
        "ambient/api-1",
        "node proxy → HBONE, mTLS → node proxy",
        API,
    ),
    ("ambient/api-2", "ambient/cache", WITHIN, API),
    ("ambient/api-2", "none/legacy", "node proxy → plaintext", NO_PLANE),
    (
        "ambient/api-2",
        "none/partner",
        "node proxy → plaintext",
        NO_PLANE,
    ),
    ("none/legacy", "sidecar/web", "plaintext → sidecar", PLAINTEXT),
    ("none/legacy", "sidecar/orders", "plaintext → sidecar", PLAINTEXT),
    (
        "none/legacy",
        "ambient/api-1",
        "plaintext → node proxy",
        PLAINTEXT,
    ),
    (
        "none/legacy",
        "ambient/api-2",
        "plaintext → node proxy",
        PLAINTEXT,
    ),
    (
        "none/legacy",
        "ambient/cache",
        "plaintext → node proxy",
        PLAINTEXT,
    ),
    ("none/legacy", "none/partner", "plaintext", NO_PLANE),
];

/// Caller, method, what it dials, by which planes it is decided about, the answer, and whether the policy is to
/// blame.
const VERDICTS: [(&str, &str, &str, &str, &str, bool); 6] = [
    ("sidecar/store", FIND, SERVICE, "waypoint", "OK by v2", false),
    ("sidecar/store", REPRICE, SERVICE, "waypoint", DENIED, true),
    ("ambient/office", REPRICE, SERVICE, "waypoint", "OK by v2", false),
    ("sidecar/store", REPRICE, POD, "waypoint", DENIED, true),
    ("none/legacy", REPRICE, POD, HANDED_OVER, DENIED, true),
    // Policy, and no route: it is the version that was dialled.
    ("ambient/office", REPRICE, POD, HANDED_OVER, "OK by v1", false),
];
const FIND: &str = "/shop.Catalog/Find";
const REPRICE: &str = "/shop.Catalog/Reprice";
const SERVICE: &str = "shop/catalog";
const POD: &str = "the address of shop/catalog-v1";
const HANDED_OVER: &str = "node proxy → waypoint";
const DENIED: &str = "PERMISSION_DENIED";

pub(super) fn check(report: &mut Report, said: &str) {
    for (client, server, path, identity) in PAIRS {
        let shown = pair(said, client, server, path, identity);
        report.check(format!("it shows {client} → {server}"), shown);
    }
    report.check("it shows a policy", policy(said));
    report.check("it shows a switch", switch(said));
    report.check("it shows a batch client that ends", batch(said));
    for (route, percent) in [("90/10", 10), ("0/100", 100)] {
        let shown = share(said, route, percent);
        report.check(format!("it shows a route of {route}"), shown);
    }
    for row in VERDICTS {
        let (caller, method, dials, ..) = row;
        let shown = verdict(said, row);
        report.check(format!("it shows {caller} calling {method} at {dials}"), shown);
    }
}

/// The cells of the rows that begin with these.
fn rows<'a>(said: &'a str, first: &[&str]) -> Vec<Vec<&'a str>> {
    let cells = |line: &'a str| -> Vec<&'a str> {
        let cells = line.split("  ").map(str::trim);
        cells.filter(|cell| !cell.is_empty()).collect()
    };
    let rows = said.lines().map(cells);
    rows.filter(|cells| cells.starts_with(first)).collect()
}

fn pair(said: &str, client: &str, server: &str, path: &str, identity: &str) -> anyhow::Result<String> {
    // The policy's rows have fewer cells.
    let rows = rows(said, &[client, server]);
    let row = rows.iter().find(|row| row.len() == 5).context("no such row")?;
    ensure!(
        row[2..4] == [path, identity] && row[4].starts_with("allowed"),
        "{row:?}"
    );
    Ok(row[2..].join(", "))
}

fn policy(said: &str) -> anyhow::Result<String> {
    let verdict = |when| {
        let rows = rows(said, &[when, "sidecar/web", "ambient/cache"]);
        let verdict = rows.first().and_then(|row| row.last().copied());
        verdict.with_context(|| format!("no row {when:?}"))
    };
    let (before, denied, after) = (
        verdict("before")?,
        verdict("policy applied")?,
        verdict("policy removed")?,
    );
    ensure!(
        before.starts_with("allowed") && after.starts_with("allowed"),
        "{before}; {after}"
    );
    ensure!(denied.starts_with("denied: layer policy"), "{denied}");
    let spared = rows(said, &["ambient/api-1", "ambient/cache"]);
    let spared = spared
        .first()
        .and_then(|row| row.last())
        .context("no row of the API")?;
    ensure!(spared.starts_with("allowed"), "{spared}");
    Ok(denied.into())
}

fn switch(said: &str) -> anyhow::Result<String> {
    let (_, after) = said.split_once("ONE CLIENT THAT STAYED").context("no table")?;
    let row = after.lines().nth(1).context("no row")?;
    let numbers: Vec<u32> = row
        .split_whitespace()
        .map_while(|cell| cell.parse().ok())
        .collect();
    let [sent, served, failed, by_sidecar, by_node, ..] = numbers[..] else {
        anyhow::bail!("{row}")
    };
    ensure!(sent == 600 && served == sent && failed == 0, "{row}");
    ensure!(by_sidecar > 100 && by_node > 100, "{row}");
    ensure!(row.ends_with("never broken"), "{row}");
    // The sidecar asks it to come again, once for each time that it is left.
    let few = (1..=3).any(|count| row.contains(&format!(" over {count} connections")));
    ensure!(few, "{row}");
    Ok(format!(
        "{served} of {sent} served, {by_sidecar} by the sidecar, {by_node} by the node proxy"
    ))
}

fn batch(said: &str) -> anyhow::Result<&'static str> {
    ensure!(
        said.contains("ambient/batch ended with exit code 0"),
        "it does not"
    );
    Ok("exit code 0")
}

/// The visits that each version answered: all of them, in the shares that the route says.
fn share(said: &str, route: &str, percent: u32) -> anyhow::Result<String> {
    let rows = rows(said, &[route]);
    let row = rows.first().context("no such row")?;
    let numbers: Vec<u32> = row[2..].iter().map_while(|cell| cell.parse().ok()).collect();
    let [visits, failed, by_first, by_second] = numbers[..] else {
        anyhow::bail!("{row:?}")
    };
    ensure!(
        visits == 400 && failed == 0 && by_first + by_second == visits,
        "{row:?}"
    );
    // Six standard deviations of a tenth are 36.
    let wanted = visits * percent / 100;
    let spread = if percent == 100 { 0 } else { 36 };
    ensure!(by_second.abs_diff(wanted) <= spread, "{row:?}");
    Ok(format!("{by_first} by v1, {by_second} by v2"))
}

fn verdict(said: &str, row: (&str, &str, &str, &str, &str, bool)) -> anyhow::Result<String> {
    let (caller, method, dials, path, answer, denied) = row;
    let rows = rows(said, &[caller, method, dials]);
    let row = rows.first().context("no such row")?;
    let [.., by, said, why] = row[..] else {
        anyhow::bail!("{row:?}")
    };
    ensure!((by, said) == (path, answer), "{row:?}");
    let blamed = why.starts_with("layer policy") && why.contains("shop/prices-are-the-offices");
    ensure!(blamed == denied, "{row:?}");
    Ok(row[3..].join(", "))
}
