//! Every client with every server: the path that the planes say was taken, whom the server's side verified,
//! and the verdict.

use super::access::{Line, Log};
use super::cast::Member;
use super::{Demo, heading};
use crate::output::{Table, Tone, toned};

/// What became of one call.
#[derive(Debug)]
pub(super) struct Call {
    /// How the connection went.
    pub(super) path: String,
    /// The identity that the server's side verified.
    pub(super) identity: String,
    /// The verdict, and why.
    pub(super) verdict: Verdict,
}

/// What the server's side made of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It was answered.
    Allowed(String),
    /// It was not, and the layer and the reason.
    Denied(String),
}

/// The table.
pub(super) async fn show(demo: &Demo) -> anyhow::Result<()> {
    heading("Who reaches whom, by which path, and as whom");
    let mut table = Table::new(&[
        "CLIENT",
        "SERVER",
        "PATH",
        "IDENTITY THAT THE SERVER'S SIDE VERIFIED",
        "VERDICT",
    ]);
    for client in ["web", "api-2", "legacy"] {
        let client = demo.member(client)?;
        for server in demo
            .members
            .iter()
            .filter(|server| server.full_name() != client.full_name())
        {
            let call = call(demo, client, server).await?;
            table.row([
                client.full_name(),
                server.full_name(),
                call.path,
                call.identity,
                call.verdict.shown(),
            ]);
        }
    }
    print!("{}", table.render());
    Ok(())
}

impl Verdict {
    /// For people.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Allowed(why) => toned(Tone::Good, &format!("allowed: {why}")),
            Self::Denied(why) => toned(Tone::Bad, &format!("denied: {why}")),
        }
    }
}

/// Calls once, and asks both sides' planes what they saw.
pub(super) async fn call(demo: &Demo, client: &Member, server: &Member) -> anyhow::Result<Call> {
    let (from, to) = (demo.plane(client).await?, demo.plane(server).await?);
    let outbound = Log::from_now(client.log(&demo.mesh, &from));
    let inbound = Log::from_now(server.log(&demo.mesh, &to));
    let answer = client.run(&demo.mesh, &Member::call(server)?).await;
    // A plane that is none writes nothing.
    let seen = if to == "none" {
        None
    } else {
        inbound.wait("inbound", &client.addresses).await
    };
    let sent = if from == "none" {
        None
    } else {
        outbound.wait("outbound", &client.addresses).await
    };
    let carried = seen
        .as_ref()
        .or(sent.as_ref())
        .map_or("none", |line| line.get("peer"));
    Ok(Call {
        path: path(&from, &to, carried),
        identity: identity(seen.as_ref(), &to),
        verdict: verdict(&answer, seen.as_ref().or(sent.as_ref())),
    })
}

fn path(from: &str, to: &str, carried: &str) -> String {
    if carried == "same_node" {
        return toned(Tone::Good, "within the node proxy, not encrypted to itself");
    }
    let plane = |plane: &str| match plane {
        "node" => "node proxy",
        "sidecar" => "sidecar",
        _ => "",
    };
    let carried = match carried {
        "mutual_tls" => toned(Tone::Good, "HBONE, mTLS"),
        _ => toned(Tone::Odd, "plaintext"),
    };
    let hops = [plane(from), carried.as_str(), plane(to)];
    hops.iter()
        .filter(|hop| !hop.is_empty())
        .copied()
        .collect::<Vec<_>>()
        .join(" → ")
}

fn identity(seen: Option<&Line>, to: &str) -> String {
    let verified = seen
        .filter(|line| line.get("peer") != "none")
        .map_or("", |line| line.get("src.identity"));
    match (verified, to) {
        ("", "none") => toned(Tone::Faint, "(no plane)"),
        ("", _) => toned(Tone::Faint, "(none: plaintext)"),
        (verified, _) => verified.to_owned(),
    }
}

fn verdict(answer: &anyhow::Result<String>, line: Option<&Line>) -> Verdict {
    let policy = line.map_or("", |line| line.get("policy"));
    match answer {
        Ok(_) if policy.is_empty() => Verdict::Allowed("no policy applies".into()),
        Ok(_) => Verdict::Allowed(policy.to_owned()),
        Err(error) => {
            let said = |key| line.map_or("", |line| line.get(key));
            let why = match (said("layer"), said("reason")) {
                ("", _) => format!("{error:#}"),
                (layer, reason) => format!("layer {layer}: {reason}"),
            };
            Verdict::Denied(why)
        }
    }
}
