//! The embedded API as the real `kubectl` sees it. Without one the test says so and passes.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use std::io::Write;
use std::process::{Command, Output, Stdio};

use support::Api as Running;

struct Kubectl {
    kubeconfig: std::path::PathBuf,
    cache: tempfile::TempDir,
}

impl Kubectl {
    fn run(&self, arguments: &str, input: Option<&str>) -> Output {
        let mut child = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .arg("--cache-dir")
            .arg(self.cache.path())
            .args(arguments.split(' '))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.unwrap_or_default().as_bytes())
            .unwrap();
        child.wait_with_output().unwrap()
    }

    /// The standard output of a command that succeeds.
    fn ok(&self, arguments: &str, input: Option<&str>) -> String {
        let output = self.run(arguments, input);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "kubectl {arguments}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The standard error of a command that fails.
    fn fails(&self, arguments: &str, input: Option<&str>) -> String {
        let output = self.run(arguments, input);
        assert!(!output.status.success(), "kubectl {arguments} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }
}

fn kubectl(running: &Running) -> Option<Kubectl> {
    if Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .is_err()
    {
        eprintln!("SKIPPED: there is no kubectl on this machine");
        return None;
    }
    Some(Kubectl {
        kubeconfig: running.kubeconfig(),
        cache: tempfile::tempdir().unwrap(),
    })
}

const POD: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: web, image: none}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, clusterIP: 10.96.0.7, ports: [{port: 80}]}
";

const POLICY: &str = r"
apiVersion: trefoil.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: only-web}
spec: {action: ACTION}
";

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_creates_shows_labels_and_deletes() {
    let running = Running::start().await;
    let Some(kubectl) = kubectl(&running) else { return };
    kubectl.ok("create namespace shop", None);
    kubectl.ok("create -n shop --validate=false -f -", Some(POD));
    let pods = kubectl.ok("get pods -n shop -o wide", None);
    assert!(
        pods.starts_with("NAME") && pods.contains("READY") && pods.contains("NODE"),
        "{pods}"
    );
    assert!(pods.lines().nth(1).unwrap().contains("Pending"), "{pods}");
    let services = kubectl.ok("get svc -A", None);
    assert!(
        services.contains("10.96.0.7") && services.contains("80/TCP"),
        "{services}"
    );

    kubectl.ok("label pod web -n shop tier=front", None);
    kubectl.ok("label namespace shop trefoil.dev/dataplane-mode=ambient", None);
    kubectl.ok("annotate pod web -n shop note=here", None);
    assert!(
        kubectl
            .ok("get pods -n shop -l tier=front --no-headers", None)
            .starts_with("web")
    );
    assert!(
        kubectl
            .ok("get pods -A --field-selector spec.nodeName=n1 -o name", None)
            .contains("pod/web")
    );
    assert_eq!(
        kubectl.ok(
            "get ns shop -o jsonpath={.metadata.labels.trefoil\\.dev/dataplane-mode}",
            None
        ),
        "ambient"
    );
    assert!(
        kubectl
            .ok("get pods -n shop --show-labels", None)
            .contains("tier=front")
    );
    kubectl.ok("label namespace shop trefoil.dev/dataplane-mode-", None);

    let object = kubectl.ok("get pod web -n shop -o json", None);
    kubectl.ok(
        "replace -n shop --validate=false -f -",
        Some(&object.replace("\"here\"", "\"there\"")),
    );
    assert!(
        kubectl
            .ok("get pod web -n shop -o yaml", None)
            .contains("note: there")
    );
    kubectl.ok("get all -n shop", None);
    kubectl.ok("delete pod web -n shop", None);
    kubectl.ok("delete namespace shop", None);
    assert!(kubectl.fails("get namespace shop", None).contains("not found"));
    assert!(kubectl.ok("get svc -A -o name", None).is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_shows_why_an_object_is_refused() {
    let running = Running::start().await;
    let Some(kubectl) = kubectl(&running) else { return };
    let refused = kubectl.fails(
        "create --validate=false -f -",
        Some(&POLICY.replace("ACTION", "Nonsense")),
    );
    assert!(
        refused.contains("spec.action: must be Allow, Deny or Audit"),
        "{refused}"
    );
    kubectl.ok(
        "create --validate=false -f -",
        Some(&POLICY.replace("ACTION", "Deny")),
    );
    let shown = kubectl.ok("get authorizationpolicies", None);
    assert!(shown.contains("ACTION") && shown.contains("Deny"), "{shown}");
    assert!(
        kubectl
            .fails("get deployments", None)
            .contains("doesn't have a resource type")
    );
    assert!(
        kubectl
            .fails("create -n nowhere --validate=false -f -", Some(POD))
            .contains("not found")
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_learns_what_there_is_and_who_it_is() {
    let running = Running::start().await;
    let Some(kubectl) = kubectl(&running) else { return };
    let resources = kubectl.ok("api-resources", None);
    assert!(
        resources.contains("peerauthentications") && resources.contains("httproutes"),
        "{resources}"
    );
    kubectl.ok("version", None);
    assert!(kubectl.ok("auth whoami", None).contains("trefoil:admin"));
    assert!(kubectl.ok("auth can-i create pods", None).contains("yes"));
    assert_eq!(
        kubectl
            .ok("create token default --audience trefoil-ca", None)
            .trim()
            .split('.')
            .count(),
        3
    );
    kubectl.ok("create --validate=strict -f -", Some(POD));
    kubectl.ok("apply -f -", Some(POD));
    kubectl.ok("patch pod web -p {\"metadata\":{\"labels\":{\"x\":\"y\"}}}", None);
    kubectl.ok("delete pods --all", None);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_applies_changes_of_lists() {
    let running = Running::start().await;
    let Some(kubectl) = kubectl(&running) else { return };
    kubectl.ok("apply -f -", Some(POD));
    kubectl.ok(
        "apply -f -",
        Some(&POD.replace("port: 80", "port: 80, targetPort: 8080")),
    );
    assert_eq!(
        kubectl.ok("get svc web -o jsonpath={.spec.ports[*].targetPort}", None),
        "8080"
    );
    kubectl.ok("apply -f -", Some(&POD.replace("port: 80", "port: 81")));
    assert_eq!(
        kubectl.ok("get svc web -o jsonpath={.spec.ports[*].port}", None),
        "81"
    );
    kubectl.ok(
        "apply --server-side --force-conflicts -f -",
        Some(&POLICY.replace("ACTION", "Deny")),
    );
    kubectl.ok("create configmap settings --from-literal=a=b", None);
    kubectl.ok("create secret generic key --from-literal=a=b", None);
    assert_eq!(kubectl.ok("get secret key -o jsonpath={.data.a}", None), "Yg==");
    kubectl.ok("describe pod web", None);
    running.stop().await;
}
