//! What the planes refuse: the test-owned peer knocks at both, with certificates that it should have and
//! with certificates that nobody should.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;

use super::{Wish, ask};
use crate::authority;
use crate::mesh::standard::Standard;
use crate::mesh::{Pod, eventually};
use crate::programs::call::Target;
use crate::programs::port;
use crate::programs::session::Protocol;
use crate::report::Report;

const CLIENT: &str = "spiffe://cluster.local/ns/none/sa/client";

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    let credentials = Credentials::obtain(standard).await?;
    for (namespace, plane) in [("ambient", "node proxy"), ("sidecar", "sidecar")] {
        knock(standard, report, namespace, plane, &credentials).await?;
        plaintext(standard, report, namespace, plane).await?;
    }
    Ok(())
}

struct Credentials {
    /// As the mesh's authority gives it.
    own: PathBuf,
    /// Of an authority that the mesh does not know.
    foreign: PathBuf,
    /// Signed with the mesh's key, two names.
    two_names: PathBuf,
    /// Signed with the mesh's key, another trust domain.
    other_domain: PathBuf,
    /// Signed with the mesh's key, no name.
    no_name: PathBuf,
}

impl Credentials {
    async fn obtain(standard: &Standard) -> anyhow::Result<Self> {
        let mesh = &standard.mesh;
        let folder = mesh.scratch()?;
        let pod = standard.client("none")?;
        let token = mesh
            .token(("none", "client"), Some(pod), "trefoil-ca", 3600)
            .await?;
        let wish = Wish {
            token,
            uris: vec![CLIENT],
            impersonate: None,
        };
        let (answer, own) = ask(standard, "own", &wish).await?;
        super::signed_for(&answer, CLIENT)?;
        let foreign = folder.join("foreign");
        authority::foreign(&[CLIENT.into()], Some(&mesh.root()), &foreign)?;
        let two = [CLIENT, "spiffe://cluster.local/ns/ambient/sa/client"];
        let elsewhere = ["spiffe://elsewhere/ns/none/sa/client"];
        Ok(Self {
            own,
            foreign,
            two_names: mesh.forged("two-names", &two).await?,
            other_domain: mesh.forged("other-domain", &elsewhere).await?,
            no_name: mesh.forged("no-name", &[]).await?,
        })
    }
}

async fn knock(
    standard: &Standard,
    report: &mut Report,
    namespace: &str,
    plane: &str,
    credentials: &Credentials,
) -> anyhow::Result<()> {
    let server = standard.server(namespace, "n2")?;
    let (to, at) = (server.at(15008), server.at(port::TCP).to_string());
    let identity = format!("spiffe://cluster.local/ns/{namespace}/sa/server");
    let seen = standard.tunnel(to, &at, &credentials.own, &[]).await;
    let result = seen.and_then(|seen| {
        ensure!(seen.peer == [identity.clone()], "the peer is {:?}", seen.peer);
        ensure!(seen.status == Some(200) && seen.line.is_some(), "{seen:?}");
        Ok(format!("served by {identity}"))
    });
    report.check(format!("{plane}: a rightful tunnel"), result);

    for (name, folder) in [
        ("an unknown authority", &credentials.foreign),
        ("two URI names", &credentials.two_names),
        ("a foreign trust domain", &credentials.other_domain),
        ("no URI name", &credentials.no_name),
    ] {
        let before = failures(standard, server).await?;
        let seen = standard.tunnel(to, &at, folder, &[]).await;
        let result = seen.and_then(|seen| {
            ensure!(
                seen.status.is_none_or(|status| status >= 400) && seen.line.is_none(),
                "{seen:?}"
            );
            Ok(seen
                .error
                .or_else(|| seen.status.map(|status| status.to_string()))
                .unwrap_or_default())
        });
        report.check(format!("{plane}: a certificate with {name}"), result);
        report.check(
            format!("{plane}: {name} is counted"),
            counted(standard, server, before).await,
        );
    }
    let other = standard.client(namespace)?.at(port::TCP).to_string();
    for (name, authority) in [
        ("another pod's address", other),
        ("a plane's own port", format!("{}:15008", server.addresses[0])),
        ("the loopback", format!("127.0.0.1:{}", port::TCP)),
    ] {
        let seen = standard.tunnel(to, &authority, &credentials.own, &[]).await;
        let result = seen.and_then(|seen| {
            ensure!(
                seen.line.is_none() && seen.status.is_some_and(|status| status >= 400),
                "{seen:?}"
            );
            Ok(format!(
                "status {} {:?}",
                seen.status.unwrap_or_default(),
                seen.headers
            ))
        });
        report.check(format!("{plane}: CONNECT to {name}"), result);
    }
    Ok(())
}

/// Plaintext under STRICT is refused, and served again without it.
async fn plaintext(
    standard: &Standard,
    report: &mut Report,
    namespace: &str,
    plane: &str,
) -> anyhow::Result<()> {
    let mesh = &standard.mesh;
    let server = standard.server(namespace, "n2")?;
    let target = Target {
        protocol: Protocol::Tcp,
        address: server.at(port::TCP),
    };
    mesh.apply(&format!(
        "apiVersion: trefoil.dev/v1alpha1\nkind: PeerAuthentication\n\
         metadata: {{name: strict, namespace: {namespace}}}\nspec: {{mtls: Strict}}\n"
    ))
    .await?;
    let before = failures(standard, server).await?;
    let refused = becomes(standard, "none", target, false).await;
    report.check(format!("{plane}: plaintext under STRICT"), refused);
    report.check(
        format!("{plane}: plaintext under STRICT is counted"),
        counted(standard, server, before).await,
    );
    let meshed = becomes(standard, "ambient", target, true).await;
    report.check(format!("{plane}: the mesh's own under STRICT"), meshed);
    mesh.delete("peerauthentication", namespace, "strict").await?;
    let served = becomes(standard, "none", target, true).await;
    report.check(format!("{plane}: plaintext without STRICT"), served);
    Ok(())
}

/// Once the change has arrived, every attempt goes one way.
async fn becomes(standard: &Standard, from: &str, target: Target, wanted: bool) -> anyhow::Result<String> {
    eventually(Duration::from_secs(15), async || {
        let calls = standard.call(from, &[target], 1).await?;
        ensure!((calls[0].served() == 1) == wanted, "{:?}", calls[0].outcomes);
        Ok(())
    })
    .await?;
    let calls = standard.call(from, &[target], 5).await?;
    let expected = if wanted { 5 } else { 0 };
    ensure!(calls[0].served() == expected, "{:?}", calls[0].outcomes);
    Ok(format!("{expected} of 5 served"))
}

/// Failed connections that the plane of a pod has counted.
async fn failures(standard: &Standard, pod: &Pod) -> anyhow::Result<f64> {
    let metric = "istio_tcp_connections_failed_total";
    standard.mesh.counted(pod, metric, &[]).await
}

async fn counted(standard: &Standard, pod: &Pod, before: f64) -> anyhow::Result<String> {
    eventually(Duration::from_secs(5), async || {
        let after = failures(standard, pod).await?;
        ensure!(after > before, "failed connections stay at {after}");
        Ok(format!("failed connections: {before} → {after}"))
    })
    .await
}
