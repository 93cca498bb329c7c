//! Every client with every server: the path that the planes say was taken, whom the server's side verified,
//! and the verdict.

use super::access::{Line, Log};
use super::cast::Member;
use super::{Demo, heading};
use crate::output::{Table, Tone, toned};

/// What became of one call.
#[derive(Debug)]
pub(super) struct Call {
    /// The planes of both ends: `sidecar`, `node` or `none`.
    planes: (String, String),
    /// How the connection was carried, in the words of the access log.
    carried: String,
    /// The identity that the server's side verified.
    identity: Option<String>,
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

/// The table. Fails once it is printed if it shows what must not be.
pub(super) async fn show(demo: &Demo) -> anyhow::Result<()> {
    heading("Who reaches whom, by which path, and as whom");
    let mut table = Table::new(&[
        "CLIENT",
        "SERVER",
        "PATH",
        "IDENTITY THAT THE SERVER'S SIDE VERIFIED",
        "VERDICT",
    ]);
    let mut wrong = Vec::new();
    for client in ["web", "api-2", "legacy"] {
        let client = demo.member(client)?;
        for server in demo
            .members
            .iter()
            .filter(|server| server.full_name() != client.full_name())
        {
            let call = call(demo, client, server).await?;
            wrong.extend(call.wrong(client, server));
            table.row([
                client.full_name(),
                server.full_name(),
                call.path(),
                call.identity_shown(),
                call.verdict.shown(),
            ]);
        }
    }
    print!("{}", table.render());
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("; "));
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
    let line = seen.as_ref().or(sent.as_ref());
    let identity = seen.as_ref().filter(|line| line.get("peer") != "none");
    Ok(Call {
        carried: line.map_or("none", |line| line.get("peer")).to_owned(),
        identity: identity.map(|line| line.get("src.identity").to_owned()),
        verdict: verdict(&answer, line),
        planes: (from, to),
    })
}

impl Call {
    /// What is not as the design has it, if anything: between planes a tunnel of the client's own identity,
    /// otherwise plaintext; and an answer always.
    fn wrong(&self, client: &Member, server: &Member) -> Option<String> {
        let meshed = client.namespace != "none" && server.namespace != "none";
        let within =
            [client, server].map(|member| (member.namespace, member.node)) == [("ambient", client.node); 2];
        let carried = match (meshed, within) {
            (true, true) => "same_node",
            (true, false) => "mutual_tls",
            _ => "none",
        };
        let identity = meshed.then(|| client.identity());
        let answered = matches!(self.verdict, Verdict::Allowed(_));
        let right = answered && self.carried == carried && self.identity == identity;
        (!right).then(|| {
            format!(
                "{} → {} was to be answered over {carried} as {}: {self:?}",
                client.full_name(),
                server.full_name(),
                identity.as_deref().unwrap_or("nobody")
            )
        })
    }

    fn path(&self) -> String {
        if self.carried == "same_node" {
            return toned(Tone::Good, "within the node proxy, not encrypted to itself");
        }
        let plane = |plane: &str| match plane {
            "node" => "node proxy",
            "sidecar" => "sidecar",
            _ => "",
        };
        let carried = match self.carried.as_str() {
            "mutual_tls" => toned(Tone::Good, "HBONE, mTLS"),
            _ => toned(Tone::Odd, "plaintext"),
        };
        let hops = [plane(&self.planes.0), carried.as_str(), plane(&self.planes.1)];
        hops.iter()
            .filter(|hop| !hop.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join(" → ")
    }

    fn identity_shown(&self) -> String {
        match (&self.identity, self.planes.1.as_str()) {
            (Some(verified), _) => verified.clone(),
            (None, "none") => toned(Tone::Faint, "(no plane)"),
            (None, _) => toned(Tone::Faint, "(none: plaintext)"),
        }
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
