//! The next hop: to an endpoint's plane, with the waypoint's identity, speaking for the client. Only to where policy
//! was proved to allow the client to go.

use std::net::SocketAddr;

use futures::future::BoxFuture;
use trefoil_dataplane_core::Authorized;
use trefoil_dataplane_core::balance::Endpoint;
use trefoil_dataplane_core::forward::Side;
use trefoil_dataplane_core::hbone::{Opening, baggage};
use trefoil_dataplane_core::identify::Peer;
use trefoil_dataplane_core::proxy::{Failure, Home};
use trefoil_dataplane_core::telemetry::Layer;
use trefoil_dataplane_http::{Carrier, Downstream, OpenFailure, Opened, Permit, Server};
use trefoil_dataplane_state::state::{Service, Workload};

/// Who is spoken for.
pub(crate) struct Client<'c> {
    pub(crate) peer: &'c Peer,
    pub(crate) source: SocketAddr,
    pub(crate) workload: Option<&'c Workload>,
}

/// Connects to `endpoint`, which was chosen for `service`.
pub(crate) async fn open(
    home: &Home,
    endpoint: &Endpoint,
    service: Option<&Service>,
    authorized: &Authorized,
    client: Client<'_>,
) -> Result<Side, Failure> {
    let opening = Opening {
        destination: authorized.destination(),
        destination_uid: Some(&endpoint.workload.uid),
        source: client.source,
        service: service.map(|service| service.hostname.as_str()),
        baggage: client.workload.map(baggage),
        claim: Some(client.peer.claim()),
    };
    home.connect(endpoint, service, authorized, &opening).await
}

/// The next hops of the engine's requests.
pub(crate) struct Hops {
    pub(crate) home: Home,
}

impl Carrier for Hops {
    fn open<'a>(
        &'a self,
        to: &'a Server,
        permit: &'a Permit,
        downstream: &'a Downstream,
    ) -> BoxFuture<'a, Result<Opened, OpenFailure>> {
        Box::pin(async move {
            let Permit::Authorized(authorized) = permit else {
                return Err(OpenFailure::undecided(Layer::Waypoint));
            };
            let client = Client {
                peer: &downstream.peer,
                source: downstream.source,
                workload: downstream.client.as_deref(),
            };
            let opened = open(
                &self.home,
                &to.endpoint,
                to.service.as_deref(),
                authorized,
                client,
            );
            let side = opened.await;
            side.map(Opened::from)
                .map_err(|failure| OpenFailure::of(&failure, Layer::Waypoint, to))
        })
    }
}
