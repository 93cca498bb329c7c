//! `proxy-status` for people: a line for each plane, and for one plane a line for each kind.

use super::{Kind, ProxyStatus, Standing};
use crate::output::{Table, Tone, toned};
use crate::status::span;

/// The text; `whole`: with what each plane holds of each kind.
pub(super) fn render(status: &ProxyStatus, whole: bool) -> String {
    let mut text = replicas(status);
    text.push('\n');
    text.push_str(&proxies(status));
    if whole {
        text.push('\n');
        text.push_str(&kinds(status));
    }
    for proxy in &status.proxies {
        for refusal in proxy.kinds.iter().filter_map(|kind| kind.refusal.as_ref()) {
            let refused = toned(Tone::Bad, "refused:");
            text.push_str(&format!("\n{refused} {}: {refusal}", proxy.proxy));
        }
    }
    text
}

fn replicas(status: &ProxyStatus) -> String {
    let mut table = Table::new(&["CONTROL PLANE", "VERSION", "CLIENTS", "STATE"]);
    for replica in &status.replicas {
        let state = match &replica.failure {
            None => toned(Tone::Good, "answers"),
            Some(failure) => toned(Tone::Bad, failure),
        };
        table.row([
            replica.of.clone(),
            or_dash(&replica.version),
            replica.clients.to_string(),
            state,
        ]);
    }
    table.render()
}

fn proxies(status: &ProxyStatus) -> String {
    let mut table = Table::new(&["PROXY", "PLANE", "NODE", "VERSION", "HOLDS", "STATE", "CONNECTED"]);
    for proxy in &status.proxies {
        let held = proxy.kinds.iter().map(|kind| kind.held).sum::<u64>();
        table.row([
            proxy.proxy.clone(),
            proxy.role.into(),
            proxy.node.clone().unwrap_or_else(|| "-".into()),
            or_dash(&proxy.version),
            held.to_string(),
            standing(&proxy.kinds),
            format!("{} to {}", span(proxy.connected_seconds), proxy.control_plane),
        ]);
    }
    for away in &status.away {
        table.row([
            away.proxy.clone(),
            away.role.into(),
            away.node.clone().unwrap_or_else(|| "-".into()),
            "-".into(),
            "-".into(),
            toned(Tone::Bad, "away"),
            "to no control plane that answers".into(),
        ]);
    }
    table.render()
}

fn kinds(status: &ProxyStatus) -> String {
    let mut table = Table::new(&["KIND", "STATE", "HELD", "SERVED", "PENDING", "LAST ACKNOWLEDGED"]);
    for kind in status.proxies.iter().flat_map(|proxy| &proxy.kinds) {
        let acknowledged = kind.acknowledged_seconds;
        table.row([
            kind.kind.clone(),
            standing(std::slice::from_ref(kind)),
            kind.held.to_string(),
            kind.served.to_string(),
            kind.pending.to_string(),
            acknowledged.map_or_else(|| "never".into(), |seconds| format!("{} ago", span(seconds))),
        ]);
    }
    table.render()
}

/// The worst of several, and of which kinds.
fn standing(kinds: &[Kind]) -> String {
    let Some(worst) = kinds.iter().map(|kind| kind.standing).max() else {
        return toned(Tone::Odd, "asked for nothing yet");
    };
    let of_worst: Vec<&Kind> = kinds.iter().filter(|kind| kind.standing == worst).collect();
    let names: Vec<&str> = of_worst.iter().map(|kind| kind.kind.as_str()).collect();
    let names = names.join(", ");
    match worst {
        Standing::Current => toned(Tone::Good, "current"),
        Standing::Behind => {
            let longest = of_worst.iter().filter_map(|kind| kind.behind_seconds).max();
            let text = format!("behind for {} ({names})", span(longest.unwrap_or(0)));
            toned(Tone::Odd, &text)
        }
        Standing::Refused => toned(Tone::Bad, &format!("refused ({names})")),
    }
}

fn or_dash(text: &str) -> String {
    match text {
        "" => "-".into(),
        text => text.into(),
    }
}
