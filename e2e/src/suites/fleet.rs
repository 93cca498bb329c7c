//! The control plane before a small fleet: who is sent what, and what it costs no more than. The same as
//! `make bench-scale` measures, at a size that takes seconds.

use std::fmt::Display;

use anyhow::ensure;

use crate::report::Report;
use crate::scale::changes::Round;
use crate::scale::objects::Size;
use crate::scale::{self, Figures, Plan};

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let plan = Plan {
        size: Size {
            services: 100,
            pods: 1000,
            nodes: 40,
        },
        changes: 100,
        rate: 50.0,
        certificates: 400,
        control_plane: None,
    };
    let figures = scale::run(&plan).await?;
    check(report, &figures);
    Ok(())
}

/// What must hold at any size.
fn check(report: &mut Report, figures: &Figures) {
    for (what, round) in [
        ("a pod's label", &figures.labels),
        ("an endpoint's readiness", &figures.endpoints),
    ] {
        report.check(
            format!("a change of {what} is encoded once"),
            equal(round.encoded, round.changes as u64),
        );
        report.check(
            format!("a change of {what} is sent once to each client that is to have it, and to nobody else"),
            sent_once(round),
        );
    }
    report.check(
        "no client was sent what it held in that very version, or had no use for",
        equal(figures.wrong, (0, 0)),
    );
    report.check(
        "a fleet that comes to another control plane is sent nothing, and loses nothing",
        equal(figures.resent, (0, 0)),
    );
    report.check(
        "every certificate that proxies asked for was signed",
        equal(figures.signing.signed, figures.signing.asked),
    );
    for (what, how_much) in scale::table::rows(figures) {
        report.note(format_args!("{what}: {how_much}"));
    }
}

fn sent_once(round: &Round) -> anyhow::Result<String> {
    let (sent, due) = round.receipts;
    ensure!(due > 0, "nobody was to have it");
    ensure!(sent == due, "sent to {sent} clients of {due}");
    ensure!(round.others == 0, "and {} resources besides", round.others);
    Ok(format!("{sent} of {due}"))
}

fn equal<T: PartialEq + std::fmt::Debug>(found: T, wanted: T) -> anyhow::Result<impl Display> {
    ensure!(found == wanted, "{found:?}, not {wanted:?}");
    Ok(format!("{found:?}"))
}
