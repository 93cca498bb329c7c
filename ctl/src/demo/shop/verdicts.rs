//! Who may call which method of the catalog, and by which way: always the waypoint's verdict, as its line says.

use anyhow::Context;
use serde_json::{Value, json};
use trefoil_demo_programs::catalog::{Answer, Method};

use super::{PATIENCE, SHOP, WAYPOINT};
use crate::demo::access::{Line, Log};
use crate::demo::cast::{self, Member};
use crate::demo::{Demo, heading};
use crate::object::apply::apply_one;
use crate::output::{Table, Tone, toned};
use trefoil_local::protocol::{Conversation, Request, Response};

/// The policy.
const POLICY: &str = "prices-are-the-offices";

fn policy() -> Value {
    json!({
        "apiVersion": "trefoil.dev/v1alpha1", "kind": "AuthorizationPolicy",
        "metadata": { "name": POLICY, "namespace": SHOP },
        "spec": {
            "targetRefs": [{ "group": "", "kind": "Service", "name": "catalog" }],
            "action": "Deny",
            "rules": [{
                "from": [{ "notPrincipals": ["cluster.local/ns/ambient/sa/office"] }],
                "to": [{ "paths": [Method::Reprice.path()] }],
            }],
        },
    })
}

/// One call of the API.
struct Call<'a> {
    caller: &'a str,
    method: Method,
    /// It dials this pod's own address.
    dials: Option<&'a str>,
    allowed: bool,
}

/// What the planes wrote of it.
struct Seen {
    answer: Answer,
    /// The waypoint's line.
    decided: Option<Line>,
    /// The line of the dialled pod's plane, which hands it over to the waypoint.
    handed_over: Option<Line>,
}

