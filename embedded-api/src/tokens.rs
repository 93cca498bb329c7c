//! Service account tokens: signed (ES256) by a key that the store keeps, verified against what the store holds.
//!
//! A token whose account or pod is gone is refused, whatever its expiry says.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::authorize::Account;
use crate::kinds;
use crate::store::{Key, Snapshot};

/// Who signs, and the audience of the API itself.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Why a token is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The signing key cannot be used.
    #[error("the token key is damaged: {0}")]
    Key(String),
    /// Not one of ours, or expired.
    #[error("invalid bearer token: {0}")]
    Invalid(#[from] jsonwebtoken::errors::Error),
    /// Expired, or not valid yet.
    #[error("the token has expired or is not valid yet")]
    Expired,
    /// For somebody else.
    #[error("token audiences {0:?} are invalid for the target audiences {1:?}")]
    Audience(Vec<String>, Vec<String>),
    /// The account is gone.
    #[error("service account {0}/{1} has been deleted")]
    AccountGone(String, String),
    /// The pod is gone.
    #[error("pod {0}/{1} that the token is bound to is gone")]
    PodGone(String, String),
}

/// What a token says, as Kubernetes has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Claims {
    aud: Vec<String>,
    exp: u64,
    iat: u64,
    nbf: u64,
    iss: String,
    jti: String,
    sub: String,
    #[serde(rename = "kubernetes.io")]
    about: About,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct About {
    namespace: String,
    serviceaccount: Named,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pod: Option<Named>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    node: Option<Named>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Named {
    name: String,
    #[serde(default)]
    uid: String,
}

/// The key pair of tokens.
pub(crate) struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Tokens")
    }
}

impl Tokens {
    /// From a PKCS #8 PEM of a P-256 key.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn from_pem(pem: &str) -> Result<Self, TokenError> {
        let key = rcgen::KeyPair::from_pem(pem).map_err(|error| TokenError::Key(error.to_string()))?;
        let public = key.public_key_pem();
        Ok(Self {
            encoding: EncodingKey::from_ec_pem(pem.as_bytes())?,
            decoding: DecodingKey::from_ec_pem(public.as_bytes())?,
        })
    }

    /// A token for an account.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub(crate) fn issue(
        &self,
        account: &Account,
        audiences: &[String],
        now: u64,
        seconds: u64,
    ) -> Result<String, TokenError> {
        let claims = Claims {
            aud: audiences.to_vec(),
            exp: now + seconds,
            iat: now,
            nbf: now,
            iss: ISSUER.into(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: account.user(),
            about: About {
                namespace: account.namespace.clone(),
                serviceaccount: Named {
                    name: account.name.clone(),
                    uid: account.uid.clone(),
                },
                pod: account.pod.clone().map(|(name, uid)| Named { name, uid }),
                node: account.node.clone().map(|name| Named {
                    name,
                    uid: String::new(),
                }),
            },
        };
        Ok(jsonwebtoken::encode(
            &Header::new(Algorithm::ES256),
            &claims,
            &self.encoding,
        )?)
    }

    /// Whose a token is, and which of the wanted audiences it is for.
    ///
    /// # Errors
    /// When it is not ours, expired, for others, or of somebody gone.
    pub(crate) fn verify(
        &self,
        token: &str,
        wanted: &[String],
        now: u64,
        content: &Snapshot,
    ) -> Result<(Account, Vec<String>), TokenError> {
        let mut validation = Validation::new(Algorithm::ES256);
        // Checked below, against the clock that was passed in and against any of several audiences.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.set_issuer(&[ISSUER]);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &validation)?.claims;
        if now >= claims.exp || now + 60 < claims.nbf {
            return Err(TokenError::Expired);
        }
        let matching: Vec<String> = wanted
            .iter()
            .filter(|one| claims.aud.contains(one))
            .cloned()
            .collect();
        if matching.is_empty() {
            return Err(TokenError::Audience(claims.aud, wanted.to_vec()));
        }
        let about = claims.about;
        let alive = |resource: &str, named: &Named| {
            content
                .get(&Key::new(resource, &about.namespace, &named.name))
                .is_some_and(|object| object["metadata"]["uid"] == named.uid.as_str())
        };
        if !alive(kinds::SERVICE_ACCOUNT.resource, &about.serviceaccount) {
            return Err(TokenError::AccountGone(
                about.namespace,
                about.serviceaccount.name,
            ));
        }
        if let Some(pod) = &about.pod
            && !alive(kinds::POD.resource, pod)
        {
            return Err(TokenError::PodGone(about.namespace, pod.name.clone()));
        }
        let account = Account {
            namespace: about.namespace,
            name: about.serviceaccount.name,
            uid: about.serviceaccount.uid,
            pod: about.pod.map(|pod| (pod.name, pod.uid)),
            node: about.node.map(|node| node.name),
        };
        Ok((account, matching))
    }
}
