use std::net::Ipv4Addr;

use tokio::net::TcpListener;

use super::*;
use crate::programs::serve::{self, accept};

fn plan(target: SocketAddr, connections: usize) -> Load {
    Load {
        protocol: Protocol::Tcp,
        target,
        rate: 100.0,
        seconds: 0.5,
        connections,
        limit: 5.0,
        hold: 0.0,
        until: None,
    }
}

async fn server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(accept(listener, |stream, peer| {
        serve::answer(Protocol::Tcp, stream, peer, "one".into())
    }));
    address
}

#[tokio::test]
async fn every_attempt_is_counted_once() {
    let tally = load(&plan(server().await, 0)).await;
    assert!(tally.attempted >= 40, "{tally}");
    assert_eq!(tally.served, tally.attempted);
    assert_eq!(tally.servers["one"], tally.served);
}

#[tokio::test]
async fn long_lived_connections_stay_open() {
    let tally = load(&plan(server().await, 4)).await;
    assert_eq!((tally.connections, tally.connections_lost), (4, 0));
    assert!(tally.served >= 40, "{tally}");
}

#[tokio::test]
async fn refusals_are_counted_and_never_retried() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    let tally = load(&plan(nobody, 0)).await;
    assert!(tally.attempted >= 40);
    assert_eq!(tally.refused, tally.attempted);
    assert_eq!(tally.unserved.len() as u64, tally.refused);
    let first = &tally.unserved[0];
    assert!(
        first.outcome == Outcome::Refused && first.ended <= now(),
        "{first:?}"
    );
}

#[tokio::test]
async fn a_file_ends_it_early() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut plan = plan(server().await, 0);
    plan.seconds = 3600.0;
    plan.until = Some(file.path().to_owned());
    assert_eq!(load(&plan).await.attempted, 0);
}