/// The table. Fails once it is printed if it shows what must not be.
pub(super) async fn show(demo: &Demo) -> anyhow::Result<()> {
    heading("A policy that reads HTTP: only the office may call /shop.Catalog/Reprice");
    let call = |caller, method, dials, allowed| Call {
        caller,
        method,
        dials,
        allowed,
    };
    let denied = call("store", Method::Reprice, None, false);
    apply_one(demo.planes.client(), policy(), None).await?;
    let in_force = async {
        while !ask(demo, &denied).await?.denied() {}
        anyhow::Ok(())
    };
    let in_force = tokio::time::timeout(PATIENCE, in_force).await;
    in_force.context("the policy has had no effect")??;
    let mut table = Table::new(&["CALLER", "METHOD", "DIALS", "PATH", "ANSWER", "WHY"]);
    let mut wrong = Vec::new();
    for call in [
        call("store", Method::Find, None, true),
        denied,
        call("office", Method::Reprice, None, true),
        call("store", Method::Reprice, Some("catalog-v1"), false),
        call("legacy", Method::Reprice, Some("catalog-v1"), false),
        call("office", Method::Reprice, Some("catalog-v1"), true),
    ] {
        let seen = seen(demo, &call).await?;
        wrong.extend(call.wrong(demo.member(call.caller)?, &seen));
        table.row(call.row(demo, &seen)?);
    }
    print!("{}", table.render());
    anyhow::ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

async fn ask(demo: &Demo, call: &Call<'_>) -> anyhow::Result<Answer> {
    let target = match call.dials {
        None => format!("catalog.{SHOP}:80"),
        Some(pod) => demo.member(pod)?.address(),
    };
    let command = [
        &cast::program()?,
        "demo-app",
        "ask",
        &target,
        call.method.argument(),
    ];
    let caller = demo.member(call.caller)?;
    let answer = caller.run(&demo.mesh, &command.map(Into::into)).await?;
    serde_json::from_str(&answer).context("the call said something else")
}

/// Calls once, and asks the waypoint and the dialled pod's plane what they saw.
async fn seen(demo: &Demo, call: &Call<'_>) -> anyhow::Result<Seen> {
    let caller = demo.member(call.caller)?;
    let log = |pod: &str| demo.mesh.pod_directory(SHOP, pod).join("log");
    let through = Log::from_now(log(&waypoint_pod(demo).await?));
    let dialled = match call.dials {
        None => None,
        Some(pod) => Some(Log::from_now(demo.member(pod)?.log(&demo.mesh, "node"))),
    };
    let answer = ask(demo, call).await?;
    let of_call =
        |line: &Line| line.is_from("through", &caller.addresses) && line.get("path") == call.method.path();
    let decided = through.wait_for(of_call).await;
    let hand_over =
        |line: &Line| line.is_from("inbound", &caller.addresses) && !line.get("handed_to").is_empty();
    let handed_over = match &dialled {
        None => None,
        Some(log) => log.wait_for(hand_over).await,
    };
    Ok(Seen {
        answer,
        decided,
        handed_over,
    })
}

/// The pod of the waypoint.
async fn waypoint_pod(demo: &Demo) -> anyhow::Result<String> {
    let mut daemon = Conversation::with_daemon(&demo.mesh).await?;
    let Response::Status(status) = daemon.ask(&Request::Status).await? else {
        anyhow::bail!("the daemon answered something else")
    };
    let mut pods = status.pods.into_iter();
    let ours = pods.find(|pod| pod.namespace == SHOP && pod.name.starts_with(WAYPOINT));
    Ok(ours.context("the waypoint has no pod")?.name)
}

impl Call<'_> {
    /// What is not as the design has it, if anything: the waypoint decides about each request, also of those that
    /// the pod's plane hands over to it, and names the policy where it denies.
    fn wrong(&self, caller: &Member, seen: &Seen) -> Option<String> {
        let said = |line: &Option<Line>, key: &str| line.as_ref().map_or("", |line| line.get(key)).to_owned();
        let policy = format!("{SHOP}/{POLICY}");
        let verdict = if self.allowed {
            seen.answer.served() && said(&seen.decided, "response_flags") == "-"
        } else {
            let denied = said(&seen.decided, "layer") == "policy" && said(&seen.decided, "policy") == policy;
            seen.answer.denied() && denied && seen.answer.said.contains(&policy)
        };
        // What is dialled itself is decided about, and never routed anew. A sidecar reads the request, and takes it to the
        // endpoint's waypoint at once; of others the dialled pod's plane hands it over.
        let routed = !said(&seen.decided, "route").is_empty();
        let way = (seen.handed_over.is_some(), routed);
        let handed_over = self.dials.is_some() && caller.namespace != "sidecar";
        let right = verdict && way == (handed_over, self.dials.is_none());
        (!right).then(|| {
            let (caller, path) = (self.caller, self.method.path());
            let way = self.dials.map_or("the service", |pod| pod);
            format!(
                "{path} by {caller} at {way} was to be {}: {:?}, {:?}, {:?}",
                if self.allowed { "answered" } else { "denied" },
                seen.answer,
                seen.decided,
                seen.handed_over
            )
        })
    }

    fn row(&self, demo: &Demo, seen: &Seen) -> anyhow::Result<[String; 6]> {
        let tone = if seen.answer.served() {
            Tone::Good
        } else {
            Tone::Bad
        };
        let mut answer = seen.answer.status();
        if seen.answer.served() {
            answer = format!("{answer} by {}", seen.answer.said);
        }
        let dials = match self.dials {
            None => format!("{SHOP}/catalog"),
            Some(pod) => format!("the address of {}", demo.member(pod).map(Member::full_name)?),
        };
        let path = match &seen.handed_over {
            Some(_) => "node proxy → waypoint",
            None => "waypoint",
        };
        Ok([
            demo.member(self.caller)?.full_name(),
            self.method.path().into(),
            dials,
            path.into(),
            toned(tone, &answer),
            why(seen.decided.as_ref()),
        ])
    }
}

fn why(line: Option<&Line>) -> String {
    let Some(line) = line else {
        return "the waypoint said nothing".into();
    };
    match (line.get("layer"), line.get("policy"), line.get("route")) {
        ("", "", "") => "no policy denies it; no route".into(),
        ("", "", route) => format!("no policy denies it; route {route}"),
        ("", policy, _) => policy.into(),
        (layer, ..) => format!("layer {layer}: {}", line.get("reason")),
    }
}
