//! One stream of a tunnel to the waypoint: accept, identify, decide, connect, forward, report. Policy of the
//! endpoint is enforced here, whole, with the client's identity; what may be HTTP is the engine's, which decides
//! about each request and speaks for the client by the same hop.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use trefoil_api::policy::Asked;
use trefoil_dataplane_core::authorize;
use trefoil_dataplane_core::balance::{Endpoint, choose, vantages};
use trefoil_dataplane_core::forward::{Side, TunnelBytes, TunnelStream};
use trefoil_dataplane_core::hbone::Incoming;
use trefoil_dataplane_core::proxy::{Failure, Home, Proxy, Reached, Stream, Tracked, Waypoint};
use trefoil_dataplane_core::telemetry::{self as connections, Layer, Record, Reporter};
use trefoil_dataplane_http::{Config, Engine, Parts};
use trefoil_dataplane_state::state::{Protocol, Service, Tunnel};

use crate::arrival::{Arrival, arrival};
use crate::hop::{Client, Hops, open};
use crate::target::Target;

/// Serves a waypoint from now on: its tunnels, and in them what is declared to be HTTP or seems to be, by these
/// parts.
pub fn serve(proxy: &Arc<Proxy>, waypoint: Waypoint, http: Parts, connections: connections::Metrics) {
    let Parts {
        routes,
        requests,
        undeclared,
    } = http;
    let config = Config {
        plane: Layer::Waypoint,
        reporter: Reporter::Waypoint,
        identity: Some(waypoint.identity.clone()),
        requests,
        connections,
        undeclared,
    };
    proxy.add_waypoint(waypoint, |home| {
        let store = home.store().clone();
        let engine = Engine::new(store, routes, Arc::new(Hops { home }), config);
        Arc::new(move |one| Box::pin(stream(engine.clone(), one)))
    });
}

/// Serves one stream to its end. What it takes to get there is given up before the connection is carried, which
/// may be idle for long.
fn stream(engine: Engine, stream: Stream) -> impl Future<Output = ()> {
    let admitted = Box::pin(admit(stream));
    async move {
        let Some((home, _permit, admitted)) = admitted.await else {
            return;
        };
        match admitted {
            Admitted::Bytes(client, reached) => home.carry(Side::Tunnel(client), reached).await,
            Admitted::Requests(client, arrival) => {
                let (client, downstream) = (TunnelBytes::new(client), arrival.downstream());
                Box::pin(engine.serve(client, downstream, home.leave())).await;
            }
        }
    }
}

/// What is carried.
enum Admitted {
    /// Bytes, to a server that is reached.
    Bytes(TunnelStream, Reached),
    /// Requests, as it seems: their servers are chosen one by one.
    Requests(TunnelStream, Arrival),
}

/// Finds out what a stream is for, and answers it.
async fn admit(stream: Stream) -> Option<(Home, OwnedSemaphorePermit, Admitted)> {
    let Stream {
        home,
        incoming,
        peer,
        source,
    } = stream;
    let arrived = async {
        let permit = home.room()?;
        let arrival = arrival(&home, &incoming, peer, source).await?;
        Ok((permit, arrival))
    };
    let (permit, arrival) = match arrived.await {
        Ok(arrived) => arrived,
        Err(failure) => {
            refuse(&home, home.record(source), incoming, failure);
            return None;
        }
    };
    let admitted = match arrival.target.protocol() {
        Protocol::Tcp | Protocol::Tls => bytes(&home, &arrival, incoming).await?,
        Protocol::Unknown | Protocol::Http11 | Protocol::Http2 | Protocol::Grpc => {
            requests(&home, arrival, incoming)?
        }
    };
    Some((home, permit, admitted))
}

fn refuse(home: &Home, record: Record, incoming: Incoming, failure: Failure) {
    incoming.refuse(home.fail(record, failure).status());
}

/// Answered at once: what becomes of requests is said in HTTP.
fn requests(home: &Home, arrival: Arrival, incoming: Incoming) -> Option<Admitted> {
    match incoming.accept() {
        Ok(client) => Some(Admitted::Requests(client, arrival)),
        Err(error) => {
            home.fail(arrival.record(home), error.into());
            None
        }
    }
}

/// Answered once the server is reached.
async fn bytes(home: &Home, arrival: &Arrival, incoming: Incoming) -> Option<Admitted> {
    let mut record = arrival.record(home);
    let (server, tracked) = match reach(home, arrival, &mut record).await {
        Ok(reached) => reached,
        Err(failure) => {
            refuse(home, record, incoming, failure);
            return None;
        }
    };
    match incoming.accept() {
        Ok(client) => {
            let reached = Reached {
                server,
                record,
                tracked,
            };
            Some(Admitted::Bytes(client, reached))
        }
        Err(error) => {
            home.fail(record, error.into());
            None
        }
    }
}

/// Chooses the endpoint, decides, and connects if the client is allowed.
async fn reach(home: &Home, arrival: &Arrival, record: &mut Record) -> Result<(Side, Tracked), Failure> {
    let (chosen, service) = chosen(home, arrival)?;
    let (source, destination) = (arrival.source, chosen.address);
    record.destination_address = Some(destination);
    // Registered before anything is read that decides: what changes between the two finds the connection.
    let uid = &chosen.workload.uid;
    let mut tracked = home.track(uid, source, destination, arrival.peer.clone());
    let gone = || Failure::WrongDestination(destination.to_string());
    let workload = home.store().workload(uid).ok_or_else(gone)?;
    if !workload.addresses.contains(&destination.ip()) {
        return Err(gone());
    }
    record.destination.workload = Some(workload.clone());
    let endpoint = Endpoint {
        workload,
        address: destination,
    };
    let server = &endpoint.workload;
    if server.tunnel == Tunnel::Hbone {
        record.destination.identity = Some(server.identity.clone());
        record.tunnel_address = Some(endpoint.plane());
    }
    let (store, peer) = (home.store(), &arrival.peer);
    let authorized = authorize(store, peer, server, source.ip(), destination, Asked::Bytes)?;
    record.allowed(&authorized);
    let client = Client {
        peer,
        source,
        workload: arrival.client.workload.as_deref(),
    };
    let opened = open(home, &endpoint, service.as_deref(), &authorized, client);
    Ok((tracked.unless_cut(opened).await?, tracked))
}

/// What was dialled itself, or an endpoint of the service that was, near to the client and else to us.
fn chosen(home: &Home, arrival: &Arrival) -> Result<(Endpoint, Option<Arc<Service>>), Failure> {
    match &arrival.target {
        Target::Workload(endpoint) => Ok((endpoint.clone(), None)),
        Target::Service { service, address } => {
            let from = vantages(arrival.client.workload.as_deref(), &arrival.said, &arrival.own);
            let known = home.store().snapshot();
            let chosen = choose(&known, service, &from, *address, &mut rand::rng());
            let endpoint = chosen.ok_or_else(|| Failure::NoEndpoint(service.hostname.clone()))?;
            Ok((endpoint, Some(service.clone())))
        }
    }
}
