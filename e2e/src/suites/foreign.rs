//! Somebody else's code: a real ztunnel in the place of the second node's proxy, fed by our control plane
//! and our agent, exchanging traffic both ways with our node proxy and our sidecar. So both ends are not
//! only ours agreeing with each other.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::capture::Capture;
use crate::mesh::standard::Standard;
use crate::mesh::{Mesh, Pod, eventually};
use crate::programs::call::Target;
use crate::programs::port;
use crate::programs::session::Protocol;
use crate::report::Report;

const PROTOCOLS: [Protocol; 5] = [
    Protocol::H1,
    Protocol::H2,
    Protocol::Grpc,
    Protocol::WebSocket,
    Protocol::Tcp,
];

/// The mesh's programs, with a stand-in for the node proxy that becomes the ztunnel on the second node.
const STAND_IN: &str = r#"#!/bin/bash
# Becomes a ztunnel on node n2, and our own node proxy elsewhere.
set -eu
ours="$1" theirs="$2"
flag() { local last=; for argument in "${@:2}"; do [ "$last" = "$1" ] && echo "$argument" && return; last=$argument; done; }
shift 2
node=$(flag --node "$@")
[ "${1:-}" = run ] && [ "$node" = n2 ] || exec "$ours" "$@"
name=trefoil-control-plane.trefoil-system.svc
exec env -i PATH="$PATH" PROXY_MODE=shared NODE_NAME="$node" CLUSTER_ID=Kubernetes RUST_LOG="${RUST_LOG:-info}" \
  POD_NAME="ztunnel-$node" POD_NAMESPACE=trefoil-system INSTANCE_IP=127.0.0.1 \
  INPOD_UDS="$(flag --run-dir "$@")/pods.sock" AUTH_TOKEN="$(flag --token "$@")" \
  XDS_ADDRESS="$(flag --control-plane "$@")" XDS_ROOT_CA="$(flag --root-cert "$@")" ALT_XDS_HOSTNAME=$name \
  CA_ADDRESS="$(flag --control-plane "$@")" CA_ROOT_CA="$(flag --root-cert "$@")" ALT_CA_HOSTNAME=$name \
  "$theirs"
"#;

pub(super) async fn run(report: &mut Report) -> anyhow::Result<()> {
    let Some(ztunnel) = std::env::var_os("ZTUNNEL").map(PathBuf::from) else {
        report.note("NOT RUN: no ztunnel is given (ZTUNNEL is not set)");
        report.absent();
        return Ok(());
    };
    ensure!(
        ztunnel.exists(),
        "ZTUNNEL names {}, which is not there",
        ztunnel.display()
    );
    let folder = programs(&ztunnel)?;
    let mesh = Mesh::up_from(&super::mesh_of("ztunnel"), &[], folder.path().into()).await?;
    let standard = Standard::over(mesh).await?;
    let far = standard.run_client("ambient", "far", "far", "n2").await?;
    let ambient = standard.client("ambient")?.clone();
    let sidecar = standard.client("sidecar")?.clone();
    report.check(
        "the second node's proxy is the ztunnel",
        it_runs(&standard, &ztunnel),
    );
    let routes = [
        Route::new(
            "our node proxy → ztunnel",
            &ambient,
            "client",
            standard.server("ambient", "n2")?,
        ),
        Route::new(
            "our sidecar → ztunnel",
            &sidecar,
            "client",
            standard.server("ambient", "n2")?,
        ),
        Route::new(
            "ztunnel → our node proxy",
            &far,
            "far",
            standard.server("ambient", "n1")?,
        ),
        Route::new(
            "ztunnel → our sidecar, other node",
            &far,
            "far",
            standard.server("sidecar", "n1")?,
        ),
        Route::new(
            "ztunnel → our sidecar, same node",
            &far,
            "far",
            standard.server("sidecar", "n2")?,
        ),
    ];
    for route in &routes {
        report.check(route.name, route.served(&standard).await);
        report.check(format!("{}, IPv6", route.name), route.served_v6(&standard).await);
        if route.client.node != route.server.node {
            report.check(
                format!("{}, on the wire", route.name),
                route.encrypted(&standard).await,
            );
        }
        for (action, who, wanted) in [
            ("Allow", route.identity(), true),
            ("Allow", "cluster.local/ns/ambient/sa/nobody".to_owned(), false),
            ("Deny", route.identity(), false),
            ("Deny", "cluster.local/ns/ambient/sa/nobody".to_owned(), true),
        ] {
            let result = route.under(&standard, action, &who, wanted).await;
            report.check(format!("{}, {action} {who}", route.name), result);
        }
        standard
            .mesh
            .delete("authorizationpolicy", &route.server.namespace, "foreign")
            .await?;
    }
    standard.mesh.down().await
}

