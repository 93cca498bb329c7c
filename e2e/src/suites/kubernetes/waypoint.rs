//! A waypoint in the cluster, as its users ask for one: made from a Gateway, routing, deciding with the client's
//! identity whichever way a request comes, in nobody else's hands, and gone with its Gateway.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::cluster::Cluster;
use super::ctl::{PROGRAM, told};
use crate::mesh::eventually;
use crate::programs::call::{Calls, Target};
use crate::programs::port;
use crate::programs::session::{Outcome, Protocol};
use crate::report::Report;

mod admission;
mod lifetime;
mod parameters;

/// How many checks it makes.
pub(super) const CHECKS: usize = 16 + admission::CHECKS + parameters::CHECKS + lifetime::CHECKS;
/// How long what was applied may take to be in force everywhere.
const SOON: Duration = Duration::from_secs(20);
const CLIENTS: [&str; 3] = ["none", "sidecar", "ambient"];

const CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: trefoil-waypoint}
spec: {controllerName: trefoil.dev/gateway-controller}
";

/// Two versions of a service, in a namespace whose pods may do nothing special.
const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata:
  name: shop
  labels: {trefoil.dev/dataplane-mode: ambient, pod-security.kubernetes.io/enforce: restricted}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {trefoil.dev/use-waypoint: waypoint}}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
";
const VERSION: &str = "
apiVersion: v1
kind: Service
metadata: {name: VERSION, namespace: shop}
spec: {selector: {app: web, version: VERSION}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: VERSION, namespace: shop, labels: {app: web, version: VERSION}}
spec:
  nodeName: NODE
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 1000, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: web
    image: kube.test/trefoil-e2e:1
    imagePullPolicy: Never
    args: [serve, --name=shop/VERSION]
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
";

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    report.check(
        "the Gateway API is noticed when it comes after the mesh",
        noticed(cluster).await,
    );
    let without = without_a_class(cluster).await;
    report.check("trefoilctl waypoint apply says what is missing", without);
    cluster.apply(CLASS).await?;
    cluster.apply(SHOP).await?;
    for (version, node) in [("v1", "n1"), ("v2", "n2")] {
        let version = VERSION.replace("VERSION", version).replace("NODE", node);
        cluster.apply(&version).await?;
    }
    let wait = [
        "wait",
        "-n",
        "shop",
        "--for=condition=Ready",
        "pod/v1",
        "pod/v2",
        "--timeout=60s",
    ];
    cluster.kubectl(&wait).await?;
    let made = made(cluster).await;
    report.check("trefoilctl waypoint apply makes a waypoint", made);
    let web = Target {
        protocol: Protocol::H1,
        address: format!("{}:80", cluster.service("shop", "web").await?).parse()?,
    };
    for client in CLIENTS {
        let result = known_by_identity(cluster, client, web).await;
        report.check(format!("{client} → shop through its waypoint"), result);
    }
    routes(cluster, report, web).await?;
    policies(cluster, report, web).await?;
    admission::run(cluster, report).await?;
    parameters::run(cluster, report, web).await?;
    lifetime::run(cluster, report, web).await?;
    cluster
        .kubectl(&["delete", "--wait=false", "namespace", "shop"])
        .await?;
    Ok(())
}

/// The control plane ran without the Gateway API, said so once of each of its kinds, and goes on without a restart.
async fn noticed(cluster: &Cluster) -> anyhow::Result<String> {
    let accepted = "jsonpath={.status.conditions[?(@.type==\"Accepted\")].status}";
    let get = ["get", "gatewayclass", "trefoil-waypoint", "-o", accepted];
    eventually(Duration::from_secs(90), async || {
        let accepted = cluster.kubectl(&get).await?;
        ensure!(
            accepted == "True",
            "GatewayClass trefoil-waypoint is accepted: {accepted:?}"
        );
        Ok(())
    })
    .await?;
    let logs = ["logs", "-n", "trefoil-system", "deployment/trefoil-control-plane"];
    let said = cluster.kubectl(&logs).await?;
    let absent = said.matches("not a kind of this cluster yet").count();
    ensure!(absent == 5, "it said {absent} times that a kind is not there");
    // Asking in vain would be told by the client's library.
    // As a word: times of day have any digits.
    let asked = |line: &&str| {
        line.split(|c: char| !c.is_ascii_alphanumeric())
            .any(|word| word == "404")
    };
    let asked: Vec<&str> = said.lines().filter(asked).collect();
    ensure!(asked.is_empty(), "it asked for what is not there: {asked:?}");
    let restarts = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    let get = [
        "get",
        "pods",
        "-n",
        "trefoil-system",
        "-l",
        "app=trefoil-control-plane",
        "-o",
        restarts,
    ];
    let restarts = cluster.kubectl(&get).await?;
    ensure!(restarts == "0 0", "replicas were started again: {restarts}");
    Ok("5 kinds were missing, each said once; the class is accepted without a restart".into())
}

