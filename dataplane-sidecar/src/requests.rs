//! The requests of the workload, both ways: those that it makes are routed by its own routes and those of services that
//! have no waypoint; those that it gets are decided about one by one. What is not HTTP goes the way of all bytes. An
//! application is connected to only with the proof that policy allows it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use trefoil_dataplane_core::proxy::{Direction, Home, Readable, Requests};
use trefoil_dataplane_core::telemetry::{self as connections, Layer, Reporter};
use trefoil_dataplane_http::detect::{Spoken, hear};
use trefoil_dataplane_http::{
    Carrier, Config, Downstream, Engine, OpenFailure, Opened, Parts, Permit, Routes, Server, Undeclared,
};
use trefoil_dataplane_state::state::{Locality, Service};

/// How long the client of a port that declares nothing may take to say what it speaks. Both ends may have a sidecar, one
/// of which waits after the other.
const PATIENCE: Duration = Duration::from_millis(50);

/// What reads the requests of a workload.
pub(crate) struct Reader {
    namespace: String,
    routes: Routes,
    inbound: Engine,
    outbound: Engine,
    undeclared: Undeclared,
}

impl Reader {
    /// Reads those of the pod whose plane `home` is.
    pub(crate) fn new(home: &Home, http: Parts, connections: connections::Metrics) -> Self {
        let Parts {
            routes,
            requests,
            undeclared,
        } = http;
        let config = |reporter| Config {
            plane: Layer::Sidecar,
            reporter,
            identity: Some(home.identity().clone()),
            requests: requests.clone(),
            connections: connections.clone(),
            undeclared: undeclared.clone(),
        };
        let engine = |carrier: Arc<dyn Carrier>, reporter| {
            let store = home.store().clone();
            Engine::new(store, routes.clone(), carrier, config(reporter))
        };
        Self {
            namespace: home.identity().namespace().to_owned(),
            inbound: engine(Arc::new(Application(home.clone())), Reporter::Destination),
            outbound: engine(Arc::new(Onward(home.clone())), Reporter::Source),
            routes,
            undeclared,
        }
    }

    fn engine(&self, direction: Direction) -> Engine {
        match direction {
            Direction::Outbound => self.outbound.clone(),
            Direction::Inbound | Direction::Through => self.inbound.clone(),
        }
    }
}

impl Requests for Reader {
    fn routed(&self, service: &Service, port: u16) -> bool {
        let clients = self.routes.of_clients(&service.key(), &self.namespace);
        clients.is_some_and(|routes| routes.are_for(port))
    }

    fn serve(self: Arc<Self>, connection: Readable) -> BoxFuture<'static, ()> {
        Box::pin(serve(self, connection))
    }
}

/// Finds out what a connection speaks, and serves it to its end.
async fn serve(reader: Arc<Reader>, mut connection: Readable) {
    let downstream = downstream(&connection);
    let heard = match hear(connection.client(), downstream.declared(), PATIENCE).await {
        Ok(heard) => heard,
        Err(error) => return connection.broken(error),
    };
    if heard.silent {
        reader.undeclared.waited(&downstream);
    }
    if heard.spoken == Spoken::Bytes {
        drop(downstream);
        return Box::pin(connection.bytes(heard.read)).await;
    }
    let engine = reader.engine(connection.direction);
    let serving = connection.requests(|client, leave| async move {
        engine.requests(heard, client, downstream, leave).await;
    });
    Box::pin(serving).await;
}

fn downstream(connection: &Readable) -> Downstream {
    let (peer, source) = (&connection.peer, connection.source);
    Downstream {
        peer: peer.clone(),
        source,
        client: match connection.direction {
            Direction::Outbound => Some(connection.own.clone()),
            Direction::Inbound | Direction::Through => connection.home.client(peer, source).workload,
        },
        said: Locality::default(),
        own: connection.own.clone(),
        destination: connection.destination,
        service: connection.service.clone(),
        endpoint: connection.endpoint.clone(),
    }
}

/// The workload's own application.
struct Application(Home);

impl Carrier for Application {
    fn open<'a>(
        &'a self,
        to: &'a Server,
        permit: &'a Permit,
        downstream: &'a Downstream,
    ) -> BoxFuture<'a, Result<Opened, OpenFailure>> {
        Box::pin(async move {
            let Permit::Authorized(authorized) = permit else {
                return Err(OpenFailure::undecided(Layer::Sidecar));
            };
            let side = self.0.application(authorized, downstream.source).await;
            side.map(Opened::from)
                .map_err(|failure| OpenFailure::of(&failure, Layer::Sidecar, to))
        })
    }
}

/// The endpoints that the workload's requests go to, as any connection of it does.
struct Onward(Home);

impl Carrier for Onward {
    fn open<'a>(
        &'a self,
        to: &'a Server,
        _: &'a Permit,
        downstream: &'a Downstream,
    ) -> BoxFuture<'a, Result<Opened, OpenFailure>> {
        Box::pin(async move {
            let (own, service) = (&downstream.own, to.service.as_deref());
            let side = self.0.onward(own, &to.endpoint, service, downstream.source);
            side.await
                .map(Opened::from)
                .map_err(|failure| OpenFailure::of(&failure, Layer::Sidecar, to))
        })
    }
}
