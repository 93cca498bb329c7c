//! Who may ask: everything that must be refused, by the authority and by both planes, beside what must be
//! granted, so that a refusal of everything would not pass for a good one.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Pod as PodObject;
use kube::Api;

use crate::authority::Answer;
use crate::mesh::Pod;
use crate::mesh::standard::Standard;
use crate::report::Report;

mod presented;
mod tunnels;

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let standard = Standard::up(&super::mesh_of("who-may-ask"), &[]).await?;
    certificates(&standard, report).await?;
    impersonation(&standard, report).await?;
    tunnels::run(&standard, report).await?;
    presented::run(&standard, report).await?;
    standard.mesh.down().await
}

/// What is asked of the authority.
pub(super) struct Wish<'a> {
    pub(super) token: PathBuf,
    pub(super) uris: Vec<&'a str>,
    pub(super) impersonate: Option<&'a str>,
}

/// Asks and stores what comes under a name.
pub(super) async fn ask(
    standard: &Standard,
    name: &str,
    wish: &Wish<'_>,
) -> anyhow::Result<(Answer, PathBuf)> {
    let mesh = &standard.mesh;
    let out = mesh.scratch()?.join(name);
    let (control_plane, root) = (mesh.control_plane(), mesh.root());
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let (token, root, folder) = (text(&wish.token), text(&root), text(&out));
    let mut arguments = vec![
        "certificate",
        "--control-plane",
        &control_plane,
        "--token",
        &token,
    ];
    arguments.extend(["--root", &root, "--out", &folder]);
    for uri in &wish.uris {
        arguments.extend(["--uri", uri]);
    }
    if let Some(identity) = wish.impersonate {
        arguments.extend(["--impersonate", identity]);
    }
    Ok((mesh.program_at(&mesh.lan(), &arguments).await?, out))
}

/// Fails where it was signed.
pub(super) fn refused(answer: &Answer) -> anyhow::Result<String> {
    match answer {
        Answer::Refused { code, message } => Ok(format!("{code}: {message}")),
        Answer::Signed(uris) => bail!("signed for {uris:?}"),
    }
}

fn signed_for(answer: &Answer, identity: &str) -> anyhow::Result<String> {
    match answer {
        Answer::Signed(uris) => {
            ensure!(uris == &[identity.to_owned()], "signed for {uris:?}");
            Ok(format!("signed for {identity}"))
        }
        Answer::Refused { code, message } => bail!("{code}: {message}"),
    }
}

/// Asks, and compares what came with what should.
async fn judged(standard: &Standard, wish: &Wish<'_>, expected: Option<&str>) -> anyhow::Result<String> {
    let (answer, _) = ask(standard, "case", wish).await?;
    match expected {
        Some(identity) => signed_for(&answer, identity),
        None => refused(&answer),
    }
}

async fn certificates(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let mesh = &standard.mesh;
    let pod = standard.client("sidecar")?;
    let own = "spiffe://cluster.local/ns/sidecar/sa/client";
    let other = "spiffe://cluster.local/ns/sidecar/sa/server";
    let account = ("sidecar", "client");
    let token = mesh.token(account, Some(pod), "trefoil-ca", 3600).await?;

    let mut case = async |name: &str, wish: Wish<'_>, expected: Option<&str>| {
        report.check(name, judged(standard, &wish, expected).await);
    };
    let wish = |uris, impersonate| Wish {
        token: token.clone(),
        uris,
        impersonate,
    };
    case("a workload asks for itself", wish(vec![own], None), Some(own)).await;
    case(
        "a workload asks for another identity",
        wish(vec![other], None),
        None,
    )
    .await;
    case(
        "a workload asks on behalf of another",
        wish(vec![other], Some(other)),
        None,
    )
    .await;
    case("two URI names in one request", wish(vec![own, other], None), None).await;
    let foreign = "spiffe://elsewhere/ns/sidecar/sa/client";
    case("a foreign trust domain", wish(vec![foreign], None), None).await;

    let wrong = mesh.token(account, Some(pod), "somebody-else", 3600).await?;
    case(
        "a token for another audience",
        Wish {
            token: wrong,
            uris: vec![own],
            impersonate: None,
        },
        None,
    )
    .await;
    let forged = mesh.scratch()?.join("forged");
    let genuine = std::fs::read_to_string(&token)?;
    let (signed, _) = genuine.rsplit_once('.').context("a token of three parts")?;
    std::fs::write(&forged, format!("{signed}.AAAA"))?;
    case(
        "a forged token",
        Wish {
            token: forged,
            uris: vec![own],
            impersonate: None,
        },
        None,
    )
    .await;
    let brief = mesh.token(account, Some(pod), "trefoil-ca", 1).await?;
    // Expiry is a matter of the clock alone.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    case(
        "an expired token",
        Wish {
            token: brief,
            uris: vec![own],
            impersonate: None,
        },
        None,
    )
    .await;

    Ok(())
}

/// What a node's proxy may ask for: the workloads of its node, nothing else.
async fn impersonation(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let mesh = &standard.mesh;
    let mut case = async |name: &str, wish: Wish<'_>, expected: Option<&str>| {
        report.check(name, judged(standard, &wish, expected).await);
    };
    let node = node_proxy(standard, "n2").await?;
    let token = mesh
        .token(
            ("trefoil-system", "trefoil-node"),
            Some(&node),
            "trefoil-ca",
            3600,
        )
        .await?;
    let wish = |uris, impersonate| Wish {
        token: token.clone(),
        uris,
        impersonate,
    };
    let here = "spiffe://cluster.local/ns/ambient/sa/server";
    let elsewhere = "spiffe://cluster.local/ns/ambient/sa/client";
    case(
        "a node proxy asks for a workload that it runs",
        wish(vec![here], Some(here)),
        Some(here),
    )
    .await;
    case(
        "a node proxy asks for a workload that it does not run",
        wish(vec![elsewhere], Some(elsewhere)),
        None,
    )
    .await;
    case(
        "a node proxy asks for the control plane",
        wish(
            vec!["spiffe://cluster.local/ns/trefoil-system/sa/trefoil-control-plane"],
            Some("spiffe://cluster.local/ns/trefoil-system/sa/trefoil-control-plane"),
        ),
        None,
    )
    .await;
    let unbound = mesh
        .token(("trefoil-system", "trefoil-node"), None, "trefoil-ca", 3600)
        .await?;
    case(
        "a node's token that is bound to no pod",
        Wish {
            token: unbound,
            uris: vec![here],
            impersonate: Some(here),
        },
        None,
    )
    .await;
    Ok(())
}

/// The pod of a node's proxy.
async fn node_proxy(standard: &Standard, node: &str) -> anyhow::Result<Pod> {
    let pods: Api<PodObject> = Api::namespaced(standard.mesh.client().await?, "trefoil-system");
    for pod in pods.list(&kube::api::ListParams::default()).await? {
        let spec = pod.spec.unwrap_or_default();
        let (Some(name), Some(on)) = (pod.metadata.name, spec.node_name) else {
            continue;
        };
        if on == node && spec.service_account_name.as_deref() == Some("trefoil-node") {
            return Ok(Pod {
                namespace: "trefoil-system".into(),
                name,
                node: on,
                addresses: Vec::new(),
                sidecar: None,
            });
        }
    }
    bail!("no pod of the node proxy on {node}")
}