/// Nobody would make it: said at once, and nothing is left behind.
async fn without_a_class(cluster: &Cluster) -> anyhow::Result<String> {
    cluster
        .kubectl(&["delete", "gatewayclass", "trefoil-waypoint"])
        .await?;
    let apply = [PROGRAM, "waypoint", "apply", "--namespace", "ambient"];
    let Err(error) = cluster.on("n1", &apply, None).await else {
        bail!("it says that it was made");
    };
    let said = format!("{error:#}");
    ensure!(
        said.contains("there is no GatewayClass trefoil-waypoint"),
        "{said}"
    );
    let left = cluster
        .kubectl(&["get", "gateways", "-n", "ambient", "-o", "name"])
        .await?;
    ensure!(left.is_empty(), "left: {left}");
    Ok(said.rsplit("trefoilctl: ").next().unwrap_or_default().to_owned())
}

/// What is asked for is there, and is what is said of it.
async fn made(cluster: &Cluster) -> anyhow::Result<String> {
    let shown = told(cluster, &["waypoint", "apply", "--namespace", "shop"]).await?;
    ensure!(shown["programmed"] == true, "{shown}");
    let listed = told(cluster, &["waypoint", "list"]).await?;
    ensure!(
        listed.as_array().is_some_and(|all| all.contains(&shown)),
        "{listed}"
    );
    let objects = objects(cluster).await?;
    ensure!(
        [
            "deployment.apps/",
            "service/",
            "serviceaccount/",
            "poddisruptionbudget.policy/"
        ]
        .iter()
        .all(|kind| objects.contains(&format!("{kind}waypoint"))),
        "{objects:?}"
    );
    let status = told(cluster, &["status"]).await?;
    let planes = status["planes"].as_array().context("no planes")?;
    let ready = |plane: &&Value| plane["role"] == "waypoint" && plane["ready"] == true;
    ensure!(
        planes.iter().filter(ready).count() == 1,
        "trefoilctl status: {status}"
    );
    let address = shown["address"].as_str().context("no address")?;
    Ok(format!("{} at {address}", objects.join(", ")))
}

