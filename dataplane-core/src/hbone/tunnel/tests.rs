use std::net::Ipv4Addr;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, pause, resume};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::hbone::Windows;
use trefoil_dataplane_state::tls::authority::{TestAuthority, identity, uri};
use trefoil_dataplane_state::tls::{client_config, server_config};

/// A client that begins a tunnel to a listener which nobody accepts from.
async fn begin(authority: &TestAuthority, listener: &TcpListener) -> JoinHandle<Result<(), OpenError>> {
    let leaf = authority.leaf(vec![uri(&identity("web").to_string())], -60, 3600);
    let expected = [identity("cart")];
    let config = client_config(leaf, authority.roots(), "cluster.local", &expected).unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let window = Windows::new(1 << 20).part();
    let begun = tokio::spawn(async move { handshake(stream, Arc::new(config), &window).await.map(drop) });
    tokio::task::yield_now().await;
    begun
}

#[tokio::test]
async fn a_plane_that_is_away_for_as_long_as_kubelet_backs_off_is_waited_for() {
    let authority = TestAuthority::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let tunnel = begin(&authority, &listener).await;
    pause();
    advance(Duration::from_secs(45)).await;
    resume();
    let (stream, _) = listener.accept().await.unwrap();
    let leaf = authority.leaf(vec![uri(&identity("cart").to_string())], -60, 3600);
    let config = server_config(leaf, authority.roots(), "cluster.local").unwrap();
    let server = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
    assert!(server.is_ok(), "{server:?}");
    tunnel.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_plane_that_never_comes_back_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let begun = Instant::now();
    let tunnel = begin(&TestAuthority::new(), &listener).await;
    let error = tunnel.await.unwrap().unwrap_err();
    assert!(matches!(error, OpenError::TimedOut("the handshake")), "{error}");
    assert!(begun.elapsed() >= AWAY && begun.elapsed() < AWAY * 2);
}
