//! Tokens of service accounts, by the API's own TokenRequest: what the tests show to the control plane is
//! what Kubernetes would have mounted.

use std::path::PathBuf;

use anyhow::Context;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod as PodObject, ServiceAccount};
use kube::Api;
use kube::api::PostParams;

use super::{Mesh, Pod};

impl Mesh {
    /// A token of a service account, bound to a pod where one is given, stored in a file.
    pub async fn token(
        &self,
        account: (&str, &str),
        pod: Option<&Pod>,
        audience: &str,
        seconds: i64,
    ) -> anyhow::Result<PathBuf> {
        let client = self.client().await?;
        let mut bound = None;
        if let Some(pod) = pod {
            let pods: Api<PodObject> = Api::namespaced(client.clone(), &pod.namespace);
            bound = Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: Some(pod.name.clone()),
                uid: pods.get(&pod.name).await?.metadata.uid,
            });
        }
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                audiences: Some(vec![audience.into()]),
                bound_object_ref: bound,
                expiration_seconds: Some(seconds),
            }),
            ..TokenRequest::default()
        };
        let (namespace, name) = account;
        let accounts: Api<ServiceAccount> = Api::namespaced(client, namespace);
        let answer = accounts
            .create_token_request(name, &PostParams::default(), &request)
            .await?;
        let token = answer
            .status
            .and_then(|status| status.token)
            .context("a token request without a token")?;
        let pod = pod.map_or("unbound", |pod| &pod.name);
        let file = self
            .scratch()?
            .join(format!("test-token-{namespace}-{name}-{pod}-{audience}"));
        std::fs::write(&file, token)?;
        Ok(file)
    }
}
