use super::*;

const MIB: usize = 1024 * 1024;

fn promised(tunnels: &[Window]) -> usize {
    tunnels.iter().map(|tunnel| tunnel.connection() as usize).sum()
}

#[test]
fn few_tunnels_get_much_and_many_get_little() {
    let windows = Windows::new(64 * MIB);
    let first = windows.part();
    assert_eq!((first.stream() as usize, first.queue()), (MIB, MIB / 4));
    // Where twenty thousand streams are.
    let tunnels: Vec<Window> = (0..100).map(|_| windows.part()).collect();
    assert!(promised(&tunnels) < 80 * MIB, "{}", promised(&tunnels));
    let last = tunnels.last().unwrap();
    assert!(last.is_least());
    assert!(last.stream() >= 32 * KIB && last.queue() >= 16 * 1024);
}

#[test]
fn what_tunnels_had_is_there_for_others_when_they_end() {
    let windows = Windows::new(64 * MIB);
    let tunnels: Vec<Window> = (0..1000).map(|_| windows.part()).collect();
    assert!(tunnels.iter().filter(|one| !one.is_least()).count() >= 32);
    drop(tunnels);
    assert_eq!(windows.part().stream() as usize, MIB);
}

#[test]
fn no_budget_at_all_still_carries_bytes() {
    assert!(Windows::new(0).part().is_least());
}
