//! DNS: what planes answer, what they pass on, and that names are found whatever becomes of a plane. The resolver that is
//! asked answers every name with one address that is nobody's: by it one sees who answered.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;

use crate::mesh::standard::Standard;
use crate::mesh::{Mesh, Pod, PodPlan, eventually};
use crate::programs::names::{MANY, SAID_V4, SAID_V6, Told};
use crate::programs::port;
use crate::report::Report;

mod away;

/// Namespaces whose pods' planes answer.
const CAPTURED: [&str; 2] = ["sidecar", "ambient"];
/// The service that is asked for.
const SERVER: &str = "server.none.svc.cluster.local.";

/// A mesh in which one pod is everybody's resolver.
struct Names {
    standard: Standard,
    resolver: Pod,
    /// The virtual addresses of [`SERVER`], IPv4 first.
    server: Vec<IpAddr>,
}

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let names = Names::up().await?;
    for namespace in CAPTURED {
        let client = names.standard.client(namespace)?.clone();
        let mut check = |name: &str, result: anyhow::Result<String>| {
            report.check(format!("{namespace}: {name}"), result);
        };
        check(
            "a service's name, over UDP and TCP, of both families",
            names.service(&client).await,
        );
        check(
            "the client's own resolver finds names by its search path",
            names.searched(&client).await,
        );
        check(
            "names that are not known are passed on, over the same transport",
            names.unknown(&client).await,
        );
        check(
            "a headless service and its members",
            names.headless(&client, namespace).await,
        );
        check(
            "a resolver that does not answer, or is not there",
            names.failing(&client).await,
        );
        check(
            "queries are counted by what became of them",
            names.counted(&client).await,
        );
    }
    let untouched = names.standard.client("none")?.clone();
    report.check(
        "none: the resolver answers everything",
        names.by_resolver(&untouched).await,
    );
    away::run(&names, report).await?;
    names.standard.mesh.down().await
}

impl Names {
    async fn up() -> anyhow::Result<Self> {
        let standard = Standard::up(&super::mesh_of("dns"), &[]).await?;
        let plan = PodPlan {
            namespace: "none".into(),
            name: "resolver".into(),
            node: "n2".into(),
            account: "resolver".into(),
            ..PodPlan::default()
        };
        let program = standard.mesh.program()?;
        let resolver = standard.mesh.run(&plan, &[&program, "resolve"]).await?;
        let services: Api<Service> = Api::namespaced(standard.mesh.client().await?, "none");
        let spec = services.get("server").await?.spec.context("a service's spec")?;
        let mut server: Vec<IpAddr> = Vec::new();
        for address in spec.cluster_ips.into_iter().flatten() {
            server.push(address.parse()?);
        }
        server.sort();
        let names = Self {
            standard,
            resolver,
            server,
        };
        for namespace in ["none", "sidecar", "ambient"] {
            names.point(names.standard.client(namespace)?)?;
            let client = names.standard.client(namespace)?.clone();
            if namespace != "none" {
                names
                    .answered(&client)
                    .await
                    .with_context(|| format!("in {namespace}"))?;
            }
        }
        Ok(names)
    }

    fn mesh(&self) -> &Mesh {
        &self.standard.mesh
    }

    /// Has a pod ask the resolver, as a kubelet would.
    fn point(&self, pod: &Pod) -> anyhow::Result<()> {
        let directory = self.mesh().pod_directory(pod);
        let text = format!(
            "nameserver {}\nsearch {}.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
            self.resolver.addresses[0], pod.namespace
        );
        std::fs::write(directory.join("resolv.conf"), text).context("writing a pod's resolv.conf")
    }

    /// Waits until a plane answers.
    async fn answered(&self, client: &Pod) -> anyhow::Result<()> {
        eventually(Duration::from_secs(10), async || {
            let told = self.ask(client, &[], &[SERVER]).await?;
            ensure!(told[0].addresses == self.server[..1], "{told:?}");
            Ok(())
        })
        .await
    }

    async fn ask(&self, client: &Pod, flags: &[&str], names: &[&str]) -> anyhow::Result<Vec<Told>> {
        let server = self.resolver.addresses[0].to_string();
        self.ask_at(client, &server, flags, names).await
    }

    async fn ask_at(
        &self,
        client: &Pod,
        server: &str,
        flags: &[&str],
        names: &[&str],
    ) -> anyhow::Result<Vec<Told>> {
        let arguments = [&["ask", "--server", server], flags, names].concat();
        self.mesh().program_in(client, &arguments).await
    }

    async fn service(&self, client: &Pod) -> anyhow::Result<String> {
        let resolver_v6 = self.resolver.over(true, 53).ip().to_string();
        for resolver in [self.resolver.addresses[0].to_string(), resolver_v6] {
            for flags in [&[][..], &["--edns"], &["--tcp"]] {
                let twice = [SERVER, "SERVER.None.svc.cluster.local."];
                for told in self.ask_at(client, &resolver, flags, &twice).await? {
                    ensure!(
                        told.addresses == self.server[..1] && told.lifetime == Some(30),
                        "{told:?}"
                    );
                }
                let v6 = [flags, &["--v6"]].concat();
                for told in self.ask_at(client, &resolver, &v6, &twice).await? {
                    ensure!(
                        told.addresses == self.server[1..] && told.code == "NoError",
                        "{told:?}"
                    );
                }
            }
        }
        Ok(format!(
            "{SERVER} is {:?}, by either resolver address",
            self.server
        ))
    }

