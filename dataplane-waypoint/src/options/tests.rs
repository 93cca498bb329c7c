use clap::CommandFactory;

use super::*;

#[test]
fn the_flags_are_consistent() {
    Options::command().debug_assert();
}
