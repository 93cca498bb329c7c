//! What is carried, and how it ends.

use std::hash::{DefaultHasher, Hasher};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use trefoil_dataplane_core::proxy::ProxyConfig;

use crate::mesh::{Mesh, config, echoed, until_reset};

#[tokio::test]
async fn what_is_sent_comes_back() {
    let mesh = Mesh::new().await;
    let application = mesh.server.echo().await;
    let mut client = mesh.client.dial(application).await;
    echoed(&mut client, "hello").await;
    client.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

/// The client ends first; the answer comes after that.
#[tokio::test]
async fn a_client_that_has_said_all_still_gets_its_answer() {
    let mesh = Mesh::new().await;
    let listener = mesh.server.listen().await;
    let mut client = mesh.client.dial(listener.local_addr().unwrap()).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();

    let (mut application, _) = listener.accept().await.unwrap();
    let mut question = String::new();
    application.read_to_string(&mut question).await.unwrap();
    assert_eq!(question, "question");
    application.write_all(b"answer").await.unwrap();
    drop(application);

    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "answer");
}

/// The server ends first; the client goes on.
#[tokio::test]
async fn a_server_that_has_said_all_still_listens() {
    let mesh = Mesh::new().await;
    let listener = mesh.server.listen().await;
    let mut client = mesh.client.dial(listener.local_addr().unwrap()).await;
    let (mut application, _) = listener.accept().await.unwrap();
    application.write_all(b"greeting").await.unwrap();
    application.shutdown().await.unwrap();

    let mut greeting = String::new();
    client.read_to_string(&mut greeting).await.unwrap();
    assert_eq!(greeting, "greeting");
    client.write_all(b"later").await.unwrap();
    drop(client);
    let mut later = String::new();
    application.read_to_string(&mut later).await.unwrap();
    assert_eq!(later, "later");
}

#[tokio::test]
async fn a_server_may_speak_first() {
    let mesh = Mesh::new().await;
    let listener = mesh.server.listen().await;
    let mut client = mesh.client.dial(listener.local_addr().unwrap()).await;
    let (mut application, _) = listener.accept().await.unwrap();
    application.write_all(b"220 ready").await.unwrap();
    let mut ready = [0; 9];
    client.read_exact(&mut ready).await.unwrap();
    assert_eq!(&ready, b"220 ready");
}

#[tokio::test]
async fn a_reset_by_the_client_reaches_the_server() {
    for mesh in [Mesh::new().await, Mesh::same_node().await] {
        let listener = mesh.server.listen().await;
        let mut client = mesh.client.dial(listener.local_addr().unwrap()).await;
        let (mut application, _) = listener.accept().await.unwrap();
        client.write_all(b"x").await.unwrap();
        application.read_exact(&mut [0]).await.unwrap();
        client.set_zero_linger().unwrap();
        drop(client);
        until_reset(&mut application).await;
    }
}

#[tokio::test]
async fn a_reset_by_the_server_reaches_the_client() {
    for mesh in [Mesh::new().await, Mesh::same_node().await] {
        let listener = mesh.server.listen().await;
        let mut client = mesh.client.dial(listener.local_addr().unwrap()).await;
        let (application, _) = listener.accept().await.unwrap();
        application.set_zero_linger().unwrap();
        drop(application);
        until_reset(&mut client).await;
    }
}

/// A reset is noticed on a side that has ended, too: nothing is read from it any more.
#[tokio::test]
async fn a_reset_after_the_end_is_carried() {
    for mesh in [Mesh::new().await, Mesh::same_node().await] {
        let listener = mesh.server.listen().await;
        let mut client = mesh.client.dial(listener.local_addr().unwrap()).await;
        let (mut application, _) = listener.accept().await.unwrap();
        client.write_all(b"x").await.unwrap();
        client.shutdown().await.unwrap();
        application.read_to_end(&mut Vec::new()).await.unwrap();
        client.set_zero_linger().unwrap();
        drop(client);
        until_reset_while_writing(&mut application).await;
    }
}

/// As [`until_reset`], on a side that has read the end already.
async fn until_reset_while_writing(stream: &mut tokio::net::TcpStream) {
    let ready = stream.ready(tokio::io::Interest::ERROR).await.unwrap();
    assert!(ready.is_error());
    assert!(stream.take_error().unwrap().is_some());
}

