//! Certificates that are signed with the mesh's own key, as only an administrator could: what a certificate says
//! must not matter less because its signature is good.

use std::path::PathBuf;

use anyhow::Context;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use super::Mesh;
use crate::authority;

impl Mesh {
    /// A certificate of whatever URI names, in a folder of this name.
    pub async fn forged(&self, folder: &str, uris: &[&str]) -> anyhow::Result<PathBuf> {
        let secrets: Api<Secret> = Api::namespaced(self.client().await?, "trefoil-system");
        let data = secrets.get("trefoil-ca").await?.data.unwrap_or_default();
        let read = |key: &str| {
            let content = data.get(key).with_context(|| format!("no {key} in the secret"))?;
            anyhow::Ok(String::from_utf8(content.0.clone())?)
        };
        let out = self.scratch()?.join(folder);
        let uris: Vec<String> = uris.iter().map(|uri| (*uri).to_owned()).collect();
        let (chain, key) = (read("ca-cert.pem")?, read("ca-key.pem")?);
        authority::signed_by(&uris, &chain, &key, &self.root(), &out)?;
        Ok(out)
    }
}
