use super::*;

#[tokio::test]
async fn listeners_take_both_families_and_accepted_sockets_inherit_options() {
    let listener = listen(0).unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    assert!(accepted.nodelay().unwrap());
    assert!(SockRef::from(&accepted).keepalive().unwrap());
    let expected = canonical(client.peer_addr().unwrap());
    assert_eq!(original_destination(&accepted).unwrap(), expected);
}

#[tokio::test]
async fn a_reset_is_seen_as_one() {
    let listener = listener((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    reset(accepted);
    client.readable().await.unwrap();
    let error = client.try_read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_refused_connection_names_the_address() {
    let closed = listener((Ipv4Addr::LOCALHOST, 0).into())
        .unwrap()
        .local_addr()
        .unwrap();
    let error = connect(&OwnNamespace, closed, None).await.unwrap_err();
    assert!(error.to_string().contains(&closed.to_string()), "{error}");
}
