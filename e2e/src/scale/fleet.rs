//! The clients of a mesh of some size: a proxy and an agent for each node, some sidecars, and some that subscribe on
//! demand.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};

use super::agent::Agent;
use super::client::{Client, Role};
use super::ledger::Ledger;
use super::objects::{Objects, PodAt, Size};
use super::processes::Process;
use super::stream::Way;

/// The name that the control plane's certificate shows, whatever its address.
const CONTROL_PLANE_NAME: &str = "trefoil-control-plane.trefoil-system.svc";
/// Services that a client on demand asks for.
const ASKED: usize = 10;
/// One sidecar, and one client on demand, for so many nodes.
const PER_NODES: usize = 10;
/// How often it is said how many clients wait.
const PROGRESS: Duration = Duration::from_secs(10);
/// How long the whole fleet may take to be answered.
const ANSWERED: Duration = Duration::from_secs(900);

/// See the module.
#[derive(Debug)]
pub struct Fleet {
    /// The clients.
    pub clients: Vec<Arc<Client>>,
    agents: Vec<Arc<Agent>>,
    /// What they were sent.
    pub ledger: Arc<Ledger>,
    /// Where the control plane is.
    pub endpoint: Endpoint,
    running: JoinSet<()>,
}

impl Fleet {
    /// Gets the tokens for a fleet; nothing connects yet.
    pub async fn prepare(objects: &Objects, size: Size, uids: &[String]) -> anyhow::Result<Self> {
        let proxies = stream::iter(0..size.nodes).map(|node| async move {
            let token = objects.token_of_node("trefoil-node", node).await?;
            client(format!("ztunnel~node-{node}"), Role::Node, &token)
        });
        let few = 0..size.nodes.div_ceil(PER_NODES);
        let sidecars = stream::iter(few.clone()).map(|one| async move {
            let (namespace, _) = size.service(one % size.services);
            let token = objects
                .token_of_client(&namespace, &format!("sidecar-{one}"), one)
                .await?;
            client(format!("sidecar~{one}"), Role::Sidecar, &token)
        });
        let on_demand = stream::iter(few).map(|one| async move {
            let role = on_demand(size, one);
            let (namespace, _) = size.service(one * ASKED % size.services);
            let name = format!("on-demand-{one}");
            let token = objects.token_of_client(&namespace, &name, one).await?;
            client(format!("waypoint~{one}"), role, &token)
        });
        let mut clients: Vec<Client> = proxies.buffered(64).try_collect().await?;
        clients.extend(sidecars.buffered(64).try_collect::<Vec<_>>().await?);
        clients.extend(on_demand.buffered(64).try_collect::<Vec<_>>().await?);
        let agents = stream::iter(0..size.nodes).map(|node| async move {
            let token = objects.token_of_node("trefoil-cni", node).await?;
            Ok::<_, anyhow::Error>(Agent {
                authorization: bearer(&token)?,
                pods: pods_of(size, node, uids),
            })
        });
        let agents: Vec<Agent> = agents.buffered(64).try_collect().await?;
        Ok(Self {
            clients: clients.into_iter().map(Arc::new).collect(),
            agents: agents.into_iter().map(Arc::new).collect(),
            ledger: Arc::new(Ledger::new((size.pods + size.services) * 2 + 4096)),
            endpoint: Endpoint::from_static("https://127.0.0.1"),
            running: JoinSet::new(),
        })
    }

    /// Connects all of them; how long it took until the last was answered.
    pub async fn connect(&mut self, control_plane: &Process, roots: &str) -> anyhow::Result<Duration> {
        self.endpoint = endpoint(control_plane, roots)?;
        let way = Way::new(control_plane.listens, roots, CONTROL_PLANE_NAME)?;
        let begun = Instant::now();
        for agent in &self.agents {
            self.running.spawn(agent.clone().run(self.endpoint.clone()));
        }
        for client in &self.clients {
            let running = client.clone().run(way.clone(), self.ledger.clone());
            self.running.spawn(running);
        }
        self.answered_since(begun).await
    }

    /// Waits until every client has been answered after a moment; how long after it the last of them was.
    pub async fn answered_since(&self, moment: Instant) -> anyhow::Result<Duration> {
        let from = self.ledger.at(moment);
        let answered = || self.clients.iter().map(|client| client.answered.load(Relaxed));
        let mut begun = Instant::now();
        while answered().any(|at| at <= from) {
            let waiting = answered().filter(|at| *at <= from).count();
            ensure!(
                moment.elapsed() < ANSWERED,
                "{waiting} of {} clients were not answered in {} s",
                self.clients.len(),
                ANSWERED.as_secs()
            );
            if begun.elapsed() > PROGRESS {
                begun = Instant::now();
                eprintln!("after {} s {waiting} clients wait", moment.elapsed().as_secs());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let last = answered().max().unwrap_or_default();
        Ok(Duration::from_nanos(last.saturating_sub(from)))
    }

    /// Waits until nothing has been received for a while.
    pub async fn quiet(&self, pause: Duration) {
        let mut seen = u64::MAX;
        loop {
            let now = self.ledger.responses.load(Relaxed);
            if now == seen {
                return;
            }
            seen = now;
            tokio::time::sleep(pause).await;
        }
    }

    /// How many clients are to hear of a pod.
    #[must_use]
    pub fn concerned(&self, resource: &str) -> usize {
        let address = trefoil_api::proto::type_url::ADDRESS;
        let wanting = self
            .clients
            .iter()
            .filter(|client| client.role.wants(address, resource));
        wanting.count()
    }
}

fn endpoint(control_plane: &Process, roots: &str) -> anyhow::Result<Endpoint> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(roots))
        .domain_name(CONTROL_PLANE_NAME);
    // More patient than planes are: here all share two cores.
    Ok(
        Endpoint::from_shared(format!("https://{}", control_plane.listens))?
            .tls_config(tls)?
            .connect_timeout(Duration::from_secs(30))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(30))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20),
    )
}

fn client(name: String, role: Role, token: &str) -> anyhow::Result<Client> {
    Ok(Client {
        name,
        role,
        authorization: bearer(token)?,
        answered: Default::default(),
    })
}

fn on_demand(size: Size, one: usize) -> Role {
    let asked = (0..ASKED.min(size.services)).map(|at| (one * ASKED + at) % size.services);
    let (mut services, mut workloads) = (Vec::new(), Vec::new());
    for service in asked {
        let (namespace, name) = size.service(service);
        services.push(format!("{namespace}/{name}.{namespace}.svc.cluster.local"));
        workloads.push(trefoil_api::names::workload_uid(&namespace, &format!("{name}-")));
    }
    Role::OnDemand { services, workloads }
}

fn pods_of(size: Size, node: usize, uids: &[String]) -> Vec<(String, String, String)> {
    let here = (0..size.pods).map(PodAt).filter(|pod| size.node_of(*pod) == node);
    here.map(|pod| {
        let (namespace, name) = size.pod(pod);
        (namespace, name, uids[pod.0].clone())
    })
    .collect()
}

fn bearer(token: &str) -> anyhow::Result<MetadataValue<Ascii>> {
    format!("Bearer {token}")
        .parse()
        .context("a token that is no header")
}
