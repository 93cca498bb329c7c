use std::net::Ipv4Addr;

use tokio::net::TcpListener;

use super::*;
use crate::programs::serve::accept;

async fn server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(accept(listener, |stream, _| answer(stream)));
    address
}

#[tokio::test]
async fn every_behaviour_transfers_what_it_says() {
    let target = server().await;
    for behaviour in [
        Behaviour::Plain,
        Behaviour::HalfClose,
        Behaviour::SlowReader,
        Behaviour::SlowWriter,
    ] {
        let done = transfer(target, behaviour, 300_001, 200_003).await.unwrap();
        assert_eq!((done.up, done.down), (300_001, 200_003));
    }
}

#[tokio::test]
async fn nothing_is_a_transfer_too() {
    transfer(server().await, Behaviour::Plain, 0, 0).await.unwrap();
}

#[tokio::test]
async fn altered_bytes_are_noticed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = listener.local_addr().unwrap();
    tokio::spawn(accept(listener, |mut stream, _| async move {
        stream.write_all(&[0; 1000]).await?;
        Ok(())
    }));
    assert!(transfer(target, Behaviour::Plain, 0, 900).await.is_err());
}
