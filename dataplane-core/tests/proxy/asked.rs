//! What planes answer about a connection is what becomes of it; and one that is made on request is the pod's
//! own, without a byte.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use trefoil_api::names::workload_uid;
use trefoil_api::question::{Arriving, Leaving, Outcome};
use trefoil_dataplane_core::proxy::NotAnswered;

use crate::mesh::{Mesh, deny, echoed, until};

fn leaving(mesh: &Mesh, destination: SocketAddr) -> Leaving {
    Leaving {
        workload: workload_uid("shop", mesh.client.name),
        destination,
    }
}

fn arriving(mesh: &Mesh, identity: bool, destination: SocketAddr) -> Arriving {
    Arriving {
        workload: workload_uid("shop", mesh.server.name),
        identity: identity.then(|| mesh.client.identity().to_string()),
        source: mesh.client.address,
        destination,
    }
}

#[tokio::test]
async fn what_is_foretold_comes_about() {
    for (mesh, path) in [
        (Mesh::new().await, "mutual_tls"),
        (Mesh::same_node().await, "same_node"),
    ] {
        let application = mesh.server.echo().await;
        let route = mesh.at_client.route(&leaving(&mesh, application)).unwrap();
        assert_eq!(route.path, path);
        assert_eq!(route.address, Some(application));
        assert_eq!(route.workload, Some(workload_uid("shop", mesh.server.name)));
        assert_eq!(route.identity, mesh.client.identity().to_string());
        let evaluated = mesh
            .at_server
            .evaluate(&arriving(&mesh, true, application))
            .unwrap();
        assert_eq!(evaluated.fault, None);
        let probed = mesh.at_client.probe(&leaving(&mesh, application)).await.unwrap();
        assert_eq!((probed.outcome, probed.fault), (Outcome::Open, None));
        assert_eq!(probed.path, path);

        mesh.policies(&[deny("no-web", &mesh.client.identity())]);
        let evaluated = mesh
            .at_server
            .evaluate(&arriving(&mesh, true, application))
            .unwrap();
        assert_eq!(evaluated.policy.as_deref(), Some("shop/no-web"));
        let fault = evaluated.fault.expect("refused");
        assert_eq!((fault.layer.as_str(), fault.flag.as_str()), ("policy", "DENY"));
        let probed = mesh.at_client.probe(&leaving(&mesh, application)).await.unwrap();
        assert_eq!(probed.outcome, Outcome::Failed);
        assert_eq!(probed.fault.expect("refused").layer, "policy");
        // Nobody is named by plaintext.
        let plain = arriving(&mesh, false, application);
        assert_eq!(mesh.at_server.evaluate(&plain).unwrap().fault, None);
        assert_eq!(mesh.at_server.reach(&plain).await.unwrap().outcome, Outcome::Open);
    }
}

#[tokio::test]
async fn a_probe_sends_no_byte_and_leaves_nothing_open() {
    let mesh = Mesh::new().await;
    let listener = mesh.server.listen().await;
    let destination = listener.local_addr().unwrap();
    let question = leaving(&mesh, destination);
    let heard = async {
        let (mut application, _) = listener.accept().await.unwrap();
        let mut bytes = Vec::new();
        application.read_to_end(&mut bytes).await.unwrap();
        bytes
    };
    let (probed, heard) = tokio::join!(mesh.at_client.probe(&question), heard);
    assert_eq!(probed.unwrap().outcome, Outcome::Open);
    assert_eq!(heard, b"");
    until("nothing is left open", || {
        mesh.at_client.connections().is_empty() && mesh.at_server.connections().is_empty()
    })
    .await;
}

#[tokio::test]
async fn an_application_that_is_not_there_or_hangs_up_is_told_from_the_rest() {
    for mesh in [Mesh::new().await, Mesh::same_node().await] {
        let listener = mesh.server.listen().await;
        let destination = listener.local_addr().unwrap();
        let hangs_up = async { drop(listener.accept().await.unwrap()) };
        let question = leaving(&mesh, destination);
        let (probed, ()) = tokio::join!(mesh.at_client.probe(&question), hangs_up);
        assert_eq!(probed.unwrap().outcome, Outcome::Closed);
        drop(listener);
        let probed = mesh.at_client.probe(&leaving(&mesh, destination)).await.unwrap();
        assert_eq!(probed.outcome, Outcome::Failed);
        assert_eq!(probed.fault.expect("refused").layer, "application");
    }
}

#[tokio::test]
async fn only_pods_that_are_served_are_spoken_for_and_only_a_few_times_a_second() {
    let mesh = Mesh::new().await;
    let application = mesh.server.echo().await;
    let foreign = Leaving {
        workload: workload_uid("shop", "stranger"),
        destination: application,
    };
    assert_eq!(
        mesh.at_client.probe(&foreign).await,
        Err(NotAnswered::NotServed(foreign.workload.clone()))
    );
    assert!(mesh.at_server.route(&leaving(&mesh, application)).is_err());
    let question = leaving(&mesh, application);
    let probes = (0..20).map(|_| mesh.at_client.probe(&question));
    let made = futures::future::join_all(probes).await;
    let busy = made.iter().filter(|one| **one == Err(NotAnswered::Busy)).count();
    assert_eq!(busy, 16, "{made:?}");
    // Those of the pod itself are not held up by it.
    echoed(&mut mesh.client.dial(application).await, "hello").await;
}
