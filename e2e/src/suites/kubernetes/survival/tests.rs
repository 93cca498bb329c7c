use super::*;
use crate::programs::load::Unserved;

const ENDING: Ending = Ending {
    before: 10_000,
    after: 10_010,
    processes: 2,
    carried: 1000,
};

fn tally(unserved: &[(u64, u64, Outcome)]) -> Tally {
    let unserved: Vec<Unserved> = unserved
        .iter()
        .map(|(begun, ended, outcome)| Unserved {
            begun: *begun,
            ended: *ended,
            outcome: outcome.clone(),
        })
        .collect();
    Tally {
        attempted: 750,
        served: 750 - unserved.len() as u64,
        worst_milliseconds: 900,
        worst_begun: 10_020,
        unserved,
        ..Tally::default()
    }
}

#[test]
fn what_was_in_flight_may_end_with_its_carrier() {
    for unserved in [
        &[][..],
        &[(9_998, 10_012, Outcome::Reset), (10_009, 10_020, Outcome::Closed)],
    ] {
        let tally = tally(unserved);
        none_refused(&tally, &ENDING, &FATES[0]).unwrap();
    }
}

#[test]
fn nothing_else_may() {
    let reset = Outcome::Reset;
    for unserved in [
        // Begun after the end.
        &[(10_011, 10_012, reset.clone())][..],
        // Over before it.
        &[(9_000, 9_010, reset.clone())],
        // In flight, and told so otherwise than by its end.
        &[(9_998, 10_012, Outcome::Refused)],
        &[(9_998, 70_000, Outcome::Late)],
        // Not served for long before it.
        &[(8_000, 10_012, reset.clone())],
        // More than can have been in flight.
        &vec![(9_998, 10_012, reset); IN_FLIGHT.0 + 1],
    ] {
        let tally = tally(unserved);
        none_refused(&tally, &ENDING, &FATES[0]).unwrap_err();
    }
}

#[test]
fn a_load_of_which_nobody_had_to_wait_shows_nothing() {
    let mut tally = tally(&[]);
    tally.worst_milliseconds = 20;
    none_refused(&tally, &ENDING, &FATES[0]).unwrap_err();
    // Who waited for something else, before.
    tally.worst_milliseconds = 900;
    tally.worst_begun = 9_000;
    none_refused(&tally, &ENDING, &FATES[0]).unwrap_err();
}
