//! Tunnels: shared, and strict about what is asked for in them.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h2::SendStream;
use h2::client::SendRequest;
use http::{Request, StatusCode};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use trefoil_api::names::{header, port};

use trefoil_dataplane_core::hbone::PoolConfig;
use trefoil_dataplane_core::proxy::ProxyConfig;

use crate::mesh::{Mesh, config, deny, echoed, until};
use crate::raw::{client_to_server, connect};

#[tokio::test]
async fn connections_share_tunnels() {
    let mesh = Mesh::new().await;
    let application = mesh.server.echo().await;
    let mut open = Vec::new();
    for number in 0..32 {
        let mut client = mesh.client.dial(application).await;
        echoed(&mut client, &format!("number {number}")).await;
        open.push(client);
    }
    assert_eq!(mesh.client.dialer.sockets.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn those_who_come_at_once_wait_for_one_handshake() {
    let mesh = Mesh::new().await;
    let application = mesh.server.echo().await;
    let dialled = (0..4).map(|_| mesh.client.dial(application));
    for mut client in futures::future::join_all(dialled).await {
        echoed(&mut client, "hello").await;
    }
    assert_eq!(mesh.client.dialer.sockets.load(Ordering::SeqCst), 1);
}

/// A tunnel of the client's pod to the server's.
async fn tunnel(mesh: &Mesh) -> SendRequest<Bytes> {
    client_to_server(mesh, &mesh.certificates).await.unwrap()
}

async fn status(mesh: &Mesh, request: Request<()>) -> StatusCode {
    let mut send = tunnel(mesh).await;
    let (response, _stream) = send.send_request(request, false).unwrap();
    response.await.unwrap().status()
}

#[tokio::test]
async fn what_is_asked_in_a_tunnel_is_answered() {
    let mesh = Mesh::new().await;
    let application = mesh.server.echo().await;
    assert_eq!(status(&mesh, connect(application)).await, StatusCode::OK);

    let elsewhere = mesh.client.at(80);
    assert_eq!(status(&mesh, connect(elsewhere)).await, StatusCode::BAD_REQUEST);
    for reserved in port::RESERVED {
        let itself = mesh.server.at(reserved);
        assert_eq!(status(&mesh, connect(itself)).await, StatusCode::BAD_REQUEST);
    }
    let get = Request::get(format!("http://{application}/")).body(()).unwrap();
    assert_eq!(status(&mesh, get).await, StatusCode::BAD_REQUEST);

    let mut reused = connect(application);
    let other = "Kubernetes//Pod/shop/other".parse().unwrap();
    reused.headers_mut().insert(header::DESTINATION_UID, other);
    assert_eq!(status(&mesh, reused).await, StatusCode::BAD_REQUEST);

    let nobody = mesh.server.listen().await.local_addr().unwrap();
    assert_eq!(
        status(&mesh, connect(nobody)).await,
        StatusCode::SERVICE_UNAVAILABLE
    );

    mesh.policies(&[deny("no-web", &mesh.client.identity())]);
    assert_eq!(
        status(&mesh, connect(application)).await,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn a_claimed_identity_is_not_believed() {
    let mesh = Mesh::new().await;
    let application = mesh.server.echo().await;
    mesh.policies(&[deny(
        "no-admin",
        &"spiffe://cluster.local/ns/shop/sa/admin".parse().unwrap(),
    )]);
    let mut request = connect(application);
    let claimed = "spiffe://cluster.local/ns/shop/sa/admin".parse().unwrap();
    request.headers_mut().insert(header::PEER, claimed);
    assert_eq!(status(&mesh, request).await, StatusCode::OK);
}

/// Dials until the client's plane has made `sockets` tunnels.
async fn until_tunnels(mesh: &Mesh, application: SocketAddr, sockets: usize) {
    let dialling = async {
        while mesh.client.dialer.sockets.load(Ordering::SeqCst) < sockets {
            let mut client = mesh.client.dial(application).await;
            echoed(&mut client, "hello").await;
            drop(client);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), dialling)
        .await
        .expect("another tunnel");
}

async fn with_pool(pool: PoolConfig) -> Mesh {
    Mesh::with(ProxyConfig { pool, ..config() }, false).await
}

#[tokio::test]
async fn a_tunnel_that_is_old_takes_no_new_connections_and_keeps_the_others() {
    let mesh = with_pool(PoolConfig {
        max_age: Duration::from_millis(200),
        ..PoolConfig::default()
    })
    .await;
    let application = mesh.server.echo().await;
    let mut first = mesh.client.dial(application).await;
    echoed(&mut first, "hello").await;
    until_tunnels(&mesh, application, 3).await;
    echoed(&mut first, "still here").await;
}

#[tokio::test]
async fn a_tunnel_that_nobody_uses_is_closed() {
    let mesh = with_pool(PoolConfig {
        idle: Duration::from_millis(10),
        ..PoolConfig::default()
    })
    .await;
    let application = mesh.server.echo().await;
    until_tunnels(&mesh, application, 2).await;
}

/// Makes requests in a tunnel until they are not taken any more.
async fn until_closed(send: &mut SendRequest<Bytes>, application: SocketAddr) {
    let asking = async {
        loop {
            let asked = match std::future::poll_fn(|cx| send.poll_ready(cx)).await {
                Ok(()) => send.send_request(connect(application), false),
                Err(error) => Err(error),
            };
            let answered = match asked {
                Ok((response, _stream)) => response.await.map(|_| ()),
                Err(error) => Err(error),
            };
            if let Err(error) = answered {
                let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
                assert!(error.is_go_away() || refused, "{error}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asking)
        .await
        .expect("new streams are refused");
}

/// What is open in it runs on.
async fn ends_for_new_streams(mesh: Mesh) {
    let application = mesh.server.echo().await;
    let mut send = tunnel(&mesh).await;
    let (response, mut stream) = send.send_request(connect(application), false).unwrap();
    let mut body = response.await.unwrap().into_body();
    until_closed(&mut send, application).await;
    stream
        .send_data(Bytes::from_static(b"still here"), false)
        .unwrap();
    assert_eq!(body.data().await.unwrap().unwrap(), "still here");
}

#[tokio::test]
async fn a_tunnel_whose_client_does_not_give_it_up_is_closed_when_it_is_old() {
    let mesh = with_pool(PoolConfig {
        max_age: Duration::from_millis(400),
        ..PoolConfig::default()
    });
    ends_for_new_streams(mesh.await).await;
}

#[tokio::test]
async fn a_tunnel_is_closed_when_its_clients_certificate_expires() {
    let mesh = Mesh::certified_for(Duration::from_secs(3), config(), false);
    ends_for_new_streams(mesh.await).await;
}

/// Whoever says nothing takes no place from those who have said who they are.
#[tokio::test]
async fn silent_clients_fill_only_their_own_budget() {
    let few = ProxyConfig {
        strangers: 1,
        ..config()
    };
    let mesh = Mesh::with(few, false).await;
    let application = mesh.server.echo().await;
    let mut before = tunnel(&mesh).await;
    let silent = TcpStream::connect(mesh.server.at(port::HBONE)).await.unwrap();
    let exhausted =
        "trefoil_budget_exhausted_total{workload=\"Kubernetes//Pod/shop/cart\",budget=\"strangers\"}";
    until("the flood is counted", || mesh.metrics().contains(exhausted)).await;
    let (response, _stream) = before.send_request(connect(application), false).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    drop(silent);
    assert_eq!(status(&mesh, connect(application)).await, StatusCode::OK);
}

/// HTTP/2 libraries end a tunnel that holds too many tiny frames; here, other connections are in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tiny_frames_to_a_reader_that_stalls_do_not_end_the_tunnel() {
    let mesh = Mesh::new().await;
    let listener = mesh.server.listen().await;
    let mut send = tunnel(&mesh).await;
    let (response, mut stream) = send
        .send_request(connect(listener.local_addr().unwrap()), false)
        .unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    let (mut stalled, _) = listener.accept().await.unwrap();
    fill(&mut stream).await;
    // Room for tiny frames, which nothing takes on.
    stalled.read_exact(&mut vec![0; 768 * 1024]).await.unwrap();
    let application = mesh.server.echo().await;
    for _ in 0..20 {
        for _ in 0..20_000 {
            stream.send_data(Bytes::from_static(b"x"), false).unwrap();
        }
        let (response, _other) = send.send_request(connect(application), false).unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
        send = send.ready().await.unwrap();
    }
}

/// Sends until nothing is taken for a while.
async fn fill(stream: &mut SendStream<Bytes>) {
    loop {
        stream.reserve_capacity(64 * 1024);
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx));
        let Ok(capacity) = tokio::time::timeout(Duration::from_millis(300), capacity).await else {
            stream.reserve_capacity(0);
            return;
        };
        let chunk = vec![7; capacity.unwrap().unwrap()];
        stream.send_data(chunk.into(), false).unwrap();
    }
}
