use std::time::Duration;

use h2::Reason;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::*;

/// What a stream may have in flight until it is read.
const WINDOW: u32 = 65_535;

/// Both ends of a stream of one tunnel.
async fn pair() -> (TunnelBytes, TunnelBytes) {
    let (client, server) = tokio::io::duplex(1 << 20);
    let serving = tokio::spawn(async move {
        let mut connection = h2::server::handshake(server).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let send = respond.send_response(Response::new(()), false).unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        TunnelStream::new(send, request.into_body())
    });
    let (send, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);
    let mut send = send.ready().await.unwrap();
    let (response, stream) = send
        .send_request(Request::get("http://tunnel/").body(()).unwrap(), false)
        .unwrap();
    let receive = response.await.unwrap().into_body();
    let server = serving.await.unwrap();
    let client = TunnelStream::new(stream, receive);
    (TunnelBytes::new(client), TunnelBytes::new(server))
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let (mut client, mut server) = pair().await;
    let mut heard = String::new();
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    client.shutdown().await.unwrap();
    server.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "question");
    server.write_all(b" and answer").await.unwrap();
    server.shutdown().await.unwrap();
    client.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "question and answer");
}

#[tokio::test]
async fn a_reset_is_an_error_and_no_end() {
    let (mut client, mut server) = pair().await;
    client.write_all(b"half a").await.unwrap();
    let mut read = [0; 6];
    server.read_exact(&mut read).await.unwrap();
    server.stream.reset(Reason::CONNECT_ERROR);
    let error = client.read(&mut read).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let error = client.write_all(b"word").await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_stream_that_is_dropped_does_not_look_ended() {
    let (client, mut server) = pair().await;
    drop(client);
    let error = server.read(&mut [0]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_is_not_read_holds_up_the_writer_and_what_is_read_frees_it() {
    let (mut client, mut server) = pair().await;
    let sent: Vec<u8> = (0..WINDOW * 3).map(|at| (at % 251) as u8).collect();
    let expected = sent.clone();
    let mut writing = tokio::spawn(async move {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
        client
    });
    // Nothing shows that a writer is held up but that it does not end.
    assert!(timeout(Duration::from_millis(100), &mut writing).await.is_err());
    let mut read = Vec::new();
    server.read_to_end(&mut read).await.unwrap();
    assert!(read == expected);
    writing.await.unwrap();
}

#[tokio::test]
async fn what_is_written_together_is_one_frame() {
    let (mut client, mut server) = pair().await;
    let pieces = [io::IoSlice::new(b"head and "), io::IoSlice::new(b"body")];
    assert_eq!(client.write_vectored(&pieces).await.unwrap(), 13);
    assert!(client.is_write_vectored());
    let frame = server.stream.receive.data().await.unwrap().unwrap();
    assert_eq!(frame, &b"head and body"[..]);
}

#[tokio::test]
async fn what_has_no_room_is_written_in_part_and_nothing_is_lost() {
    let (mut client, mut server) = pair().await;
    let sent: Vec<u8> = (0..WINDOW * 2).map(|at| (at % 251) as u8).collect();
    let expected = sent.clone();
    let writing = tokio::spawn(async move {
        let mut at = 0;
        while at < sent.len() {
            let (one, other) = sent[at..].split_at((sent.len() - at) / 2);
            let pieces = [io::IoSlice::new(one), io::IoSlice::new(other)];
            at += client.write_vectored(&pieces).await.unwrap();
        }
        client.shutdown().await.unwrap();
        client
    });
    let mut read = Vec::new();
    server.read_to_end(&mut read).await.unwrap();
    assert!(read == expected);
    writing.await.unwrap();
}

/// Both ends of a connection, of which one is a side.
async fn sockets() -> (SideBytes, TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (Side::Tcp(server).into(), client)
}

#[tokio::test]
async fn a_socket_that_was_not_ended_is_reset_and_one_that_was_is_not() {
    let (mut side, mut client) = sockets().await;
    side.write_all(b"half a word").await.unwrap();
    let mut heard = [0; 11];
    client.read_exact(&mut heard).await.unwrap();
    drop(side);
    let error = client.read(&mut heard).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

    let (mut side, mut client) = sockets().await;
    side.write_all(b"a word").await.unwrap();
    side.shutdown().await.unwrap();
    drop(side);
    let mut heard = String::new();
    client.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "a word");
}

#[tokio::test]
async fn a_socket_that_is_handed_on_ends_as_its_new_owner_says() {
    let (side, mut client) = sockets().await;
    let Side::Tcp(stream) = side.begun(Bytes::new()).side else {
        panic!("a socket");
    };
    drop(stream);
    let mut heard = Vec::new();
    assert_eq!(client.read_to_end(&mut heard).await.unwrap(), 0);
}

#[tokio::test]
async fn what_the_other_plane_says_is_in_the_kind_of_the_error() {
    let kinds = [
        (Reason::INADEQUATE_SECURITY, DENIED),
        (Reason::REFUSED_STREAM, UNREACHED),
        (Reason::INTERNAL_ERROR, io::ErrorKind::ConnectionReset),
    ];
    for (reason, kind) in kinds {
        let (mut client, mut server) = pair().await;
        server.stream.reset(reason);
        let error = client.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{reason:?}");
    }
}
