use std::time::{Duration, Instant};

use super::Standing;
use trefoil_control_plane_index::snapshot::ResourceKind::{Address, Authorization};

#[test]
fn a_client_is_behind_since_the_first_change_that_it_has_not_taken() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut standing = Standing::new(start);
    standing.note(Address, true, at(10));
    standing.note(Address, true, at(20));
    assert_eq!(standing.behind_seconds(Address, at(25)), Some(15));
    assert_eq!(standing.behind_seconds(Authorization, at(25)), None);
    standing.acknowledged(Address, at(30));
    standing.note(Address, false, at(30));
    assert_eq!(standing.behind_seconds(Address, at(40)), None);
    assert_eq!(standing.acknowledged_seconds(Address, at(40)), Some(10));
    assert_eq!(standing.acknowledged_seconds(Authorization, at(40)), None);
    assert_eq!(standing.connected_seconds(at(40)), 40);
    standing.note(Address, true, at(50));
    assert_eq!(standing.behind_seconds(Address, at(51)), Some(1));
}