const LARGE: usize = 100 * 1024 * 1024;

fn pattern(offset: usize, length: usize) -> Vec<u8> {
    (offset..offset + length)
        .map(|at| (at * 31 + at / 251) as u8)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_megabytes_arrive_as_they_were_sent() {
    for mesh in [Mesh::new().await, Mesh::same_node().await] {
        let application = mesh.server.echo().await;
        let client = mesh.client.dial(application).await;
        let (mut reader, mut writer) = client.into_split();
        let sending = tokio::spawn(async move {
            let mut hasher = DefaultHasher::new();
            let piece = 64 * 1024;
            for offset in (0..LARGE).step_by(piece) {
                let bytes = pattern(offset, piece);
                hasher.write(&bytes);
                writer.write_all(&bytes).await.unwrap();
            }
            writer.shutdown().await.unwrap();
            hasher.finish()
        });
        let (mut hasher, mut total, mut rest) = (DefaultHasher::new(), 0, Vec::new());
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let count = reader.read(&mut buffer).await.unwrap();
            if count == 0 {
                break;
            }
            total += count;
            // Hashers are sensitive to how the input is cut.
            rest.extend_from_slice(&buffer[..count]);
            let whole = rest.len() - rest.len() % (64 * 1024);
            for piece in rest[..whole].chunks(64 * 1024) {
                hasher.write(piece);
            }
            rest.drain(..whole);
        }
        assert_eq!(total, LARGE);
        assert_eq!(hasher.finish(), sending.await.unwrap());
    }
}

/// What a client may send to a server that reads nothing is bounded; other connections are not held up.
#[tokio::test]
async fn a_reader_that_stalls_bounds_what_is_held_for_it() {
    let mesh = Mesh::new().await;
    let listener = mesh.server.listen().await;
    let echo = mesh.server.echo().await;
    let mut stalled = Vec::new();
    for _ in 0..12 {
        let client = mesh.client.dial(listener.local_addr().unwrap()).await;
        let (application, _) = listener.accept().await.unwrap();
        let sent = fill(&client).await;
        println!("accepted for a stalled reader: {} KiB", sent / 1024);
        // Of that, up to 6 MiB at each end are the kernel's socket buffers, not ours.
        assert!(sent < 32 * 1024 * 1024, "{sent}");
        stalled.push((client, application));
    }
    let mut other = mesh.client.dial(echo).await;
    echoed(&mut other, "not held up").await;
}

/// A pod that has used up its bytes is slower, not broken; and what it holds is a small part of what it was.
#[tokio::test]
async fn a_pod_without_bytes_left_holds_little_and_carries_all() {
    let none = ProxyConfig { bytes: 0, ..config() };
    let mesh = Mesh::with(none, false).await;
    let application = mesh.server.echo().await;
    let (mut reader, mut writer) = mesh.client.dial(application).await.into_split();
    let much = pattern(0, 4 * 1024 * 1024);
    let sending = async {
        writer.write_all(&much).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let (_, read) = tokio::join!(sending, reader.read_to_end(&mut back));
    read.unwrap();
    assert!(back == much);
    for pod in ["web", "cart"] {
        let counted = format!("workload=\"Kubernetes//Pod/shop/{pod}\",budget=\"bytes\"");
        assert!(mesh.metrics().contains(&counted), "{}", mesh.metrics());
    }
}

/// Writes until nothing is taken for a while.
async fn fill(client: &tokio::net::TcpStream) -> usize {
    let (chunk, mut sent) = (vec![7; 256 * 1024], 0);
    let pause = std::time::Duration::from_millis(300);
    while tokio::time::timeout(pause, client.writable()).await.is_ok() {
        sent += client.try_write(&chunk).unwrap_or(0);
    }
    sent
}

/// Many tiny writes to a reader that stalls do not break the tunnel that others share.
#[tokio::test]
async fn a_thousand_tiny_writes_are_carried() {
    let mesh = Mesh::new().await;
    let application = mesh.server.echo().await;
    let mut client = mesh.client.dial(application).await;
    for _ in 0..1000 {
        client.write_all(b"x").await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut back = vec![0; 1000];
    client.read_exact(&mut back).await.unwrap();
    assert!(back.iter().all(|byte| *byte == b'x'));
}