/// A folder with our programs and the stand-in among them.
fn programs(ztunnel: &Path) -> anyhow::Result<tempfile::TempDir> {
    let own = std::env::current_exe()?;
    let own = own.parent().context("the program's folder")?;
    let folder = tempfile::tempdir_in(own)?;
    for name in [
        "trefoilctl",
        "trefoil-control-plane",
        "trefoil-sidecar",
        "trefoil-cni",
    ] {
        std::fs::hard_link(own.join(name), folder.path().join(name)).with_context(|| name.to_owned())?;
    }
    let script = folder.path().join("stand-in");
    std::fs::write(&script, STAND_IN)?;
    let entry = folder.path().join("trefoil-node");
    let line = format!(
        "#!/bin/bash\nexec bash '{}' '{}' '{}' \"$@\"\n",
        script.display(),
        own.join("trefoil-node").display(),
        ztunnel.display()
    );
    std::fs::write(&entry, line)?;
    std::fs::set_permissions(&entry, std::fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

fn it_runs(standard: &Standard, ztunnel: &Path) -> anyhow::Result<String> {
    let process = standard.mesh.process_in(&standard.mesh.node("n2"), ztunnel)?;
    Ok(format!("process {process}"))
}

/// From a client to a server, one of whose planes is the ztunnel.
struct Route {
    name: &'static str,
    client: Pod,
    account: &'static str,
    server: Pod,
}

impl Route {
    fn new(name: &'static str, client: &Pod, account: &'static str, server: &Pod) -> Self {
        Self {
            name,
            client: client.clone(),
            account,
            server: server.clone(),
        }
    }

    fn identity(&self) -> String {
        format!("cluster.local/ns/{}/sa/{}", self.client.namespace, self.account)
    }

    fn targets(&self, v6: bool) -> [Target; PROTOCOLS.len()] {
        PROTOCOLS.map(|protocol| {
            let port = if protocol == Protocol::Tcp {
                port::TCP
            } else {
                port::HTTP
            };
            Target {
                protocol,
                address: self.server.over(v6, port),
            }
        })
    }

    async fn served(&self, standard: &Standard) -> anyhow::Result<String> {
        self.all_served(standard, false).await
    }

    async fn served_v6(&self, standard: &Standard) -> anyhow::Result<String> {
        self.all_served(standard, true).await
    }

    async fn all_served(&self, standard: &Standard, v6: bool) -> anyhow::Result<String> {
        let calls = standard.call_from(&self.client, &self.targets(v6), 5).await?;
        for calls in &calls {
            ensure!(calls.served() == 5, "{}: {:?}", calls.target, calls.outcomes);
        }
        Ok("20 of 20 served, in four protocols".into())
    }

    async fn encrypted(&self, standard: &Standard) -> anyhow::Result<String> {
        let capture = Capture::start(&standard.mesh.lan()).await?;
        let served = self.served(standard).await;
        let captured = capture.stop().await?;
        served?;
        ensure!(captured.plaintext == 0 && captured.tunnelled > 0, "{captured:?}");
        Ok(format!(
            "{} packets of tunnels, no plaintext marker",
            captured.tunnelled
        ))
    }

    async fn under(
        &self,
        standard: &Standard,
        action: &str,
        who: &str,
        wanted: bool,
    ) -> anyhow::Result<String> {
        let policy = format!(
            "apiVersion: trefoil.dev/v1alpha1\nkind: AuthorizationPolicy\n\
             metadata: {{name: foreign, namespace: {}}}\n\
             spec: {{action: {action}, rules: [{{from: [{{principals: [\"{who}\"]}}]}}]}}\n",
            self.server.namespace
        );
        standard.mesh.apply(&policy).await?;
        let [.., target] = self.targets(false);
        eventually(Duration::from_secs(15), async || {
            let calls = standard.call_from(&self.client, &[target], 1).await?;
            ensure!((calls[0].served() == 1) == wanted, "{:?}", calls[0].outcomes);
            Ok(())
        })
        .await?;
        let calls = standard.call_from(&self.client, &self.targets(false), 3).await?;
        let served: usize = calls.iter().map(crate::programs::call::Calls::served).sum();
        let all = PROTOCOLS.len() * 3;
        let expected = if wanted { all } else { 0 };
        ensure!(served == expected, "{served} of {all} served: {calls:?}");
        Ok(format!("{expected} of {all} served"))
    }
}
