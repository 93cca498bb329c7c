use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Both ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn bytes_are_counted_for_the_connection_and_for_both_totals() {
    let ((mut client, from_client), (to_server, mut server)) = (pair().await, pair().await);
    let (counters, totals) = (Counters::default(), [Arc::<Series>::default(), Arc::default()]);
    totals.iter().for_each(|total| counters.total_in(total.clone()));
    let carrying = forward(Side::Tcp(from_client), Side::Tcp(to_server), &counters);
    let talking = async {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        server.read_to_end(&mut Vec::new()).await.unwrap();
        server.write_all(b"yes").await.unwrap();
        drop(server);
        client.read_to_end(&mut Vec::new()).await.unwrap();
    };
    let (ended, ()) = tokio::join!(carrying, talking);
    ended.unwrap();
    assert_eq!(counters.read(), (8, 3));
    for total in totals {
        assert_eq!(total.received.load(Ordering::Relaxed), 8);
        assert_eq!(total.sent.load(Ordering::Relaxed), 3);
    }
}

#[tokio::test]
async fn a_connection_that_is_given_up_does_not_look_ended() {
    let ((mut client, from_client), (to_server, mut server)) = (pair().await, pair().await);
    let counters = Counters::default();
    {
        let carrying = forward(Side::Tcp(from_client), Side::Tcp(to_server), &counters);
        tokio::pin!(carrying);
        assert!(futures::poll!(&mut carrying).is_pending());
    }
    for end in [&mut client, &mut server] {
        let error = end.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

/// What an idle connection costs is its state: this is the bound that keeps it small.
#[tokio::test]
async fn the_state_of_a_connection_is_small() {
    let ((_client, from_client), (to_server, _server)) = (pair().await, pair().await);
    let counters = Counters::default();
    let carrying = forward(Side::Tcp(from_client), Side::Tcp(to_server), &counters);
    let size = std::mem::size_of_val(&carrying);
    assert!(size < 2048, "{size}");
}

/// A server that has answered and ended, and takes nothing more: what it said arrives, and then its end.
#[tokio::test]
async fn an_end_that_wants_no_more_has_not_broken() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let mut server = h2::server::handshake(far).await.unwrap();
        let (request, mut respond) = server.accept().await.unwrap().unwrap();
        let mut send = respond.send_response(http::Response::new(()), false).unwrap();
        send.send_data(Bytes::from_static(b"all of it"), true).unwrap();
        drop((request, respond, send));
        while server.accept().await.is_some() {}
    });
    let (send, connection) = h2::client::handshake(near).await.unwrap();
    tokio::spawn(connection);
    let asked = http::Request::connect("cart:80").body(()).unwrap();
    let (response, sending) = send.ready().await.unwrap().send_request(asked, false).unwrap();
    let receiving = response.await.unwrap().into_body();
    let (mut client, from_client) = pair().await;
    let counters = Counters::default();
    let stream = TunnelStream::new(sending, receiving);
    let carrying = forward(Side::Tcp(from_client), Side::Tunnel(stream), &counters);
    let listening = async {
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        drop(client);
        heard
    };
    let (ended, heard) = tokio::join!(carrying, listening);
    assert_eq!(heard, b"all of it");
    ended.unwrap();
}
