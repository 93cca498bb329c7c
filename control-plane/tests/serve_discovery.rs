//! Discovery over real TLS: connect, change, reconnect, refuse, lag; and what agents report.
#![allow(clippy::unwrap_used)]

mod serve_support;

use std::collections::{BTreeSet, HashMap};

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use prost::Message;
use serde_json::json;
use serve_support::stubs::trefoil::v1::node_agent_service_client::NodeAgentServiceClient;
use serve_support::{Discovery, Mesh, create, subscribe, until, with_token, within};
use tokio::sync::mpsc;
use tonic::Code;
use trefoil_api::crd::AuthorizationPolicy;
use trefoil_api::names::MESH_SETTINGS as MESH_SETTINGS_NAME;
use trefoil_api::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use trefoil_api::proto::istio::workload::{Address, TunnelProtocol, address};
use trefoil_api::proto::trefoil::v1::agent_notice::Notice;
use trefoil_api::proto::trefoil::v1::{
    AgentReport, MeshSettings, Outbound, Plane, PodPlacement, WithdrawalAcknowledged,
};
use trefoil_api::proto::type_url::{ADDRESS, AUTHORIZATION, MESH_SETTINGS};

const WEB: &str = "Kubernetes//Pod/shop/web";

async fn mesh() -> (Mesh, String) {
    let mesh = Mesh::start().await;
    mesh.namespace("shop", json!({})).await;
    mesh.node("n1").await;
    mesh.pod("trefoil-system", "node-1", "trefoil-node", "n1", "10.0.1.2")
        .await;
    mesh.pod("shop", "web", "web", "n1", "10.0.1.1").await;
    let token = mesh
        .token("trefoil-system", "trefoil-node", Some("node-1"), "trefoil-ca")
        .await;
    (mesh, token)
}

async fn policy(mesh: &Mesh, name: &str, spec: serde_json::Value) -> Api<AuthorizationPolicy> {
    let api: Api<AuthorizationPolicy> = Api::namespaced(mesh.client.clone(), "shop");
    let object = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
    create(&api, object).await;
    api
}

fn both() -> Vec<trefoil_api::proto::envoy::service::discovery::v3::DeltaDiscoveryRequest> {
    vec![subscribe(ADDRESS), subscribe(AUTHORIZATION)]
}