    async fn searched(&self, client: &Pod) -> anyhow::Result<String> {
        let (known, said) = (self.server[0].to_string(), SAID_V4.to_string());
        // The resolver answers for every name, also for one with a search domain after it.
        for (name, expected) in [
            ("server.none", &known),
            (SERVER, &known),
            ("www.example.com", &said),
        ] {
            let told = self
                .mesh()
                .exec(client, &["getent", "-s", "dns", "ahostsv4", name])
                .await?;
            ensure!(told.starts_with(expected.as_str()), "{name}: {told}");
        }
        Ok(format!("server.none is {known}"))
    }

    async fn unknown(&self, client: &Pod) -> anyhow::Result<String> {
        let names = [
            "www.example.com.",
            "missing.example.com.",
            "only-there.none.svc.cluster.local.",
        ];
        for flags in [&[][..], &["--edns"], &["--tcp"]] {
            let told = self.ask(client, flags, &names).await?;
            ensure!(
                told[0].addresses == [IpAddr::V4(SAID_V4)] && told[0].lifetime == Some(60),
                "{told:?}"
            );
            ensure!(told[1].code == "NXDomain", "{told:?}");
            ensure!(told[2].addresses == [IpAddr::V4(SAID_V4)], "{told:?}");
        }
        let v6 = self.ask(client, &["--v6"], &["www.example.com."]).await?;
        ensure!(v6[0].addresses == [IpAddr::V6(SAID_V6)], "{v6:?}");
        let large = self.ask(client, &[], &["large.example.com."]).await?;
        ensure!(large[0].cut, "{large:?}");
        let large = self.ask(client, &["--tcp"], &["large.example.com."]).await?;
        ensure!(!large[0].cut && large[0].addresses.len() == MANY, "{large:?}");
        Ok("known elsewhere, missing, and too large for a datagram".into())
    }

    async fn headless(&self, client: &Pod, namespace: &str) -> anyhow::Result<String> {
        let mesh = self.mesh();
        mesh.apply(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: member, namespace: {namespace}}}\n\
             spec: {{clusterIP: None, selector: {{app: member}}, ports: [{{port: {}}}]}}\n",
            port::HTTP
        ))
        .await?;
        let mut members = Vec::new();
        for index in 0..2 {
            let plan = PodPlan {
                namespace: namespace.into(),
                name: format!("member-{index}"),
                node: "n2".into(),
                account: "server".into(),
                labels: vec!["app=member".into()],
                ports: vec![port::HTTP],
                subdomain: Some("member".into()),
                ..PodPlan::default()
            };
            let program = mesh.program()?;
            members.push(
                mesh.run(&plan, &[&program, "serve", "--name", &plan.name])
                    .await?,
            );
        }
        let mut expected: Vec<IpAddr> = members.iter().map(|member| member.addresses[0]).collect();
        expected.sort();
        let service = format!("member.{namespace}.svc.cluster.local.");
        eventually(Duration::from_secs(10), async || {
            let mut told = self.ask(client, &[], &[&service]).await?;
            told[0].addresses.sort();
            ensure!(
                told[0].addresses == expected && told[0].lifetime == Some(5),
                "{told:?}"
            );
            let own = format!("member-1.{service}");
            let told = self.ask(client, &[], &[&own]).await?;
            ensure!(told[0].addresses == members[1].addresses[..1], "{told:?}");
            Ok(format!("{service} has {} addresses, {own} one", expected.len()))
        })
        .await
    }

    async fn failing(&self, client: &Pod) -> anyhow::Result<String> {
        let patient = ["--again", "6000"];
        let silent = self.ask(client, &patient, &["silent.example.com."]).await?;
        ensure!(
            silent[0].code == "ServFail" && silent[0].milliseconds < 5000,
            "{silent:?}"
        );
        let tcp = self.ask(client, &["--tcp"], &["silent.example.com."]).await?;
        ensure!(tcp[0].code == "ServFail", "{tcp:?}");
        // A pod where no resolver is.
        let nobody = self.standard.server("none", "n1")?.addresses[0].to_string();
        let refused = self
            .ask_at(client, &nobody, &patient, &["www.example.com."])
            .await?;
        ensure!(
            refused[0].code == "ServFail" && refused[0].milliseconds < 3000,
            "{refused:?}"
        );
        let known = self.ask_at(client, &nobody, &[], &[SERVER]).await?;
        ensure!(known[0].addresses == self.server[..1], "{known:?}");
        Ok(format!(
            "SERVFAIL after {} ms and {} ms; what is known is answered",
            silent[0].milliseconds, refused[0].milliseconds
        ))
    }

    async fn counted(&self, client: &Pod) -> anyhow::Result<String> {
        let mut seen = Vec::new();
        for outcome in ["answered", "forwarded", "failed"] {
            let labels = [("outcome", outcome)];
            let count = self
                .mesh()
                .counted(client, "trefoil_dns_queries_total", &labels)
                .await?;
            ensure!(count > 0.0, "no query was {outcome}");
            seen.push(format!("{count} {outcome}"));
        }
        Ok(seen.join(", "))
    }

    async fn by_resolver(&self, client: &Pod) -> anyhow::Result<String> {
        for flags in [&[][..], &["--tcp"]] {
            let told = self.ask(client, flags, &[SERVER]).await?;
            ensure!(told[0].addresses == [IpAddr::V4(SAID_V4)], "{told:?}");
        }
        Ok(format!("{SERVER} is what the resolver says: {SAID_V4}"))
    }
}

impl Mesh {
    /// Where a pod's own files are.
    fn pod_directory(&self, pod: &Pod) -> PathBuf {
        self.directory().join("pods").join(&pod.namespace).join(&pod.name)
    }
}
