use super::*;

/// The size of what an asynchronous function returns, without calling it.
fn size<A, B, C, D, E, F>(_: fn(A, B, C, D, E) -> F) -> usize {
    size_of::<F>()
}

fn size_of_two<A, B, F>(_: fn(A, B) -> F) -> usize {
    size_of::<F>()
}

/// The state of a connection is there as long as the connection, however idle.
#[test]
fn idle_connections_are_cheap() {
    let sizes = [
        ("outbound", size(outbound::serve), 4096),
        ("plaintext", size(inbound::serve), 3072),
        ("stream", size_of_two(tunnels::to_application), 3072),
    ];
    for (what, size, most) in sizes {
        println!("{what}: {size} bytes");
        assert!(size < most, "{what}: {size} bytes");
    }
}
