//! Who is believed when it speaks for another: a server's plane believes its own waypoint, a waypoint the
//! server that hands over to it, and nobody else. The peer is the tests' own, with whatever certificate.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod as PodObject;
use kube::Api;
use kube::api::ListParams;

use super::{NAME, SOON, policy};
use crate::authority;
use crate::hbone::client::Seen;
use crate::mesh::standard::Standard;
use crate::mesh::{Mesh, eventually};
use crate::programs::port;
use crate::report::Report;

/// The one client that is allowed.
const FRIEND: &str = "spiffe://cluster.local/ns/sidecar/sa/client";
const POLICY: &str = "{action: Allow, rules: [{from: [{principals: [cluster.local/ns/sidecar/sa/client]}]}]}";

/// One who knocks: whose certificate it has, and whether it gets through by claiming to speak for the friend.
struct Knock<'a> {
    who: &'a str,
    identity: &'a str,
    claims: bool,
    let_in: bool,
}

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let mesh = &standard.mesh;
    let server = standard.server("ambient", "n2")?;
    policy(mesh, "ambient", Some(POLICY)).await?;
    let application = server.at(port::TCP);
    let waypoint = SocketAddr::new(waypoint_address(mesh).await?, 15008);
    let plane = SocketAddr::new(application.ip(), 15008);
    let knocks = |friend_by_guard| {
        let knock = |who, identity, claims, let_in| Knock {
            who,
            identity,
            claims,
            let_in,
        };
        [
            knock("the friend itself", FRIEND, false, true),
            knock(
                "a stranger of the mesh",
                "spiffe://cluster.local/ns/none/sa/client",
                false,
                false,
            ),
            knock(
                "a stranger that claims",
                "spiffe://cluster.local/ns/none/sa/client",
                true,
                false,
            ),
            knock(
                "another waypoint",
                "spiffe://cluster.local/ns/sidecar/sa/waypoint",
                true,
                false,
            ),
            knock(
                "the guard",
                "spiffe://cluster.local/ns/ambient/sa/waypoint",
                true,
                friend_by_guard,
            ),
            knock(
                "a sibling of the server",
                "spiffe://cluster.local/ns/ambient/sa/server",
                true,
                false,
            ),
        ]
    };
    for (at, listener, friend_by_guard) in [
        ("the server's plane", plane, true),
        ("the waypoint", waypoint, false),
    ] {
        for knock in knocks(friend_by_guard) {
            let words = if knock.claims {
                " and claims to speak for the friend"
            } else {
                ""
            };
            let result = knocked(standard, listener, application, &knock).await;
            report.check(format!("{} at {at}{words}", knock.who), result);
        }
    }
    policy(mesh, "ambient", None).await?;
    report.check(
        "a pod that is not the waypoint asks for its identity",
        impostor(standard).await,
    );
    Ok(())
}

async fn knocked(
    standard: &Standard,
    listener: SocketAddr,
    application: SocketAddr,
    knock: &Knock<'_>,
) -> anyhow::Result<&'static str> {
    let folder = knock.identity.replace([':', '/'], "-");
    let credentials = standard.mesh.forged(&folder, &[knock.identity]).await?;
    eventually(SOON, async || {
        let seen = tunnel(standard, listener, application, &credentials, knock.claims).await?;
        let through = seen.status == Some(200) && seen.line.is_some();
        ensure!(through == knock.let_in, "{seen:?}");
        // Bytes are decided about once it is known that they are no HTTP: the stream is open by then, and reset.
        let reset = seen.status == Some(200)
            && seen
                .error
                .as_deref()
                .is_some_and(|error| error.contains("stream error"));
        ensure!(
            through || reset || seen.status == Some(401),
            "not refused by policy: {seen:?}"
        );
        Ok(if through { "let in" } else { "refused" })
    })
    .await
}

/// A tunnel of our own, from where no plane is in the way.
async fn tunnel(
    standard: &Standard,
    listener: SocketAddr,
    application: SocketAddr,
    credentials: &Path,
    claims: bool,
) -> anyhow::Result<Seen> {
    let (to, authority) = (listener.to_string(), application.to_string());
    let claim = format!("trefoil-peer={FRIEND}");
    let folder = credentials.to_string_lossy();
    let mut arguments = vec![
        "hbone-call",
        "--to",
        &to,
        "--authority",
        &authority,
        "--credentials",
        &folder,
    ];
    if claims {
        arguments.extend(["--header", &claim]);
    }
    standard
        .mesh
        .program_in(standard.client("none")?, &arguments)
        .await
}

async fn waypoint_address(mesh: &Mesh) -> anyhow::Result<std::net::IpAddr> {
    let pods: Api<PodObject> = Api::namespaced(mesh.client().await?, "ambient");
    let of_waypoint = ListParams::default().labels(&format!("gateway.networking.k8s.io/gateway-name={NAME}"));
    let pods = pods.list(&of_waypoint).await?;
    let status = pods.items.first().and_then(|pod| pod.status.as_ref());
    let address = status
        .and_then(|status| status.pod_ip.as_ref())
        .context("the waypoint has no address")?;
    Ok(address.parse()?)
}

/// A token of the waypoint's account that is bound to another pod gets no certificate.
async fn impostor(standard: &Standard) -> anyhow::Result<String> {
    let mesh = &standard.mesh;
    let token = mesh
        .token(
            ("ambient", NAME),
            Some(standard.client("ambient")?),
            "trefoil-ca",
            3600,
        )
        .await;
    let Ok(token) = token else {
        return Ok("not even a token".into());
    };
    let (control_plane, root) = (mesh.control_plane(), mesh.root());
    let out = mesh.scratch()?.join("impostor");
    let (token, root, out) = (
        token.to_string_lossy(),
        root.to_string_lossy(),
        out.to_string_lossy(),
    );
    let uri = format!("spiffe://cluster.local/ns/ambient/sa/{NAME}");
    let arguments = [
        "certificate",
        "--control-plane",
        &control_plane,
        "--token",
        &token,
        "--root",
        &root,
        "--out",
        &out,
        "--uri",
        &uri,
    ];
    match mesh.program_at(&mesh.lan(), &arguments).await? {
        authority::Answer::Refused { code, message } => Ok(format!("{code}: {message}")),
        authority::Answer::Signed(uris) => anyhow::bail!("signed for {uris:?}"),
    }
}
