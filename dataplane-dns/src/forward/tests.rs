use std::net::SocketAddr;
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::net::{TcpListener, UdpSocket};
use trefoil_dataplane_core::sockets::OwnNamespace;

use super::{Connection, ForwardError, ask, read, write};
use crate::message::{failure, responds};

/// Long enough for what answers.
const PATIENCE: Duration = Duration::from_secs(5);

fn query(id: u16) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = id;
    message.add_query(Query::query(
        Name::from_ascii("www.example.com.").unwrap(),
        RecordType::A,
    ));
    message.to_vec().unwrap()
}

async fn resolver() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn only_the_response_to_the_query_is_taken() {
    let (resolver, address) = resolver().await;
    let serving = tokio::spawn(async move {
        let mut buffer = [0; 512];
        let (length, from) = resolver.recv_from(&mut buffer).await.unwrap();
        let right = failure(&buffer[..length]).unwrap();
        for forged in [
            vec![],
            failure(&query(8)).unwrap(),
            buffer[..length].to_vec(),
            right,
        ] {
            resolver.send_to(&forged, from).await.unwrap();
        }
    });
    let response = ask(&OwnNamespace, address, &query(7), PATIENCE).await.unwrap();
    assert!(responds(&response, &query(7)));
    serving.await.unwrap();
}

#[tokio::test]
async fn a_resolver_that_is_silent_or_not_there_is_an_error_in_time() {
    let (silent, address) = resolver().await;
    let short = Duration::from_millis(50);
    let outcome = ask(&OwnNamespace, address, &query(7), short).await;
    assert!(matches!(outcome, Err(ForwardError::Silent)), "{outcome:?}");
    drop(silent);
    let outcome = ask(&OwnNamespace, address, &query(7), PATIENCE).await;
    assert!(
        matches!(outcome, Err(ForwardError::Unreachable(_))),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn queries_share_a_connection_and_make_another_where_it_was_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut connections = 0;
        let mut served = 0;
        while served < 5 {
            let (mut stream, _) = listener.accept().await.unwrap();
            connections += 1;
            // Each connection is closed after three queries.
            for _ in 0..3 {
                let Ok(query) = read(&mut stream).await else { break };
                write(&mut stream, &failure(&query).unwrap()).await.unwrap();
                served += 1;
            }
        }
        connections
    });
    let mut connection = Connection::new(&OwnNamespace, address);
    for id in 0..5 {
        let response = connection.ask(&query(id), PATIENCE).await.unwrap();
        assert!(responds(&response, &query(id)));
    }
    drop(connection);
    assert_eq!(serving.await.unwrap(), 2);
}