/// What is there of waypoints in the namespace.
async fn objects(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    let kinds =
        "deployments,replicasets,services,serviceaccounts,pods,poddisruptionbudgets,horizontalpodautoscalers";
    let label = "gateway.networking.k8s.io/gateway-name";
    let said = cluster
        .kubectl(&["get", kinds, "-n", "shop", "-l", label, "-o", "name"])
        .await?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// The application is told who calls, by whichever way: the identity of a client in the mesh, nobody's otherwise.
pub(super) async fn known_by_identity(
    cluster: &Cluster,
    client: &str,
    web: Target,
) -> anyhow::Result<String> {
    let identity = (client != "none").then(|| format!("URI=spiffe://cluster.local/ns/{client}/sa/client"));
    eventually(SOON, async || {
        let calls = cluster.call(client, web, 20).await?;
        for outcome in &calls.outcomes {
            let Outcome::Served(answer) = outcome else {
                bail!("{outcome:?}");
            };
            let told = answer.certificate.as_deref();
            let right = match &identity {
                Some(identity) => told.is_some_and(|told| told.split(';').any(|part| part == identity)),
                None => told.is_none(),
            };
            ensure!(right, "the application was told {told:?}");
        }
        let who = identity.as_deref().unwrap_or("nobody in the mesh");
        Ok(format!(
            "{} of 20 served; the application was told {who}",
            calls.served()
        ))
    })
    .await
}

/// Shares between two versions, and then one alone.
async fn routes(cluster: &Cluster, report: &mut Report, web: Target) -> anyhow::Result<()> {
    for (first, second, wanted) in [(90, 10, 3..=37), (0, 100, 200..=200)] {
        let route = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{name: shift, namespace: shop}}\n\
             spec: {{parentRefs: [{{group: '', kind: Service, name: web, port: 80}}], \
             rules: [{{backendRefs: [{{name: v1, port: 80, weight: {first}}}, {{name: v2, port: 80, weight: {second}}}]}}]}}\n"
        );
        cluster.apply(&route).await?;
        for client in ["sidecar", "ambient"] {
            // Within four standard deviations of the mean, once it is in force: without it they are equal.
            let result = eventually(SOON, async || {
                let calls = cluster.call(client, web, 200).await?;
                let by_second = |outcome: &&Outcome| matches!(outcome, Outcome::Served(answer) if answer.server == "shop/v2");
                let by_second = calls.outcomes.iter().filter(by_second).count();
                ensure!(calls.served() == 200, "{} of 200 served", calls.served());
                ensure!(wanted.contains(&by_second), "{by_second} of 200 by v2");
                Ok(format!("{by_second} of 200 by v2"))
            });
            report.check(
                format!("{client} → shop by a route of {first} to {second}"),
                result.await,
            );
        }
    }
    cluster
        .kubectl(&["delete", "httproute", "-n", "shop", "shift"])
        .await?;
    Ok(())
}

/// One client may do one thing; the same of the service and of a pod's own address.
async fn policies(cluster: &Cluster, report: &mut Report, web: Target) -> anyhow::Result<()> {
    cluster
        .apply(
            "apiVersion: trefoil.dev/v1alpha1\nkind: AuthorizationPolicy\n\
             metadata: {name: http, namespace: shop}\n\
             spec: {targetRefs: [{group: '', kind: Service, name: web}], action: Allow, rules: [\
             {from: [{principals: [cluster.local/ns/ambient/sa/client]}], to: [{methods: [POST], paths: [/]}]}]}\n",
        )
        .await?;
    let get = ["get", "pod", "-n", "shop", "v2", "-o", "jsonpath={.status.podIP}"];
    let pod = Target {
        protocol: Protocol::H1,
        address: format!("{}:{}", cluster.kubectl(&get).await?, port::HTTP).parse()?,
    };
    for client in CLIENTS {
        for (way, target) in [("the service", web), ("a pod's address", pod)] {
            let result = eventually(SOON, async || {
                let h1 = cluster.call(client, target, 5).await?;
                let h2 = Target {
                    protocol: Protocol::H2,
                    ..target
                };
                let h2 = cluster.call(client, h2, 5).await?;
                verdict(&h1, client == "ambient")?;
                // To another path.
                verdict(&h2, false)?;
                Ok(format!(
                    "POST / {} of 5 served; another path 0 of 5, with 403",
                    h1.served()
                ))
            });
            report.check(
                format!("{client} → {way} of shop under a policy of methods and paths"),
                result.await,
            );
        }
    }
    cluster
        .kubectl(&["delete", "authorizationpolicy", "-n", "shop", "http"])
        .await?;
    Ok(())
}

/// What is refused is answered so: it is the waypoint that reads.
fn verdict(calls: &Calls, allowed: bool) -> anyhow::Result<()> {
    let right = |outcome: &Outcome| match outcome {
        Outcome::Served(_) => allowed,
        Outcome::Failed(said) => !allowed && said.contains("403"),
        _ => false,
    };
    ensure!(
        calls.outcomes.iter().all(right),
        "{}: {:?}",
        calls.target,
        calls.outcomes
    );
    Ok(())
}

/// A condition of a Gateway of the namespace.
async fn condition(cluster: &Cluster, gateway: &str, kind: &str) -> anyhow::Result<Value> {
    let get = ["get", "gateway", "-n", "shop", gateway, "-o", "json"];
    let object: Value = serde_json::from_str(&cluster.kubectl(&get).await?)?;
    let conditions = object["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = conditions.into_iter().find(|one| one["type"] == kind);
    found.with_context(|| format!("no condition {kind} of Gateway shop/{gateway}"))
}