fn tunnel(response: &DeltaDiscoveryResponse) -> TunnelProtocol {
    let resource = response.resources.iter().find(|one| one.name == WEB).unwrap();
    let any = resource.resource.clone().unwrap();
    match Address::decode(any.value.as_slice()).unwrap().r#type.unwrap() {
        address::Type::Workload(workload) => workload.tunnel_protocol(),
        address::Type::Service(_) => panic!("a service"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_without_a_valid_token_are_turned_away() {
    let (mesh, _) = mesh().await;
    let elsewhere = mesh.token("shop", "web", Some("web"), "elsewhere").await;
    for token in ["", "nonsense", elsewhere.as_str()] {
        let refused = Discovery::connect(&mesh, token, both()).await.err().unwrap();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_connects_follows_and_reconnects_without_being_sent_what_it_holds() {
    let (mesh, token) = mesh().await;
    policy(
        &mesh,
        "allow",
        json!({"selector": {"matchLabels": {"app": "web"}}, "rules": [{}]}),
    )
    .await;
    let mut client = Discovery::connect(&mesh, &token, both()).await.unwrap();
    let mut held: HashMap<&str, HashMap<String, String>> = HashMap::new();
    let mut first = Vec::new();
    // Until the workload names the policy.
    loop {
        let response = client.next().await;
        first.push(response.type_url.clone());
        let kind = if response.type_url == ADDRESS {
            ADDRESS
        } else {
            AUTHORIZATION
        };
        let versions = held.entry(kind).or_default();
        versions.extend(
            response
                .resources
                .iter()
                .map(|one| (one.name.clone(), one.version.clone())),
        );
        let names_it = response.resources.iter().any(|one| {
            let any = one.resource.clone().unwrap();
            one.name == WEB && String::from_utf8_lossy(&any.value).contains("shop/allow")
        });
        if names_it {
            break;
        }
    }
    assert_eq!(first[0], AUTHORIZATION, "policies come first");
    assert!(held[AUTHORIZATION].contains_key("shop/allow"));
    drop(client);
    // The same store, another process: the versions are those of the content.
    let mesh = mesh.restart().await;
    let mut again = both();
    for request in &mut again {
        request.initial_resource_versions = held[request.type_url.as_str()].clone();
    }
    again[1]
        .initial_resource_versions
        .insert("shop/vanished".into(), "1".into());
    let mut client = Discovery::connect(&mesh, &token, again).await.unwrap();
    // Both types are answered; the policy goes after the workloads that may have named it.
    let (mut answered, mut removed) = (BTreeSet::new(), Vec::new());
    while answered.len() < 2 || removed.is_empty() {
        let response = client.next().await;
        let sent: Vec<_> = response.resources.iter().map(|one| &one.name).collect();
        assert!(sent.is_empty(), "sent again: {sent:?}");
        answered.insert(response.type_url);
        removed.extend(response.removed_resources);
    }
    assert_eq!(removed, vec!["shop/vanished"]);
    mesh.stop().await;
}

/// The next settings that are sent.
async fn settings(client: &mut Discovery) -> MeshSettings {
    let response = client.next_with(MESH_SETTINGS_NAME).await;
    let any = response.resources[0].resource.clone().unwrap();
    assert_eq!(any.type_url, MESH_SETTINGS);
    MeshSettings::decode(any.value.as_slice()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_follow_the_config_map_and_a_malformed_one_changes_nothing() {
    let (mesh, token) = mesh().await;
    let mut client = Discovery::connect(&mesh, &token, vec![subscribe(MESH_SETTINGS)])
        .await
        .unwrap();
    assert_eq!(settings(&mut client).await.outbound(), Outbound::AllowAny);
    let maps: Api<ConfigMap> = Api::namespaced(mesh.client.clone(), "trefoil-system");
    let text = |yaml: &str| json!({"data": {"mesh.yaml": yaml}});
    let mut object = text("outbound: RegistryOnly\nconnectionMaxAge: 90s\n");
    object["metadata"] = json!({"name": "trefoil-mesh", "namespace": "trefoil-system"});
    create(&maps, object).await;
    let changed = settings(&mut client).await;
    assert_eq!(changed.outbound(), Outbound::RegistryOnly);
    assert_eq!(changed.connection_max_age, 90);
    // What is malformed is passed over: the next that is sent is the next good one.
    for yaml in [
        "outbound: Maybe\n",
        "outbound: RegistryOnly\nconnectionMaxAge: 2m\n",
    ] {
        let patch = Patch::Merge(text(yaml));
        maps.patch("trefoil-mesh", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }
    let last = settings(&mut client).await;
    assert_eq!(last.outbound(), Outbound::RegistryOnly);
    assert_eq!(last.connection_max_age, 120);
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_answers_holds_up_nobody() {
    let (mesh, token) = mesh().await;
    let mut slow = Discovery::connect(&mesh, &token, both()).await.unwrap();
    let unanswered = slow.receive().await;
    let mut quick = Discovery::connect(&mesh, &token, both()).await.unwrap();
    for round in 0..20 {
        let name = format!("policy-{round}");
        policy(&mesh, &name, json!({"rules": [{}]})).await;
        quick.next_with(&format!("shop/{name}")).await;
    }
    let summaries = mesh.control_plane.hub.summaries();
    let pending: Vec<usize> = summaries
        .iter()
        .flat_map(|client| client.types.iter().map(|one| one.summary.pending))
        .collect();
    assert!(pending.iter().all(|pending| *pending <= 25), "{pending:?}");
    // It gets the latest once it answers.
    slow.acknowledge(&unanswered, None).await;
    slow.next_with("shop/policy-19").await;
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_visible() {
    let (mesh, token) = mesh().await;
    policy(&mesh, "bad", json!({"rules": [{}]})).await;
    let mut client = Discovery::connect(&mesh, &token, both()).await.unwrap();
    loop {
        let response = client.receive().await;
        if response.resources.iter().any(|one| one.name == "shop/bad") {
            client.acknowledge(&response, Some("shop/bad: not today")).await;
            break;
        }
        client.acknowledge(&response, None).await;
    }
    until(async || {
        let all = mesh.control_plane.hub.summaries();
        let refusals = all
            .iter()
            .flat_map(|client| client.types.iter().filter_map(|one| one.summary.refusal.clone()));
        refusals
            .into_iter()
            .find(|refusal| refusal == "shop/bad: not today")
    })
    .await;
    let metrics = mesh.metrics().await;
    assert!(
        metrics.contains("xds_nacks_total{type=\"authorization\"} 1"),
        "{metrics}"
    );
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_malformed_policy_says_so_in_its_status() {
    let (mesh, _) = mesh().await;
    let api = policy(&mesh, "p", json!({"rules": [{"to": [{"methods": ["GET"]}]}]})).await;
    let condition = async |kind: &str, reason: &str| {
        until(async || {
            let status = api.get("p").await.unwrap().status?;
            status
                .conditions
                .into_iter()
                .find(|one| one.type_ == kind && one.reason == reason)
        })
        .await
    };
    assert_eq!(condition("Enforced", "NeedsHttp").await.status, "False");
    let broken = Patch::Merge(json!({"spec": {"rules": [{"to": [{"ports": [0]}]}]}}));
    api.patch("p", &PatchParams::default(), &broken).await.unwrap();
    let malformed = condition("Accepted", "Malformed").await;
    assert_eq!(malformed.status, "False");
    assert!(
        malformed.message.contains("spec.rules[0].to[0].ports[0]"),
        "{}",
        malformed.message
    );
    assert!(
        malformed.message.contains("stays in force"),
        "{}",
        malformed.message
    );
    mesh.stop().await;
}

struct Agent {
    reports: mpsc::Sender<AgentReport>,
    notices: tonic::Streaming<trefoil_api::proto::trefoil::v1::AgentNotice>,
}

impl Agent {
    async fn connect(mesh: &Mesh) -> Self {
        mesh.pod("trefoil-system", "agent-1", "trefoil-cni", "n1", "10.0.1.3")
            .await;
        let token = mesh
            .token("trefoil-system", "trefoil-cni", Some("agent-1"), "trefoil-ca")
            .await;
        let (reports, receiver) = mpsc::channel(8);
        let mut client = NodeAgentServiceClient::new(mesh.channel().await);
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let notices = within(client.report(with_token(outgoing, &token)))
            .await
            .unwrap()
            .into_inner();
        Self { reports, notices }
    }

    async fn report(&self, pod: PodPlacement, snapshot: bool) {
        let report = AgentReport {
            pods: vec![pod],
            snapshot,
            ..AgentReport::default()
        };
        self.reports.send(report).await.unwrap();
    }

    async fn acknowledged(&mut self) -> WithdrawalAcknowledged {
        let notice = within(self.notices.next()).await.unwrap().unwrap();
        let Some(Notice::WithdrawalAcknowledged(notice)) = notice.notice else {
            panic!("{notice:?}")
        };
        notice
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_follow_the_agent_and_withdrawals_are_acknowledged() {
    let (mesh, token) = mesh().await;
    let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(mesh.client.clone(), "shop");
    let placement = PodPlacement {
        uid: pods.get("web").await.unwrap().metadata.uid.unwrap(),
        namespace: "shop".into(),
        name: "web".into(),
        plane: Plane::Node.into(),
        withdrawing: false,
    };
    let mut client = Discovery::connect(&mesh, &token, both()).await.unwrap();
    let before = client.next_with(WEB).await;
    assert_eq!(tunnel(&before), TunnelProtocol::None);
    let mut agent = Agent::connect(&mesh).await;
    agent.report(placement.clone(), true).await;
    let placed = client.next_with(WEB).await;
    assert_eq!(tunnel(&placed), TunnelProtocol::Hbone);
    let withdrawing = PodPlacement {
        withdrawing: true,
        ..placement.clone()
    };
    agent.report(withdrawing.clone(), false).await;
    let withdrawn = client.next_with(WEB).await;
    assert_eq!(tunnel(&withdrawn), TunnelProtocol::None);
    let notice = agent.acknowledged().await;
    assert_eq!(
        (notice.uid, notice.unanswered),
        (placement.uid.clone(), Vec::new())
    );

    // Again, and this time the client does not answer: it is named.
    agent.report(placement, false).await;
    client.next_with(WEB).await;
    agent.report(withdrawing, false).await;
    let unanswered = client.receive().await;
    assert_eq!(tunnel(&unanswered), TunnelProtocol::None);
    let notice = agent.acknowledged().await;
    assert_eq!(notice.unanswered.len(), 1);
    assert!(
        notice.unanswered[0].contains("trefoil-node"),
        "{:?}",
        notice.unanswered
    );
    mesh.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_agents_report() {
    let (mesh, token) = mesh().await;
    let mut client = NodeAgentServiceClient::new(mesh.channel().await);
    let nothing = futures::stream::empty::<AgentReport>();
    let refused = within(client.report(with_token(nothing, &token)))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    mesh.stop().await;
}
