//! Where the certificate authority is kept: Secret `trefoil-ca`; and where its roots are handed out: a
//! ConfigMap in every namespace. Several control planes may start at once: one creates, the others read.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use trefoil_api::names::{CA_SECRET, MESH_NAMESPACE, ROOT_CONFIG_MAP, ROOT_KEY};

use super::{Authority, Error, Material};

const CERTIFICATE: &str = "ca-cert.pem";
const KEY: &str = "ca-key.pem";
const CHAIN: &str = "cert-chain.pem";

/// The keys of a Secret that a certificate issuer in the cluster writes and renews (type `kubernetes.io/tls`, with
/// the issuer's own certificate beside it, as cert-manager does): the signing certificate, followed by those up to
/// the root; its key; the root.
const ISSUED: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

fn failed(error: kube::Error) -> Error {
    Error::Api(Box::new(error))
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// The certificate authority of the mesh: the operator's, or one that is made now.
pub async fn load_or_create(client: &Client, trust_domain: &str) -> Result<Authority, Error> {
    create_namespace(client).await?;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), MESH_NAMESPACE);
    if let Some(secret) = secrets.get_opt(CA_SECRET).await.map_err(failed)? {
        return Authority::new(material(&secret)?);
    }
    let made = Material::create(trust_domain)?;
    match secrets.create(&PostParams::default(), &secret(&made)).await {
        Ok(_) => {
            tracing::info!("made a certificate authority: Secret {MESH_NAMESPACE}/{CA_SECRET}");
            Authority::new(made)
        }
        // Another control plane was faster: its authority is the mesh's.
        Err(error) if is_conflict(&error) => {
            let secret = secrets.get(CA_SECRET).await.map_err(failed)?;
            Authority::new(material(&secret)?)
        }
        Err(error) => Err(failed(error)),
    }
}

async fn create_namespace(client: &Client) -> Result<(), Error> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    if namespaces
        .get_opt(MESH_NAMESPACE)
        .await
        .map_err(failed)?
        .is_some()
    {
        return Ok(());
    }
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(MESH_NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    match namespaces.create(&PostParams::default(), &namespace).await {
        Err(error) if !is_conflict(&error) => Err(failed(error)),
        _ => Ok(()),
    }
}

/// Reads the four files, of which the chain may be absent where the signing certificate is a root; or the three of
/// a certificate issuer.
pub(crate) fn material(secret: &Secret) -> Result<Material, Error> {
    let data = secret.data.as_ref();
    let file = |name: &str| {
        let bytes = data.and_then(|data| data.get(name));
        bytes.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())
    };
    let needed = |what: &'static str, name: &str| {
        file(name).ok_or_else(|| Error::Unusable {
            what,
            problem: format!("Secret {MESH_NAMESPACE}/{CA_SECRET} has no {name}"),
        })
    };
    let issued = file(CERTIFICATE).is_none() && file(ISSUED[0]).is_some();
    let [certificate, key, chain, roots] = if issued {
        [ISSUED[0], ISSUED[1], ISSUED[0], ISSUED[2]]
    } else {
        [CERTIFICATE, KEY, CHAIN, ROOT_KEY]
    };
    Ok(Material {
        certificate: needed("the certificate", certificate)?,
        key: needed("the key", key)?,
        chain: file(chain).unwrap_or_default(),
        roots: needed("the root", roots)?,
    })
}

fn secret(material: &Material) -> Secret {
    let file = |text: &str| ByteString(text.as_bytes().to_vec());
    Secret {
        metadata: ObjectMeta {
            name: Some(CA_SECRET.into()),
            namespace: Some(MESH_NAMESPACE.into()),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".into()),
        data: Some(BTreeMap::from([
            (CERTIFICATE.into(), file(&material.certificate)),
            (KEY.into(), file(&material.key)),
            (CHAIN.into(), file(&material.chain)),
            (ROOT_KEY.into(), file(&material.roots)),
        ])),
        ..Secret::default()
    }
}

/// Keeps the authority current, and its roots in every namespace.
#[derive(Clone)]
pub struct Keeper {
    client: Client,
    authority: Arc<ArcSwap<Authority>>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").finish_non_exhaustive()
    }
}

impl Keeper {
    /// Of an authority that was loaded.
    #[must_use]
    pub fn new(client: Client, authority: Authority) -> Self {
        Self {
            client,
            authority: Arc::new(ArcSwap::from_pointee(authority)),
        }
    }

    /// The authority in force.
    #[must_use]
    pub fn authority(&self) -> Arc<Authority> {
        self.authority.load_full()
    }

    /// Takes over what the operator changed. What cannot be used is refused, and the last one stays.
    /// Whether anything differs now.
    pub async fn reload(&self) -> Result<bool, Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), MESH_NAMESPACE);
        let Some(secret) = secrets.get_opt(CA_SECRET).await.map_err(failed)? else {
            // Deleted: the one in force is put back, or else replicas would part ways.
            let again = self::secret(self.authority().material());
            return match secrets.create(&PostParams::default(), &again).await {
                Err(error) if !is_conflict(&error) => Err(failed(error)),
                _ => Ok(false),
            };
        };
        let material = material(&secret)?;
        if *self.authority().material() == material {
            return Ok(false);
        }
        self.authority.store(Arc::new(Authority::new(material)?));
        Ok(true)
    }

    /// Puts the roots into a namespace.
    pub async fn hand_out(&self, namespace: &str) -> Result<(), Error> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let roots = self.authority().roots().to_owned();
        let known = maps.get_opt(ROOT_CONFIG_MAP).await.map_err(failed)?;
        let Some(known) = known else {
            let map = ConfigMap {
                metadata: ObjectMeta {
                    name: Some(ROOT_CONFIG_MAP.into()),
                    namespace: Some(namespace.into()),
                    ..ObjectMeta::default()
                },
                data: Some(BTreeMap::from([(ROOT_KEY.into(), roots)])),
                ..ConfigMap::default()
            };
            return match maps.create(&PostParams::default(), &map).await {
                Err(error) if !is_conflict(&error) => Err(failed(error)),
                _ => Ok(()),
            };
        };
        if known.data.as_ref().and_then(|data| data.get(ROOT_KEY)) == Some(&roots) {
            return Ok(());
        }
        let patch = serde_json::json!({"data": {ROOT_KEY: roots}});
        maps.patch(ROOT_CONFIG_MAP, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map_err(failed)?;
        Ok(())
    }
}
