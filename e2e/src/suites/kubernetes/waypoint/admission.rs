//! Nobody has a waypoint's identity, or says what it runs, but the mesh: asked of the real API server as its
//! administrator, and of the mesh's authority from a pod that got in before the account was reserved.

use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::super::cluster::{Cluster, LIMIT};
use super::{SOON, condition};
use crate::authority::Answer;
use crate::mesh::eventually;
use crate::report::Report;

/// How many checks it makes.
pub(super) const CHECKS: usize = 14;

/// A pod's spec with an account, as the namespace demands it.
const SPEC: &str = "{serviceAccountName: ACCOUNT, \
    securityContext: {runAsUser: 1000, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}, \
    containers: [{name: thief, image: 'kube.test/trefoil-e2e:1', imagePullPolicy: Never, args: [serve, --name=thief], \
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]}";

/// An account, a Service and a pod of one name, all of somebody's, before there is a Gateway of that name.
const EARLIER: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: taken, namespace: shop}
---
apiVersion: v1
kind: Service
metadata: {name: taken, namespace: shop}
spec: {selector: {app: taken}, ports: [{name: mesh, port: 15008}]}
---
apiVersion: v1
kind: Pod
metadata: {name: taken, namespace: shop, labels: {app: taken, gateway.networking.k8s.io/gateway-name: taken}}
spec:
  serviceAccountName: taken
  terminationGracePeriodSeconds: 1
  securityContext: {runAsUser: 1000, runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: taken
    image: kube.test/trefoil-e2e:1
    imagePullPolicy: Never
    args: [serve, --name=shop/taken]
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    volumeMounts: [{name: token, mountPath: /token}, {name: root, mountPath: /root}, {name: out, mountPath: /out}]
  volumes:
  - name: token
    projected: {sources: [{serviceAccountToken: {audience: trefoil-ca, path: token, expirationSeconds: 3600}}]}
  - {name: root, configMap: {name: trefoil-ca-root}}
  - {name: out, emptyDir: {}}
";

pub(super) async fn run(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    objects(cluster, report).await;
    commands(cluster, report).await?;
    cluster.apply(EARLIER).await?;
    let wait = [
        "wait",
        "-n",
        "shop",
        "--for=condition=Ready",
        "pod/taken",
        "--timeout=60s",
    ];
    cluster.kubectl(&wait).await?;
    report.check(
        "an account is its owner's before it is a waypoint's",
        signed(cluster, true).await,
    );
    cluster
        .apply(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: taken, namespace: shop}\n\
             spec: {gatewayClassName: trefoil-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}\n",
        )
        .await?;
    report.check(
        "a waypoint whose name is taken says so, and takes nothing",
        taken(cluster).await,
    );
    report.check(
        "no certificate of a waypoint for a pod that was there before it",
        signed(cluster, false).await,
    );
    cluster
        .kubectl(&[
            "delete",
            "--wait=false",
            "-n",
            "shop",
            "gateway/taken",
            "service/taken",
            "pod/taken",
            "serviceaccount/taken",
        ])
        .await
        .map(drop)
}

/// What is applied and refused.
async fn objects(cluster: &Cluster, report: &mut Report) {
    let object = |api: &str, kind: &str, labels: &str, spec: &str| {
        format!(
            "apiVersion: {api}\nkind: {kind}\nmetadata: {{name: thief, namespace: shop, labels: {{{labels}}}}}\nspec: {spec}\n"
        )
    };
    let thief = SPEC.replace("ACCOUNT", "waypoint");
    let innocent = SPEC.replace("ACCOUNT", "default");
    let set = |labels: &str, spec: &str| {
        format!(
            "{{selector: {{matchLabels: {{app: thief}}}}, template: {{metadata: {{labels: {{app: thief{labels}}}}}, spec: {spec}}}}}"
        )
    };
    let mark = "trefoil.dev/managed-by: gateway-controller";
    let reserved = "service account waypoint is the waypoint's";
    let label = "label trefoil.dev/managed-by says";
    for (what, object, mention) in [
        (
            "a pod with a waypoint's account",
            object("v1", "Pod", "", &thief),
            reserved,
        ),
        (
            "a Deployment with a waypoint's account",
            object("apps/v1", "Deployment", "", &set("", &thief)),
            reserved,
        ),
        (
            "a ReplicaSet with a waypoint's account",
            object("apps/v1", "ReplicaSet", "", &set("", &thief)),
            reserved,
        ),
        (
            "a pod that says the mesh made it",
            object("v1", "Pod", mark, &innocent),
            label,
        ),
        (
            "a Deployment whose pods say the mesh made them",
            object("apps/v1", "Deployment", "", &set(&format!(", {mark}"), &innocent)),
            label,
        ),
    ] {
        let apply = ["kubectl", "apply", "-f", "-"];
        let result = refused(cluster.on("n1", &apply, Some(&object)).await, mention);
        report.check(format!("{what} is refused"), result);
    }
}

