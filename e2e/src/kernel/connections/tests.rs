use std::net::{TcpListener, TcpStream};

use super::*;

#[test]
fn both_ends_of_a_connection_are_found_and_are_ours() {
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(host).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let (client, server) = (client.local_addr().unwrap(), server.local_addr().unwrap());
        let all = connections(std::process::id()).unwrap();
        let ours = sockets_of(std::process::id());
        for (local, remote) in [(client, server), (server, client)] {
            let mut same = all
                .iter()
                .filter(|one| (one.local, one.remote) == (local, remote));
            let found = same.next().unwrap();
            assert!(ours.contains(&found.socket), "{found:?}");
        }
    }
}

#[test]
fn a_listener_is_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let all = connections(std::process::id()).unwrap();
    assert!(all.iter().all(|one| one.local != address));
}
