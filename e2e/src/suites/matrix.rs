//! The matrix: every mode of client against every mode of server, on the same node and on another, over both
//! families, in every protocol; without policy, and with one that allows or denies exactly one identity. The
//! verdicts are what shows which identity the server's side saw.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{bail, ensure};

use crate::capture::Capture;
use crate::mesh::eventually;
use crate::mesh::standard::{NAMESPACES, NODES, Standard};
use crate::programs::call::{Calls, Target};
use crate::programs::port;
use crate::programs::session::{Outcome, Protocol};
use crate::report::{Report, table};

const PROTOCOLS: [Protocol; 5] = [
    Protocol::H1,
    Protocol::H2,
    Protocol::Grpc,
    Protocol::WebSocket,
    Protocol::Tcp,
];

/// The policy in force in the namespaces that the mesh guards.
#[derive(Clone, Copy, Debug)]
enum Policy {
    None,
    Allow(&'static str),
    Deny(&'static str),
}

const POLICIES: [Policy; 5] = [
    Policy::None,
    Policy::Allow("sidecar"),
    Policy::Allow("ambient"),
    Policy::Deny("sidecar"),
    Policy::Deny("ambient"),
];

impl Policy {
    /// Whether the client of one namespace may reach the servers of another: what the design says, not
    /// what anything measured.
    fn allows(self, client: &str, server: &str) -> bool {
        match self {
            _ if server == "none" => true,
            Self::None => true,
            Self::Allow(only) => client == only,
            Self::Deny(but) => client != but,
        }
    }

    fn objects(self) -> Option<String> {
        let (action, who) = match self {
            Self::None => return None,
            Self::Allow(who) => ("Allow", who),
            Self::Deny(who) => ("Deny", who),
        };
        let one = |namespace: &&str| {
            format!(
                "apiVersion: trefoil.dev/v1alpha1\nkind: AuthorizationPolicy\n\
                 metadata: {{name: matrix, namespace: {namespace}}}\n\
                 spec: {{action: {action}, rules: [{{from: [{{principals: [cluster.local/ns/{who}/sa/client]}}]}}]}}\n"
            )
        };
        let documents: Vec<String> = NAMESPACES[1..].iter().map(one).collect();
        Some(documents.join("---\n"))
    }
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("no policy"),
            Self::Allow(who) => write!(f, "allow {who}"),
            Self::Deny(who) => write!(f, "deny {who}"),
        }
    }
}

/// One cell of the table: client's mode, server's mode, server's node, IPv6.
type Cell = (&'static str, &'static str, &'static str, bool);

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let standard = Standard::up(&super::mesh_of("matrix"), &[]).await?;
    let mut verdicts: BTreeMap<Cell, Vec<String>> = BTreeMap::new();
    for policy in POLICIES {
        enforce(&standard, policy).await?;
        for client in NAMESPACES {
            for server in NAMESPACES {
                let name = format!("{client} → {server}, {policy}");
                let result = cells(&standard, policy, client, server, &mut verdicts).await;
                report.check(name, result);
            }
        }
    }
    standard
        .mesh
        .delete("authorizationpolicy", "sidecar", "matrix")
        .await?;
    standard
        .mesh
        .delete("authorizationpolicy", "ambient", "matrix")
        .await?;
    print_table(&verdicts);
    encryption(&standard, report).await?;
    standard.mesh.down().await
}

/// Puts a policy in force and waits until every guarded server enforces it for every client.
async fn enforce(standard: &Standard, policy: Policy) -> anyhow::Result<()> {
    if let Some(objects) = policy.objects() {
        standard.mesh.apply(&objects).await?;
    }
    for client in NAMESPACES {
        for server in NAMESPACES {
            for node in NODES {
                let address = standard.server(server, node)?.at(port::TCP);
                let target = Target {
                    protocol: Protocol::Tcp,
                    address,
                };
                let wanted = policy.allows(client, server);
                eventually(Duration::from_secs(20), async || {
                    let calls = standard.call(client, &[target], 1).await?;
                    ensure!(
                        calls.iter().all(|calls| (calls.served() == 1) == wanted),
                        "{client} → {server} on {node}, {policy}: {:?}",
                        calls[0].outcomes
                    );
                    Ok(())
                })
                .await?;
            }
        }
    }
    Ok(())
}

