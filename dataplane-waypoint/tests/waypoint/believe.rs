//! Who is believed about whom: each forged identity is refused, counted, and does not get to policy.

use std::net::SocketAddr;

use http::StatusCode;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use trefoil_api::Identity;
use trefoil_api::names::{header, port};

use crate::fixture::{Door, Guard, Guarded, allow, beside, stripped};
use crate::lines::LINES;
use crate::mesh::{TestPod, until};
use crate::raw::{connect, tunnel_as};

/// Asks at the plane of `at` as `pod`, from its address, with this claim, for `destination`.
async fn ask(
    guarded: &Guarded,
    (identity, from): (&Identity, &TestPod),
    at: &TestPod,
    destination: SocketAddr,
    claim: &str,
) -> StatusCode {
    let to = (at.identity(), at.at(port::HBONE));
    let mut send = tunnel_as(&guarded.mesh, (identity, from.address), to).await;
    let mut request = connect(destination);
    request.headers_mut().insert(header::PEER, claim.parse().unwrap());
    let forwarded = format!("for=\"{}:1\"", guarded.mesh.client.address);
    request
        .headers_mut()
        .insert("forwarded", forwarded.parse().unwrap());
    let (response, _stream) = send.send_request(request, false).unwrap();
    response.await.unwrap().status()
}

fn admin() -> Identity {
    Identity::new("cluster.local", "shop", "admin").unwrap()
}

/// Only an administrator may pass. None of these is one, whatever they say.
#[tokio::test]
async fn a_forged_identity_is_worth_nothing() {
    let guarded = Guarded::new().await;
    let (mesh, door, gate) = (&guarded.mesh, &guarded.door, guarded.another());
    let books = beside(mesh, "books", 5);
    guarded.guard(&books, Guard::By(door));
    mesh.policies(&[allow("only-admin", &admin())]);
    let claim = admin().to_string();
    let (web, cart) = (&mesh.client, &mesh.server);
    let identities = [web, cart, &gate.pod].map(TestPod::identity);
    let [as_web, as_cart, as_gate] = &identities;
    let (application, service) = (guarded.application, guarded.service);
    let cases = [
        ("a workload, at the server", (as_web, web), cart, application),
        (
            "a workload, at the waypoint",
            (as_web, web),
            &door.pod,
            application,
        ),
        (
            "a workload, at the waypoint, for the service",
            (as_web, web),
            &door.pod,
            service,
        ),
        (
            "another waypoint, at the server",
            (as_gate, &gate.pod),
            cart,
            application,
        ),
        (
            "another waypoint, at the waypoint",
            (as_gate, &gate.pod),
            &door.pod,
            application,
        ),
        (
            "the server, from elsewhere",
            (as_cart, web),
            &door.pod,
            application,
        ),
        (
            "the server, for another",
            (as_cart, cart),
            &door.pod,
            books.at(application.port()),
        ),
        ("the server, for the service", (as_cart, cart), &door.pod, service),
        (
            "another's identity from the server's address",
            (as_web, cart),
            &door.pod,
            application,
        ),
    ];
    for (what, who, at, destination) in cases {
        let before = stripped(&mesh.metrics()) + door.stripped();
        let status = ask(&guarded, who, at, destination, &claim).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{what}");
        let after = stripped(&mesh.metrics()) + door.stripped();
        assert_eq!(after, before + 1, "{what}: counted, once");
    }
    // That it is only for who says so that it is not believed.
    let believed = ask(&guarded, (as_cart, cart), &door.pod, application, &claim);
    assert_eq!(believed.await, StatusCode::OK);
    let as_door = &door.pod.identity();
    let believed = ask(&guarded, (as_door, &door.pod), cart, application, &claim);
    assert_eq!(believed.await, StatusCode::OK);
}

#[tokio::test]
async fn whoever_is_believed_must_be_readable() {
    let guarded = Guarded::new().await;
    let (door, cart) = (&guarded.door.pod, &guarded.mesh.server);
    for claim in ["", "spiffe://cluster.local/ns/shop", "nobody"] {
        for (who, at) in [(door, cart), (cart, door)] {
            let status = ask(&guarded, (&who.identity(), who), at, guarded.application, claim).await;
            assert_eq!(
                status,
                StatusCode::BAD_REQUEST,
                "{claim:?} of {} at {}",
                who.name,
                at.name
            );
        }
    }
}

/// What a waypoint does not serve it does not carry, whoever asks.
#[tokio::test]
async fn a_waypoint_is_no_relay() {
    let guarded = Guarded::new().await;
    let (mesh, door) = (&guarded.mesh, &guarded.door);
    let unguarded = mesh.client.echo().await;
    let outside: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let itself = door.pod.at(port::HBONE);
    for (index, elsewhere) in [unguarded, outside, itself].into_iter().enumerate() {
        let status = ask_plainly(&guarded, door, elsewhere).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{elsewhere}");
        let line = LINES.of(mesh, "through", index + 1).await.remove(index);
        assert_eq!(line["layer"], "waypoint");
        assert_eq!(
            line["reason"],
            format!("{elsewhere} is not served by this waypoint")
        );
    }
    // Once its waypoint is another, a workload is not served here any more.
    let gate = guarded.another();
    guarded.guard(&mesh.server, Guard::By(&gate));
    let status = ask_plainly(&guarded, door, guarded.application).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let status = ask_plainly(&guarded, &gate, guarded.application).await;
    assert_eq!(status, StatusCode::OK);
}

async fn ask_plainly(guarded: &Guarded, at: &Door, destination: SocketAddr) -> StatusCode {
    let web = &guarded.mesh.client;
    let to = (at.pod.identity(), at.pod.at(port::HBONE));
    let mut send = tunnel_as(&guarded.mesh, (&web.identity(), web.address), to).await;
    let (response, _stream) = send.send_request(connect(destination), false).unwrap();
    response.await.unwrap().status()
}

/// From outside the mesh there is no tunnel that a claim could be made in.
#[tokio::test]
async fn who_proves_nothing_gets_no_tunnel() {
    let guarded = Guarded::new().await;
    for at in [&guarded.door.pod, &guarded.mesh.server] {
        let mut stream = TcpStream::connect(at.at(port::HBONE)).await.unwrap();
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, preface)
            .await
            .unwrap();
        // An alert of TLS at most, and the end.
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.len() < 16, "{answer:?}");
    }
    until("it is counted", || {
        guarded.door.metrics().contains("response_flags=\"TLS_FAILURE\"")
    })
    .await;
}
