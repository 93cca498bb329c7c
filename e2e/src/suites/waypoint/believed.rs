//! Who is believed when it speaks for another: a server's plane believes its own waypoint, a waypoint the
//! server that hands over to it, and nobody else. The peer is the tests' own, with whatever certificate.

use std::net::SocketAddr;

use anyhow::{Context, ensure};

use super::{NAME, SOON, policy, waypoints};
use crate::mesh::eventually;
use crate::mesh::standard::Standard;
use crate::programs::port;
use crate::report::Report;
use crate::suites::asking::{Wish, ask, refused};

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
    let waypoints = waypoints(standard, "ambient").await?;
    let waypoint = waypoints.first().context("the waypoint has no pod")?.at(15008);
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
    let (authority, claim) = (application.to_string(), format!("trefoil-peer={FRIEND}"));
    let headers: &[&str] = if knock.claims { &[&claim] } else { &[] };
    let credentials = standard.mesh.forged(&folder, &[knock.identity]).await?;
    eventually(SOON, async || {
        let seen = standard
            .tunnel(listener, &authority, &credentials, headers)
            .await?;
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
    let uri = format!("spiffe://cluster.local/ns/ambient/sa/{NAME}");
    let wish = Wish {
        token,
        uris: vec![&uri],
        impersonate: None,
    };
    let (answer, _) = ask(standard, "impostor", &wish).await?;
    refused(&answer)
}
