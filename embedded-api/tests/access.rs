//! Who may ask the embedded API what, over the wire: tokens, reviews, refusals.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;

use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest, TokenRequestSpec, TokenReview, TokenReviewSpec,
};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;
use support::Api as Running;

async fn pod(running: &Running, namespace: &str, name: &str, account: &str, node: &str) -> Pod {
    let pods: Api<Pod> = Api::namespaced(running.admin().await, namespace);
    let pod = serde_json::from_value(json!({
        "metadata": { "name": name },
        "spec": { "nodeName": node, "serviceAccountName": account, "containers": [{ "name": "c" }] },
    }));
    pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap()
}

async fn token(
    running: &Running,
    namespace: &str,
    account: &str,
    pod: Option<&Pod>,
    audiences: &[&str],
) -> kube::Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(running.admin().await, namespace);
    let bound = pod.map(|pod| BoundObjectReference {
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    });
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(audiences.iter().map(|&audience| audience.to_owned()).collect()),
            bound_object_ref: bound,
            expiration_seconds: Some(600),
        }),
        ..Default::default()
    };
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await?;
    Ok(answer.status.unwrap().token.unwrap())
}

async fn review(client: kube::Client, token: &str, audience: &str) -> kube::Result<TokenReview> {
    let spec = TokenReviewSpec {
        audiences: Some(vec![audience.into()]),
        token: token.into(),
    };
    Api::all(client)
        .create(
            &PostParams::default(),
            &TokenReview {
                spec,
                ..Default::default()
            },
        )
        .await
}

fn refused(result: kube::Result<impl std::fmt::Debug>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_reviewed_as_kubernetes_does() {
    let running = Running::start().await;
    let web = pod(&running, "default", "web", "default", "n1").await;
    let issued = token(&running, "default", "default", Some(&web), &["trefoil-ca"])
        .await
        .unwrap();

    let control_plane = running.control_plane().await;
    let status = review(control_plane.clone(), &issued, "trefoil-ca")
        .await
        .unwrap()
        .status
        .unwrap();
    assert_eq!(status.authenticated, Some(true));
    assert_eq!(status.audiences, Some(vec!["trefoil-ca".to_owned()]));
    let user = status.user.unwrap();
    assert_eq!(
        user.username.as_deref(),
        Some("system:serviceaccount:default:default")
    );
    assert!(
        user.groups
            .unwrap()
            .contains(&"system:serviceaccounts:default".to_owned())
    );
    let extra = user.extra.unwrap();
    let said = |key: &str| extra[&format!("authentication.kubernetes.io/{key}")].clone();
    assert_eq!(said("pod-name"), ["web"]);
    assert_eq!(said("pod-uid"), [web.metadata.uid.unwrap()]);
    assert_eq!(said("node-name"), ["n1"]);

    let elsewhere = review(control_plane.clone(), &issued, "another")
        .await
        .unwrap()
        .status
        .unwrap();
    assert_eq!(elsewhere.authenticated, Some(false));
    let pods: Api<Pod> = Api::namespaced(running.admin().await, "default");
    pods.delete("web", &DeleteParams::default()).await.unwrap();
    let gone = review(control_plane, &issued, "trefoil-ca")
        .await
        .unwrap()
        .status
        .unwrap();
    assert_eq!(gone.authenticated, Some(false));
    assert!(gone.error.unwrap().contains("gone"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_not_bound_to_another_accounts_pod() {
    let running = Running::start().await;
    let web = pod(&running, "trefoil-system", "web", "trefoil-node", "n1").await;
    assert_eq!(
        refused(token(&running, "trefoil-system", "trefoil-cni", Some(&web), &[]).await),
        400
    );
    assert_eq!(
        refused(token(&running, "default", "missing", None, &[]).await),
        404
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_writes_its_own_nodes_pods_only() {
    let running = Running::start().await;
    let agent = pod(&running, "trefoil-system", "agent", "trefoil-cni", "n1").await;
    for (name, node) in [("here", "n1"), ("there", "n2")] {
        pod(&running, "default", name, "default", node).await;
    }
    let issued = token(&running, "trefoil-system", "trefoil-cni", Some(&agent), &[])
        .await
        .unwrap();
    let client = running.with_token(Some(&issued)).await;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let parameters = PatchParams::default();
    let annotation =
        Patch::Merge(json!({ "metadata": { "annotations": { "trefoil.dev/redirection": "node" } } }));
    pods.patch("here", &parameters, &annotation).await.unwrap();
    assert_eq!(refused(pods.patch("there", &parameters, &annotation).await), 403);
    let label = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
    assert_eq!(refused(pods.patch("here", &parameters, &label).await), 403);
    let wanted = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "new" } });
    let apply = PatchParams::apply("agent").force();
    assert_eq!(
        refused(pods.patch("new", &apply, &Patch::Apply(wanted)).await),
        404
    );
    assert_eq!(refused(pods.delete("here", &DeleteParams::default()).await), 403);
    assert_eq!(
        refused(
            Api::<Secret>::all(client.clone())
                .list(&ListParams::default())
                .await
        ),
        403
    );
    assert_eq!(pods.list(&ListParams::default()).await.unwrap().items.len(), 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_control_plane_keeps_its_own_and_strangers_get_nothing() {
    let running = Running::start().await;
    let control_plane = running.control_plane().await;
    let map: ConfigMap =
        serde_json::from_value(json!({ "metadata": { "name": "trefoil-ca-root" }, "data": {} })).unwrap();
    Api::namespaced(control_plane.clone(), "default")
        .create(&PostParams::default(), &map)
        .await
        .unwrap();
    let secrets: Api<Secret> = Api::namespaced(control_plane.clone(), "default");
    assert_eq!(refused(secrets.list(&ListParams::default()).await), 403);

    let stranger = token(&running, "default", "default", None, &[]).await.unwrap();
    let client = running.with_token(Some(&stranger)).await;
    assert_eq!(
        refused(
            Api::<Node>::all(client.clone())
                .list(&ListParams::default())
                .await
        ),
        403
    );
    assert_eq!(refused(review(client.clone(), &stranger, "x").await), 403);
    client.list_core_api_resources("v1").await.unwrap();
    for (credential, code) in [(None, 403), (Some("nonsense"), 401), (Some(""), 401)] {
        let client = running.with_token(credential).await;
        client
            .apiserver_version()
            .await
            .map_or_else(|_| assert_eq!(code, 401), |_| assert_eq!(code, 403));
        assert_eq!(
            refused(Api::<Pod>::all(client).list(&ListParams::default()).await),
            code,
            "{credential:?}"
        );
    }
    let other_audience = token(&running, "default", "default", None, &["trefoil-ca"])
        .await
        .unwrap();
    let client = running.with_token(Some(&other_audience)).await;
    assert_eq!(
        refused(Api::<Pod>::all(client).list(&ListParams::default()).await),
        401
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kubeconfig_is_the_owners_alone_and_outlives_a_restart() {
    use std::os::unix::fs::PermissionsExt;

    let running = Running::start().await;
    let mode = std::fs::metadata(running.kubeconfig())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = running.embedded.admin_kubeconfig().clone();
    pod(&running, "default", "kept", "default", "n1").await;
    let running = running.restart().await;
    let after = running.embedded.admin_kubeconfig();
    assert_eq!(before["users"], after["users"]);
    assert_eq!(
        before["clusters"][0]["cluster"]["certificate-authority-data"],
        after["clusters"][0]["cluster"]["certificate-authority-data"]
    );
    Api::<Pod>::namespaced(running.admin().await, "default")
        .get("kept")
        .await
        .unwrap();
    running.stop().await;
}
