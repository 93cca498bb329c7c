use super::*;
use crate::programs::load::{Unserved, Waited};

const ENDING: Ending = Ending {
    failing: 10_000,
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
        waited: vec![Waited {
            begun: 10_020,
            ended: 10_920,
        }],
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
        &vec![(9_998, 10_012, reset); 11],
    ] {
        let tally = tally(unserved);
        none_refused(&tally, &ENDING, &FATES[0]).unwrap_err();
    }
}

#[test]
fn what_is_taken_by_one_that_starves_ends_with_it_and_no_more_than_came() {
    let starved = Ending {
        failing: 9_200,
        ..ENDING
    };
    let unserved = |count| tally(&vec![(9_500, 10_012, Outcome::Reset); count]);
    // At 50 a second, for 810 ms.
    none_refused(&unserved(50), &starved, &FATES[1]).unwrap();
    none_refused(&unserved(51), &starved, &FATES[1]).unwrap_err();
    none_refused(&unserved(50), &ENDING, &FATES[1]).unwrap_err();
}

#[test]
fn a_load_of_which_nobody_had_to_wait_shows_nothing() {
    let mut tally = tally(&[]);
    // Who waited for something else, before; and who did not wait.
    for (begun, ended) in [(9_000, 9_900), (10_020, 10_080)] {
        tally.waited = vec![Waited { begun, ended }];
        none_refused(&tally, &ENDING, &FATES[0]).unwrap_err();
    }
    tally.waited = Vec::new();
    none_refused(&tally, &ENDING, &FATES[0]).unwrap_err();
}
