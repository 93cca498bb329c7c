use std::net::Ipv4Addr;

use tokio::net::TcpListener;

use super::*;
use crate::programs::serve::{self, accept};

const LIMIT: Duration = Duration::from_secs(5);

async fn server(protocol: Protocol) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(accept(listener, move |stream, peer| {
        serve::answer(protocol, stream, peer, "one".into())
    }));
    address
}

#[tokio::test]
async fn every_protocol_is_served() {
    for protocol in [
        Protocol::H1,
        Protocol::H2,
        Protocol::Grpc,
        Protocol::Tcp,
        Protocol::Greeting,
    ] {
        let target = server(protocol).await;
        let mut session = Session::open(protocol, target).await.unwrap();
        for _ in 0..3 {
            let answer = session.exchange().await.unwrap();
            assert_eq!(answer.server, "one", "{protocol}");
            assert!(answer.seen.ip().is_loopback());
        }
    }
}

#[tokio::test]
async fn failures_are_told_apart() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let nobody = closed.local_addr().unwrap();
    drop(closed);
    assert_eq!(attempt(Protocol::Tcp, nobody, LIMIT).await, Outcome::Refused);

    let rude = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = rude.local_addr().unwrap();
    tokio::spawn(accept(rude, |mut stream, _| async move {
        let mut buffer = [0; 1024];
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut buffer).await?;
        Ok(())
    }));
    for protocol in [Protocol::H1, Protocol::Tcp] {
        assert_eq!(
            attempt(protocol, target, LIMIT).await,
            Outcome::Closed,
            "{protocol}"
        );
    }

    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = silent.local_addr().unwrap();
    let outcome = attempt(Protocol::H2, target, Duration::from_millis(50)).await;
    assert_eq!(outcome, Outcome::Late);
}
