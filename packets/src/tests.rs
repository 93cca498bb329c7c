use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;

use crate::{PacketListener, PacketSocket, connect, pair};

#[tokio::test]
async fn messages_and_descriptors_arrive_whole_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = PacketListener::bind(&path).unwrap();
    let client = connect(&path).await.unwrap();
    let server = listener.accept().await.unwrap();
    assert_eq!(
        server.credentials().unwrap().process,
        std::process::id().cast_signed()
    );

    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"trefoil").unwrap();
    client.send(&"first".to_string(), &[file.as_fd()]).await.unwrap();
    client.send(&"second".to_string(), &[]).await.unwrap();
    drop(client);

    let (message, mut descriptors) = server.receive::<String>().await.unwrap().unwrap();
    assert_eq!((message.as_str(), descriptors.len()), ("first", 1));
    let mut same = std::fs::File::from(descriptors.remove(0));
    same.rewind().unwrap();
    let mut content = String::new();
    same.read_to_string(&mut content).unwrap();
    assert_eq!(content, "trefoil");
    let (message, descriptors) = server.receive::<String>().await.unwrap().unwrap();
    assert_eq!((message.as_str(), descriptors.len()), ("second", 0));
    assert!(server.receive::<String>().await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_the_sender() {
    let (left, _right) = pair().unwrap();
    let left = PacketSocket::new(left).unwrap();
    let error = left.send(&"x".repeat(crate::MAX_PACKET), &[]).await.unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
}

#[tokio::test]
async fn a_malformed_packet_is_an_error_not_a_message() {
    let (left, right) = pair().unwrap();
    let right = PacketSocket::new(right).unwrap();
    rustix::net::send(&left, b"\xff\xff\xff", rustix::net::SendFlags::empty()).unwrap();
    assert!(right.receive::<String>().await.is_err());
}