/// All cells of a pair of modes under a policy: two attempts each, of which none may go otherwise.
async fn cells(
    standard: &Standard,
    policy: Policy,
    client: &'static str,
    server: &'static str,
    verdicts: &mut BTreeMap<Cell, Vec<String>>,
) -> anyhow::Result<String> {
    let source = standard.client(client)?;
    let wanted = policy.allows(client, server);
    let mut wrong = Vec::new();
    let mut right = 0;
    for node in NODES {
        for v6 in [false, true] {
            let pod = standard.server(server, node)?;
            let targets = PROTOCOLS.map(|protocol| {
                let port = if protocol == Protocol::Tcp {
                    port::TCP
                } else {
                    port::HTTP
                };
                Target {
                    protocol,
                    address: pod.over(v6, port),
                }
            });
            let calls = standard.call(client, &targets, 2).await?;
            let served = calls.iter().filter(|calls| calls.served() == 2).count();
            verdicts
                .entry((client, server, node, v6))
                .or_default()
                .push(format!("{served}/{}", targets.len()));
            let who = format!("{server}/server-{node}");
            // Keeping the client's address takes a capability, which a sidecar has not.
            let seen = if server == "sidecar" { pod } else { source };
            for calls in &calls {
                match judge(calls, wanted, &who, seen.over(v6, 0).ip()) {
                    Ok(()) => right += 1,
                    Err(error) => wrong.push(format!("{node} {}: {error}", calls.target)),
                }
            }
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {} cells: {}",
        wrong.len(),
        right + wrong.len(),
        wrong.join("; ")
    );
    // On either node, over either family.
    let all = NODES.len() * 2 * PROTOCOLS.len();
    ensure!(right == all, "{right} of {all} cells were tried");
    Ok(format!(
        "{right} cells, all {}",
        if wanted { "served" } else { "refused" }
    ))
}

/// Served by the right server, which saw the right address; or refused at once.
fn judge(calls: &Calls, wanted: bool, who: &str, seen: std::net::IpAddr) -> anyhow::Result<()> {
    for outcome in &calls.outcomes {
        match outcome {
            Outcome::Served(answer) if wanted => {
                ensure!(answer.server == who, "answered by {}", answer.server);
                ensure!(answer.seen.ip() == seen, "the server saw {}", answer.seen);
            }
            Outcome::Late => bail!("nothing came in time"),
            Outcome::Served(_) => bail!("served"),
            refused if wanted => bail!("{refused:?}"),
            _ => {}
        }
    }
    Ok(())
}

fn print_table(verdicts: &BTreeMap<Cell, Vec<String>>) {
    let mut head: Vec<String> = ["client", "server", "server's node", "family"]
        .map(String::from)
        .into();
    head.extend(POLICIES.iter().map(ToString::to_string));
    let mut rows = vec![head];
    for ((client, server, node, v6), cells) in verdicts {
        let place = if *node == "n1" { "same" } else { "other" };
        let family = if *v6 { "IPv6" } else { "IPv4" };
        let mut row: Vec<String> = [client, server, place, family]
            .map(|text| (*text).to_owned())
            .into();
        row.extend(cells.iter().cloned());
        rows.push(row);
    }
    println!(
        "\nprotocols served, of HTTP/1.1, HTTP/2, gRPC and TCP:\n{}",
        table(&rows)
    );
}

/// What the wire shows: the marker in the clear where nothing protects it, never where the mesh does.
async fn encryption(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    for client in NAMESPACES {
        for server in NAMESPACES {
            for (node, place, netns) in [
                ("n1", "same node", standard.mesh.node("n1")),
                ("n2", "other node", standard.mesh.lan()),
            ] {
                let protected = client != "none" && server != "none";
                let result = on_the_wire(standard, client, server, node, &netns, protected).await;
                report.check(format!("on the wire, {client} → {server}, {place}"), result);
            }
        }
    }
    Ok(())
}

async fn on_the_wire(
    standard: &Standard,
    client: &str,
    server: &str,
    node: &str,
    netns: &str,
    protected: bool,
) -> anyhow::Result<String> {
    let pod = standard.server(server, node)?;
    let targets = [false, true].map(|v6| Target {
        protocol: Protocol::H1,
        address: pod.over(v6, port::HTTP),
    });
    let capture = Capture::start(netns).await?;
    let calls = standard.call(client, &targets, 5).await?;
    let captured = capture.stop().await?;
    let served: usize = calls.iter().map(Calls::served).sum();
    ensure!(served == 10, "{served} of 10 calls were served");
    if protected {
        ensure!(
            captured.plaintext == 0,
            "{} plaintext markers",
            captured.plaintext
        );
    } else {
        ensure!(captured.plaintext > 0, "the capture saw nothing: {captured:?}");
    }
    Ok(format!(
        "10 calls, {} packets, {} of tunnels, {} plaintext markers",
        captured.packets, captured.tunnelled, captured.plaintext
    ))
}
