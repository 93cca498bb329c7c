//! One metrics page of several processes: the same series of several workers are one series, their sum.
//! It measures nothing itself except the workers.

use std::collections::BTreeMap;
use std::fmt::Write;

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use futures::future::join_all;
use prometheus_client::encoding::text::encode;

use super::Shown;

#[cfg(test)]
mod tests;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `/metrics`, and `/stats/prometheus` for scrapers that are set up for other meshes.
pub(crate) fn router(shown: Shown) -> Router {
    let other = shown.clone();
    let page = |shown: Shown| async move {
        ([(header::CONTENT_TYPE, OPEN_METRICS)], text(&shown).await).into_response()
    };
    Router::new()
        .route("/metrics", get(move || page(shown.clone())))
        .route("/stats/prometheus", get(move || page(other.clone())))
}

async fn text(shown: &Shown) -> String {
    let workers = shown.fleet.workers();
    let answers = join_all(
        workers
            .iter()
            .map(|worker| worker.questions.ask(&axum::http::Method::GET, "/metrics", "")),
    )
    .await;
    let mut page = Page::default();
    page.take(&own(shown));
    let mut counted = String::new();
    if encode(&mut counted, &shown.registry).is_ok() {
        page.take(&counted);
    }
    for answer in answers.into_iter().flatten() {
        page.take(&String::from_utf8_lossy(&answer.body));
    }
    page.text()
}

/// What the supervisor sees at this moment.
fn own(shown: &Shown) -> String {
    let workers = shown.fleet.workers();
    let restarts: u64 = workers.iter().map(|worker| worker.restarts()).sum();
    let pending = shown.node.unassigned().len();
    let active = shown.node.count() - pending.min(shown.node.count());
    let connected = shown.discovery.borrow().connected;
    let gauges = [
        ("trefoil_node_workers", "Worker processes", workers.len() as u64),
        (
            "trefoil_node_resources",
            "Resources held of the control plane",
            shown.resources.count() as u64,
        ),
        (
            "trefoil_node_control_plane_connected",
            "Whether the control plane's stream is open",
            u64::from(connected),
        ),
        (
            "workload_manager_active_proxy_count",
            "Pods that a worker serves",
            active as u64,
        ),
        (
            "workload_manager_pending_proxy_count",
            "Pods that no worker has yet",
            pending as u64,
        ),
    ];
    let mut text = String::new();
    for (name, help, value) in gauges {
        let _ = write!(
            text,
            "# HELP {name} {help}.\n# TYPE {name} gauge\n{name} {value}\n"
        );
    }
    let name = "trefoil_node_worker_restarts";
    let _ = write!(
        text,
        "# HELP {name} Worker processes that ended.\n# TYPE {name} counter\n{name}_total {restarts}\n"
    );
    text
}

/// Families by name, in OpenMetrics text.
#[derive(Debug, Default)]
struct Page {
    families: BTreeMap<String, Family>,
}

#[derive(Debug, Default)]
struct Family {
    /// HELP, TYPE and UNIT lines.
    about: Vec<String>,
    /// Series with their labels, in the order in which they came first, and their values.
    series: Vec<(String, f64)>,
    known: BTreeMap<String, usize>,
    /// Of facts, such as a version, there is one, however many state it.
    fact: bool,
}

impl Page {
    fn take(&mut self, text: &str) {
        let mut name = String::new();
        for line in text.lines().filter(|line| !line.is_empty() && *line != "# EOF") {
            if let Some(about) = line.strip_prefix("# ") {
                name = about.split(' ').nth(1).unwrap_or_default().to_owned();
                let family = self.families.entry(name.clone()).or_default();
                family.fact |= about.starts_with("TYPE") && about.ends_with(" info");
                if !family.about.iter().any(|known| known == line) {
                    family.about.push(line.into());
                }
            } else {
                self.families.entry(name.clone()).or_default().sample(line);
            }
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for family in self.families.values() {
            for line in &family.about {
                let _ = writeln!(text, "{line}");
            }
            for (series, value) in &family.series {
                let _ = writeln!(text, "{series} {value}");
            }
        }
        text.push_str("# EOF\n");
        text
    }
}

impl Family {
    fn sample(&mut self, line: &str) {
        // A label's value may hold spaces: the value begins after the labels.
        let end = line
            .rfind('}')
            .map_or_else(|| line.find(' ').unwrap_or(line.len()), |at| at + 1);
        let (series, rest) = line.split_at(end);
        let value = rest
            .split_whitespace()
            .next()
            .and_then(|value| value.parse::<f64>().ok());
        let Some(value) = value else {
            return;
        };
        match self
            .known
            .get(series)
            .and_then(|index| self.series.get_mut(*index))
        {
            Some((_, sum)) if self.fact => *sum = value,
            Some((_, sum)) => *sum += value,
            None => {
                self.known.insert(series.into(), self.series.len());
                self.series.push((series.into(), value));
            }
        }
    }
}
