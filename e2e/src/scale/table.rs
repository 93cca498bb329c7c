//! Figures as rows of a table in Markdown.

use std::time::Duration;

use super::Figures;
use super::changes::{Round, quantile};

/// Rows: what it is, and how much.
#[must_use]
pub fn rows(figures: &Figures) -> Vec<(String, String)> {
    let mut rows = vec![
        (
            "clients, and as many agents as nodes".into(),
            figures.clients.to_string(),
        ),
        (
            "control plane: from its start until it serves".into(),
            seconds(figures.started),
        ),
        (
            "an empty fleet connects: until the last client has everything".into(),
            seconds(figures.connected),
        ),
        (
            "… sent in all".into(),
            format!("{} MiB", figures.first_bytes >> 20),
        ),
    ];
    rows.extend(round("a pod's label", &figures.labels));
    rows.extend(round("a pod's readiness in its slice", &figures.endpoints));
    let signing = &figures.signing;
    rows.extend([
        (
            "certificates signed each second".into(),
            format!("{:.0}", signing.signed as f64 / signing.took.as_secs_f64()),
        ),
        (
            "… CPU of the control plane for 1,000".into(),
            seconds(signing.cpu.mul_f64(1000.0 / signing.signed.max(1) as f64)),
        ),
        (
            "control plane's memory: resident, most".into(),
            format!("{:.0} MiB, {:.0} MiB", figures.held.resident, figures.held.peak),
        ),
        (
            "it is killed: until the last client is answered by its successor".into(),
            seconds(figures.reconnected),
        ),
        (
            "… CPU of the successor until then".into(),
            seconds(figures.reconnect_cpu),
        ),
        (
            "… its memory: resident, most".into(),
            format!("{:.0} MiB, {:.0} MiB", figures.after.resident, figures.after.peak),
        ),
        (
            "… resources sent again, removals".into(),
            format!("{}, {}", figures.resent.0, figures.resent.1),
        ),
    ]);
    rows
}

fn round(what: &str, round: &Round) -> Vec<(String, String)> {
    let a_thousand = 1000.0 / round.changes.max(1) as f64;
    vec![
        (
            format!("{what} changes: until the last client has it, p50 and p99"),
            format!(
                "{}, {}",
                milliseconds(quantile(&round.spread, 0.5)),
                milliseconds(quantile(&round.spread, 0.99))
            ),
        ),
        (
            "… of that, the API's answer to the write, p50 and p99".into(),
            format!(
                "{}, {}",
                milliseconds(quantile(&round.write, 0.5)),
                milliseconds(quantile(&round.write, 0.99))
            ),
        ),
        (
            "… clients it was sent to, of those that are to have it; others".into(),
            format!("{} of {}; {}", round.receipts.0, round.receipts.1, round.others),
        ),
        (
            "… resources encoded for each change".into(),
            format!("{:.3}", round.encoded as f64 / round.changes.max(1) as f64),
        ),
        (
            "… bytes sent for each change, and to each client".into(),
            format!(
                "{}, {}",
                round.bytes / round.changes.max(1) as u64,
                round.bytes / round.receipts.0.max(1)
            ),
        ),
        (
            "… CPU for 1,000: control plane; API; fleet".into(),
            format!(
                "{}; {}; {}",
                seconds(round.cpu.mul_f64(a_thousand)),
                seconds(round.api_cpu.mul_f64(a_thousand)),
                seconds(round.fleet_cpu.mul_f64(a_thousand))
            ),
        ),
    ]
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}
