//! Every client, every server whose requests are read, every way of addressing it, every protocol, under a policy
//! that can only be decided by whoever reads HTTP and knows the client. What is allowed is written down here
//! from the design and from nothing that was measured.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::ensure;

use super::{SOON, policy, virtual_address};
use crate::mesh::eventually;
use crate::mesh::standard::{NAMESPACES, NODES, Standard};
use crate::programs::call::{Calls, Target};
use crate::programs::port;
use crate::programs::session::{Outcome, Protocol};
use crate::report::{Report, table};

/// Clients in sidecars may do what HTTP/1.1 is used for here, ambient ones what HTTP/2 is.
const POLICY: &str = "{action: Allow, rules: [\
    {from: [{principals: [cluster.local/ns/sidecar/sa/client]}], \
     to: [{methods: [POST], paths: [/]}, {methods: [GET], paths: [/socket]}]}, \
    {from: [{principals: [cluster.local/ns/ambient/sa/client]}], to: [{paths: [/trefoil.test.Echo/*]}]}]}";

/// PERMISSION_DENIED.
const DENIED: &str = "grpc-status 7";

const PROTOCOLS: [Protocol; 5] = [
    Protocol::H1,
    Protocol::H2,
    Protocol::Grpc,
    Protocol::WebSocket,
    Protocol::Tcp,
];

/// Whether the policy allows it. Bytes are no request: nobody may send them.
fn allows(client: &str, protocol: Protocol) -> bool {
    match protocol {
        Protocol::H1 | Protocol::WebSocket => client == "sidecar",
        Protocol::H2 | Protocol::Grpc => client == "ambient",
        Protocol::Tcp | Protocol::Greeting => false,
    }
}

/// To `servers`, by namespace; the policy is in force in their namespaces. Clients outside of the mesh, of whom no
/// request could be allowed, are answered in HTTP only where `strangers` are.
pub(in crate::suites) async fn run(
    standard: &Standard,
    report: &mut Report,
    servers: &[&'static str],
    strangers: bool,
) -> anyhow::Result<()> {
    let mut shown = BTreeMap::new();
    for (spec, what) in [
        (None, "no policy"),
        (Some(POLICY), "a policy that asks about HTTP"),
    ] {
        for namespace in servers {
            if spec.is_some() {
                policy(&standard.mesh, namespace, spec).await?;
            }
        }
        for server in servers {
            let targets = targets(standard, server).await?;
            for client in NAMESPACES {
                let wanted = Wanted {
                    allowed: &|protocol| spec.is_none() || allows(client, protocol),
                    answered: strangers || client != "none",
                };
                let result = verdicts(standard, client, &targets, wanted, &mut shown, (server, what)).await;
                report.check(format!("{client} → {server} by every way, {what}"), result);
            }
        }
    }
    for namespace in servers {
        policy(&standard.mesh, namespace, None).await?;
    }
    print_table(&shown);
    Ok(())
}

/// What is to become of the attempts of a client.
struct Wanted<'a> {
    allowed: &'a dyn Fn(Protocol) -> bool,
    /// Refusals are told in HTTP.
    answered: bool,
}

/// A way to a server, and what it is called.
struct Aim {
    way: String,
    target: Target,
}

/// By the service's address and by the pods' own, on both nodes and over both families.
async fn targets(standard: &Standard, server: &str) -> anyhow::Result<Vec<Aim>> {
    let service = virtual_address(&standard.mesh, server, "server", 80).await?;
    let mut aims = Vec::new();
    let mut aim = |way: &str, protocol, address: SocketAddr| {
        aims.push(Aim {
            way: way.to_owned(),
            target: Target { protocol, address },
        });
    };
    for protocol in PROTOCOLS {
        if protocol != Protocol::Tcp {
            aim("service", protocol, service);
        }
        for node in NODES {
            for (v6, family) in [(false, "IPv4"), (true, "IPv6")] {
                let listens = if protocol == Protocol::Tcp {
                    port::TCP
                } else {
                    port::HTTP
                };
                let address = standard.server(server, node)?.over(v6, listens);
                aim(&format!("pod on {node}, {family}"), protocol, address);
            }
        }
    }
    Ok(aims)
}

type Shown = BTreeMap<(&'static str, String, Protocol, &'static str), BTreeMap<&'static str, String>>;

/// All ways of a pair, two attempts each, none of which may go otherwise.
async fn verdicts(
    standard: &Standard,
    client: &'static str,
    aims: &[Aim],
    wanted: Wanted<'_>,
    shown: &mut Shown,
    (server, what): (&'static str, &'static str),
) -> anyhow::Result<String> {
    let targets: Vec<Target> = aims.iter().map(|aim| aim.target).collect();
    let calls = eventually(SOON, async || {
        let calls = standard.call(client, &targets, 2).await?;
        for (aim, calls) in aims.iter().zip(&calls) {
            as_wanted(calls, &wanted)
                .map_err(|error| error.context(format!("{} {}", aim.target.protocol, aim.way)))?;
        }
        Ok(calls)
    })
    .await?;
    for (aim, calls) in aims.iter().zip(&calls) {
        let row = shown
            .entry((server, aim.way.clone(), aim.target.protocol, what))
            .or_default();
        row.insert(
            client,
            if calls.served() > 0 {
                "✓".into()
            } else {
                word(&calls.outcomes[0])
            },
        );
    }
    let allowed = aims
        .iter()
        .filter(|aim| (wanted.allowed)(aim.target.protocol))
        .count();
    Ok(format!(
        "{allowed} of {} ways allowed, as it should be",
        aims.len()
    ))
}

/// What is refused must be refused by an answer where the client speaks HTTP and its requests are read.
fn as_wanted(calls: &Calls, wanted: &Wanted<'_>) -> anyhow::Result<()> {
    let Wanted {
        allowed,
        answered: told,
    } = wanted;
    let wanted = allowed(calls.target.protocol);
    let served = calls.served();
    ensure!(
        served == if wanted { calls.outcomes.len() } else { 0 },
        "{:?}",
        calls.outcomes
    );
    let refusal = match calls.target.protocol {
        Protocol::H1 | Protocol::H2 | Protocol::WebSocket => "403",
        Protocol::Grpc => DENIED,
        Protocol::Tcp | Protocol::Greeting => return Ok(()),
    };
    let answered = |outcome: &Outcome| matches!(outcome, Outcome::Failed(said) if said.contains(refusal));
    ensure!(
        wanted || !told || calls.outcomes.iter().all(answered),
        "not refused with {refusal}: {:?}",
        calls.outcomes
    );
    Ok(())
}

fn word(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Served(_) => "✓".into(),
        Outcome::Failed(said) if said.contains("403") => "403".into(),
        Outcome::Failed(said) if said.contains(DENIED) => DENIED.into(),
        Outcome::Failed(_) => "denied".into(),
        Outcome::Reset | Outcome::Closed => "reset".into(),
        other => format!("{other:?}"),
    }
}

fn print_table(shown: &Shown) {
    let mut rows = vec![
        ["server", "way", "protocol", "policy"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows[0].extend(NAMESPACES.map(str::to_owned));
    for ((server, way, protocol, what), verdicts) in shown {
        let mut row = vec![
            (*server).to_owned(),
            way.clone(),
            protocol.to_string(),
            (*what).to_owned(),
        ];
        row.extend(NAMESPACES.map(|client| verdicts.get(client).cloned().unwrap_or_default()));
        rows.push(row);
    }
    print!("{}", table(&rows));
}