/// What is changed and refused.
async fn commands(cluster: &Cluster, report: &mut Report) -> anyhow::Result<()> {
    let own = "gateway.networking.k8s.io/gateway-name=waypoint";
    let get = [
        "get",
        "pods",
        "-n",
        "shop",
        "-l",
        own,
        "-o",
        "jsonpath={.items[0].metadata.name}",
    ];
    let pod = cluster.kubectl(&get).await?;
    let mark = "trefoil.dev/managed-by=gateway-controller";
    let image = "trefoil-waypoint=kube.test/trefoil-e2e:1";
    let runs = "what a waypoint's pods run";
    // Both policies refuse it, and the API server says one of them.
    let either = "what a waypoint's pods run|is the waypoint's";
    let label = "label trefoil.dev/managed-by says";
    let pod_image = ["set", "image", &format!("pod/{pod}"), image].map(str::to_owned);
    let debug = [
        "debug",
        &pod,
        "--profile=restricted",
        "--image=kube.test/trefoil-e2e:1",
        "--attach=false",
    ];
    let impersonated = [
        "create",
        "serviceaccount",
        "any",
        "--as=system:serviceaccount:trefoil-system:trefoil-control-plane",
    ];
    let pod_image: Vec<&str> = pod_image.iter().map(String::as_str).collect();
    let tries: [(&str, &[&str], &str); 6] = [
        (
            "a pod that becomes one of a waypoint",
            &["label", "pod", "v1", mark],
            label,
        ),
        ("another image in a waypoint's pod", &pod_image, runs),
        (
            "another image in a waypoint's Deployment",
            &["set", "image", "deployment/waypoint", image],
            either,
        ),
        ("a container that is put into a waypoint's pod", &debug, runs),
        (
            "a token of a waypoint's account",
            &["create", "token", "waypoint"],
            "is the waypoint's",
        ),
        (
            "what the control plane would write of others",
            &impersonated,
            "nothing but what it has made",
        ),
    ];
    for (what, command, mention) in tries {
        let command = [&["-n", "shop"], command].concat();
        let result = refused(cluster.kubectl(&command).await, mention);
        report.check(format!("{what} is refused"), result);
    }
    Ok(())
}

/// Refused, with one of the reasons that `mention` has between its bars.
fn refused(outcome: anyhow::Result<String>, mention: &str) -> anyhow::Result<String> {
    match outcome {
        Ok(said) => bail!("it was admitted: {said}"),
        Err(error) => {
            let said = format!("{error:#}");
            let right = mention.split('|').any(|reason| said.contains(reason));
            ensure!(right, "refused for another reason: {said}");
            Ok(said
                .rsplit("denied request: ")
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned())
        }
    }
}

/// What the authority says to the pod.
async fn signed(cluster: &Cluster, wanted: bool) -> anyhow::Result<String> {
    let control_plane = cluster.service("trefoil-system", "trefoil-control-plane").await?;
    let url = format!("https://{control_plane}:15012");
    let ask = [
        "certificate",
        "--control-plane",
        &url,
        "--token",
        "/token/token",
        "--root",
        "/root/root-cert.pem",
        "--out",
        "/out",
    ];
    eventually(SOON, async || {
        let answer: Answer = cluster.program_in("shop", "taken", &ask, LIMIT).await?;
        match &answer {
            Answer::Signed(names) if wanted => Ok(names.join(", ")),
            Answer::Refused { message, .. } if !wanted && message.contains("reserved_for_waypoint") => {
                Ok(message.clone())
            }
            other => bail!("{other:?}"),
        }
    })
    .await
}

async fn taken(cluster: &Cluster) -> anyhow::Result<String> {
    eventually(Duration::from_secs(10), async || {
        let programmed = condition(cluster, "taken", "Programmed").await?;
        let message = programmed["message"].as_str().context("no message")?;
        ensure!(
            programmed["status"] == "False"
                && programmed["reason"] == "NoResources"
                && message.contains("exists"),
            "{programmed}"
        );
        let path = "jsonpath={.metadata.labels}{.metadata.ownerReferences}{.spec.selector}";
        let service = cluster
            .kubectl(&["get", "service", "-n", "shop", "taken", "-o", path])
            .await?;
        ensure!(
            service == "{\"app\":\"taken\"}",
            "the Service was changed: {service}"
        );
        let made = [
            "get",
            "deployments",
            "-n",
            "shop",
            "--ignore-not-found",
            "taken",
            "-o",
            "name",
        ];
        let made = cluster.kubectl(&made).await?;
        ensure!(made.is_empty(), "made beside it: {made}");
        Ok(message.to_owned())
    })
    .await
}
