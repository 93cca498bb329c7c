use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use trefoil_api::proto::trefoil::descriptors::{
    Batch, Kind, List, Name, Put, Remove, Request, Response, request, response,
};
use trefoil_packets::{PacketListener, PacketSocket, connect};

use super::DescriptorStore;

fn serve(folder: &Path, allowed: bool) -> Arc<DescriptorStore> {
    let store = Arc::new(DescriptorStore::default());
    let listener = PacketListener::bind(&folder.join("descriptors.sock")).unwrap();
    tokio::spawn(Arc::clone(&store).serve(listener, move |_| allowed));
    store
}

fn name(kind: Kind, key: &str) -> Name {
    Name {
        kind: kind.into(),
        key: key.into(),
    }
}

async fn ask(socket: &PacketSocket, payload: request::Payload, descriptors: &[BorrowedFd<'_>]) {
    let request = Request {
        payload: Some(payload),
    };
    socket.send(&request, descriptors).await.unwrap();
}

async fn acknowledged(socket: &PacketSocket) -> String {
    let (response, _) = socket.receive::<Response>().await.unwrap().unwrap();
    match response.payload.unwrap() {
        response::Payload::Ack(ack) => ack.error,
        response::Payload::Batch(_) => panic!("a batch"),
    }
}

async fn batch(socket: &PacketSocket) -> (Batch, Vec<OwnedFd>) {
    let (response, descriptors) = socket.receive::<Response>().await.unwrap().unwrap();
    match response.payload.unwrap() {
        response::Payload::Batch(batch) => (batch, descriptors),
        response::Payload::Ack(ack) => panic!("{}", ack.error),
    }
}

#[tokio::test]
async fn what_is_put_outlives_the_connection_and_comes_back_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = serve(folder.path(), true);
    let file = tempfile::tempfile().unwrap();
    let first = connect(&folder.path().join("descriptors.sock")).await.unwrap();
    let names: Vec<Name> = (0..130)
        .map(|index| name(Kind::Listener, &format!("u{index:03}/15001")))
        .collect();
    let put = request::Payload::Put(Put { names: names.clone() });
    ask(&first, put, &vec![file.as_fd(); 130]).await;
    assert_eq!(acknowledged(&first).await, "");
    drop(first);

    let second = connect(&folder.path().join("descriptors.sock")).await.unwrap();
    ask(&second, request::Payload::List(List {}), &[]).await;
    let (part, descriptors) = batch(&second).await;
    assert_eq!(
        (part.names.len(), descriptors.len(), part.last),
        (100, 100, false)
    );
    let (rest, descriptors) = batch(&second).await;
    assert_eq!((rest.names.len(), descriptors.len(), rest.last), (30, 30, true));
    assert_eq!([part.names, rest.names].concat(), names);

    let remove = request::Payload::Remove(Remove { names });
    ask(&second, remove, &[]).await;
    assert_eq!(acknowledged(&second).await, "");
    assert!(store.is_empty());
    ask(&second, request::Payload::List(List {}), &[]).await;
    let (nothing, _) = batch(&second).await;
    assert!(nothing.last && nothing.names.is_empty());
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_an_ended_pod_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let store = serve(folder.path(), true);
    let file = tempfile::tempfile().unwrap();
    let socket = connect(&folder.path().join("descriptors.sock")).await.unwrap();
    for (names, descriptors) in [
        (vec![name(Kind::Keys, "a")], vec![]),
        (vec![name(Kind::Unspecified, "a")], vec![file.as_fd()]),
        (vec![name(Kind::Keys, "")], vec![file.as_fd()]),
    ] {
        ask(&socket, request::Payload::Put(Put { names }), &descriptors).await;
        assert_ne!(acknowledged(&socket).await, "");
    }
    let names = vec![
        name(Kind::Listener, "u1/15001"),
        name(Kind::Listener, "u10/15001"),
        name(Kind::Namespace, "u1"),
        name(Kind::Keys, "u1"),
    ];
    ask(&socket, request::Payload::Put(Put { names }), &[file.as_fd(); 4]).await;
    assert_eq!(acknowledged(&socket).await, "");
    store.forget_pod("u1");
    assert_eq!(store.len(), 2);
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let folder = tempfile::tempdir().unwrap();
    let _store = serve(folder.path(), false);
    let socket = connect(&folder.path().join("descriptors.sock")).await.unwrap();
    assert!(socket.receive::<Response>().await.unwrap().is_none());
}
