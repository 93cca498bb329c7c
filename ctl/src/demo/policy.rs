//! A policy is applied while everything runs, and removed again.

use std::time::{Duration, Instant};

use anyhow::Context;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::pairs::{Call, Verdict, call};
use super::{Demo, heading};
use crate::kinds::Kind;
use crate::object::apply::apply_one;
use crate::output::{Table, Tone, toned};

/// How long a policy may take to be in force.
const PATIENCE: Duration = Duration::from_secs(10);
/// Its name.
const NAME: &str = "cache-is-for-the-api";

/// Denies one pair, and allows it again.
pub(super) async fn show(demo: &Demo) -> anyhow::Result<()> {
    heading("A policy: only the API may use the cache");
    let mut table = Table::new(&["", "CLIENT", "SERVER", "AFTER", "VERDICT"]);
    row(&mut table, "before", demo, Duration::ZERO, &pair(demo).await?);
    let client = demo.planes.client();
    let applied = Instant::now();
    apply_one(client, policy(), None).await?;
    let denied = until(demo, |verdict| matches!(verdict, Verdict::Denied(_))).await?;
    row(&mut table, "policy applied", demo, applied.elapsed(), &denied);
    let api = (demo.member("api-1")?, demo.member("cache")?);
    let still = call(demo, api.0, api.1).await?;
    anyhow::ensure!(
        matches!(still.verdict, Verdict::Allowed(_)),
        "the policy keeps the API from the cache, which it names"
    );
    table.row([
        "".into(),
        api.0.full_name(),
        api.1.full_name(),
        "".into(),
        still.verdict.shown(),
    ]);
    let removed = Instant::now();
    let policies = Kind::named("authorizationpolicy")?.api(client, Some("ambient"));
    policies.delete(NAME, &DeleteParams::default()).await?;
    let allowed = until(demo, |verdict| matches!(verdict, Verdict::Allowed(_))).await?;
    row(&mut table, "policy removed", demo, removed.elapsed(), &allowed);
    print!("{}", table.render());
    Ok(())
}

fn policy() -> Value {
    json!({
        "apiVersion": "trefoil.dev/v1alpha1", "kind": "AuthorizationPolicy",
        "metadata": { "name": NAME, "namespace": "ambient" },
        "spec": {
            "selector": { "matchLabels": { "app": "cache" } },
            "action": "Allow",
            "rules": [{ "from": [{ "principals": ["cluster.local/ns/ambient/sa/api"] }] }],
        },
    })
}

async fn pair(demo: &Demo) -> anyhow::Result<Call> {
    call(demo, demo.member("web")?, demo.member("cache")?).await
}

async fn until(demo: &Demo, wanted: impl Fn(&Verdict) -> bool) -> anyhow::Result<Call> {
    let found = async {
        loop {
            let call = pair(demo).await?;
            if wanted(&call.verdict) {
                return anyhow::Ok(call);
            }
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .context("the policy has had no effect")?
}

fn row(table: &mut Table, when: &str, demo: &Demo, after: Duration, call: &Call) {
    let name = |member: &str| {
        demo.member(member)
            .map_or_else(|_| String::new(), super::Member::full_name)
    };
    let after = if after.is_zero() {
        String::new()
    } else {
        toned(Tone::Faint, &format!("{} ms", after.as_millis()))
    };
    table.row([
        when.into(),
        name("web"),
        name("cache"),
        after,
        call.verdict.shown(),
    ]);
}
