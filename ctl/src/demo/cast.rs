//! Who is in the demonstration: a web front end and its orders in sidecars, an API in two replicas and a cache
//! on the nodes' proxies, and two programs outside the mesh, so that every mode meets every mode; then a shop: two
//! front ends of a gRPC API in two versions. Each is a pod made as a user would make it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;

use trefoil_local::mesh::Mesh;
use trefoil_local::protocol::{Conversation, PodRequest, Request, Response, ServiceRequest};
use trefoil_local::run;

/// The port of the HTTP servers.
pub(crate) const HTTP: u16 = 8080;
/// The port of the cache.
pub(crate) const REDIS: u16 = 6379;
/// The port of the catalog.
pub(crate) const GRPC: u16 = 50051;
/// The label of both versions of the catalog, by which their common service selects them.
pub(crate) const CATALOG: (&str, &str) = ("part", "catalog");

/// A pod of the demonstration.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Its namespace, named after its mode but for the shop's, which is ambient.
    pub(crate) namespace: &'static str,
    /// Its name.
    pub(crate) name: &'static str,
    /// Its node.
    pub(crate) node: &'static str,
    /// Its service account.
    pub(crate) account: &'static str,
    /// The service and port that it is behind.
    pub(crate) service: &'static str,
    /// Its port.
    pub(crate) port: u16,
    /// Its addresses.
    pub(crate) addresses: Vec<IpAddr>,
}

fn member(
    namespace: &'static str,
    name: &'static str,
    node: &'static str,
    service: &'static str,
    port: u16,
) -> Member {
    Member {
        namespace,
        name,
        node,
        account: service,
        service,
        port,
        addresses: Vec::new(),
    }
}

/// The pods that everybody meets in.
pub(crate) fn members() -> Vec<Member> {
    vec![
        member("sidecar", "web", "n1", "web", HTTP),
        member("sidecar", "orders", "n2", "orders", HTTP),
        member("ambient", "api-1", "n1", "api", HTTP),
        member("ambient", "api-2", "n2", "api", HTTP),
        member("ambient", "cache", "n2", "cache", REDIS),
        member("none", "legacy", "n2", "legacy", HTTP),
        member("none", "partner", "n1", "partner", HTTP),
    ]
}

/// The shop's pods: its front ends in either plane, and the API that they call.
pub(crate) fn shop() -> Vec<Member> {
    vec![
        member("sidecar", "store", "n1", "store", HTTP),
        member("ambient", "office", "n2", "office", HTTP),
        member("shop", "catalog-v1", "n1", "catalog-v1", GRPC),
        member("shop", "catalog-v2", "n2", "catalog-v2", GRPC),
    ]
}

impl Member {
    /// NAMESPACE/POD.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Its identity, if it is of the mesh.
    pub(crate) fn identity(&self) -> String {
        format!("spiffe://cluster.local/ns/{}/sa/{}", self.namespace, self.account)
    }

    /// HOST:PORT of its service.
    pub(crate) fn service_address(&self) -> String {
        let port = if self.port == REDIS { REDIS } else { 80 };
        format!("{}.{}:{port}", self.service, self.namespace)
    }

    /// IP:PORT of this very pod.
    pub(crate) fn address(&self) -> String {
        let address = self
            .addresses
            .first()
            .map_or_else(String::new, ToString::to_string);
        format!("{address}:{}", self.port)
    }

    /// The command that calls `target`.
    pub(crate) fn call(target: &Self) -> anyhow::Result<Vec<String>> {
        let mut command = vec![program()?, "demo-app".into(), "call".into(), target.address()];
        if target.port == REDIS {
            command.push("--redis".into());
        }
        Ok(command)
    }

    /// The log of the plane that serves it while it is redirected to `plane`.
    pub(crate) fn log(&self, mesh: &Mesh, plane: &str) -> PathBuf {
        match plane {
            "sidecar" => mesh.pod_directory(self.namespace, self.name).join("sidecar.log"),
            _ => mesh.log(&format!("{}-node", self.node)),
        }
    }

    fn command(&self) -> anyhow::Result<Vec<String>> {
        let (port, redis) = (self.port.to_string(), format!("cache.ambient:{REDIS}"));
        let arguments: Vec<&str> = match self.name {
            "cache" => {
                return Ok([
                    "redis-server",
                    "--port",
                    &port,
                    "--save",
                    "",
                    "--protected-mode",
                    "no",
                    "--bind",
                    "*",
                    "-::*",
                ]
                .map(Into::into)
                .into());
            }
            "web" => vec![
                "serve",
                "--name",
                "web",
                "--port",
                &port,
                "--upstream",
                "api.ambient:80",
            ],
            name @ ("store" | "office") => vec![
                "serve",
                "--name",
                name,
                "--port",
                &port,
                "--catalog",
                "catalog.shop:80",
            ],
            "catalog-v1" => vec!["catalog", "--version", "v1", "--port", &port],
            "catalog-v2" => vec!["catalog", "--version", "v2", "--port", &port],
            name @ ("orders" | "legacy" | "partner") => vec!["serve", "--name", name, "--port", &port],
            name => vec!["serve", "--name", name, "--port", &port, "--cache", &redis],
        };
        let own = [program()?, "demo-app".into()];
        Ok(own
            .into_iter()
            .chain(arguments.into_iter().map(Into::into))
            .collect())
    }

    fn request(&self) -> anyhow::Result<PodRequest> {
        let port = if self.port == REDIS { REDIS } else { 80 };
        let (label, value) = CATALOG;
        let labels = match self.port {
            GRPC => BTreeMap::from([(label.into(), value.into())]),
            _ => BTreeMap::new(),
        };
        Ok(PodRequest {
            namespace: self.namespace.into(),
            name: self.name.into(),
            node: Some(self.node.into()),
            service_account: self.account.into(),
            labels,
            ports: vec![self.port],
            services: vec![ServiceRequest {
                name: self.service.into(),
                port,
                target: self.port,
            }],
            command: self.command()?,
            detach: true,
            ..PodRequest::default()
        })
    }

    /// Makes the pod, and waits until it takes connections.
    pub(crate) async fn start(&mut self, mesh: &Mesh) -> anyhow::Result<()> {
        let request = Request::Run(Box::new(self.request()?));
        let started = Conversation::with_daemon(mesh).await?.ask(&request).await;
        started.with_context(|| format!("starting {}", self.full_name()))?;
        let status = Conversation::with_daemon(mesh)
            .await?
            .ask(&Request::Status)
            .await?;
        let Response::Status(status) = status else {
            anyhow::bail!("the daemon answered something else")
        };
        let pod = status
            .pods
            .iter()
            .find(|pod| pod.namespace == self.namespace && pod.name == self.name);
        let addresses = &pod
            .with_context(|| format!("{} has ended", self.full_name()))?
            .addresses;
        self.addresses = addresses
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect();
        Ok(())
    }

    /// What a command in the pod writes; an error where it fails.
    pub(crate) async fn run(&self, mesh: &Mesh, command: &[String]) -> anyhow::Result<String> {
        let output = run::output(mesh, self.namespace, self.name, command).await?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        anyhow::ensure!(output.status.success(), "{}", said(&output.stderr));
        Ok(said(&output.stdout))
    }
}

/// This program.
pub(crate) fn program() -> anyhow::Result<String> {
    Ok(std::env::current_exe()?.display().to_string())
}
