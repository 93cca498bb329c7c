use std::net::Ipv4Addr;

use http::HeaderValue;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::hbone::{Windows, serve};
use trefoil_dataplane_state::tls::authority::{TestAuthority, identity, uri};
use trefoil_dataplane_state::tls::{client_config, server_config};

/// A plane that dies once `streams` are open in it: whatever it had, it ends when it is next asked for
/// something. What is dialled afterwards is served.
async fn dying_plane(authority: &TestAuthority, streams: usize) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let leaf = authority.leaf(vec![uri(&identity("cart").to_string())], -60, 3600);
    let config = server_config(leaf, authority.roots(), "cluster.local").unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let open = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, open) = (acceptor.clone(), open.clone());
            tokio::spawn(async move {
                let doomed = open.load(Ordering::SeqCst) < streams;
                let tls = acceptor.accept(stream).await.unwrap();
                let window = Windows::new(1 << 20).part();
                let (die, died) = oneshot::channel();
                let (mut die, mut held, mut unanswered) = (Some(die), Vec::new(), Vec::new());
                let take = |incoming: super::super::Incoming| {
                    if !doomed || open.fetch_add(1, Ordering::SeqCst) < streams {
                        held.push(incoming.accept().unwrap());
                    } else {
                        unanswered.push(incoming);
                        let _ = die.take().map(|die| die.send(()));
                    }
                };
                let never = std::future::pending;
                tokio::select! {
                    _ = serve(tls, &window, take, never(), never()) => {}
                    _ = died => {}
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_plane_that_dies_with_many_tunnels_costs_one_attempt() {
    let authority = TestAuthority::new();
    let streams = PREFERRED_STREAMS * PREFERRED_TUNNELS;
    let address = dying_plane(&authority, streams).await;
    let leaf = authority.leaf(vec![uri(&identity("web").to_string())], -60, 3600);
    let expected = [identity("cart")];
    let tls = Arc::new(client_config(leaf, authority.roots(), "cluster.local", &expected).unwrap());
    let place = Place {
        address,
        expected: &expected,
        config: PoolConfig::default(),
    };
    let opening = Opening {
        destination: address,
        destination_uid: Some("Kubernetes//Pod/shop/cart"),
        source: address,
        service: None,
        baggage: Some(HeaderValue::from_static("")),
        claim: None,
    };
    let connect = || {
        let tls = tls.clone();
        async move {
            Ok(Connected {
                stream: TcpStream::connect(address).await.unwrap(),
                tls,
                window: Windows::new(1 << 20).part(),
            })
        }
    };
    let pool = Pool::default();
    let mut held = Vec::new();
    for _ in 0..streams {
        held.push(pool.open(&place, &opening, connect).await.unwrap());
    }
    // One in each: there is room in all of them, and so each would be tried.
    let held: Vec<_> = held.into_iter().step_by(PREFERRED_STREAMS).collect();
    assert_eq!(
        (pool.tunnels(), held.len()),
        (PREFERRED_TUNNELS, PREFERRED_TUNNELS)
    );
    pool.open(&place, &opening, connect).await.unwrap();
}
