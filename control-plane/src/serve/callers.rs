//! Who calls: a bearer token, reviewed by the API server. Nothing that a caller says of itself is believed.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use kube::Api;
use kube::api::PostParams;
use tonic::{Request, Status};

use super::metrics::{Metrics, ReasonLabel};

/// How long the outcome of a review is believed, unless the token ends sooner.
const REMEMBERED: Duration = Duration::from_secs(30);
/// How many outcomes are remembered.
const CAPACITY: usize = 4096;
/// How long a review may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A service account that showed a valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
    /// The pod that the token is bound to.
    pub pod: Option<BoundPod>,
    /// The node that the token is bound to.
    pub node: Option<String>,
}

/// The pod that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPod {
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.service_account)?;
        if let Some(pod) = &self.pod {
            write!(f, " (pod {})", pod.name)?;
        }
        Ok(())
    }
}

/// Why a caller was turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No token.
    #[error("no bearer token")]
    NoToken,
    /// The API server says no: expired, for another audience, revoked, or not a token.
    #[error("token not accepted: {0}")]
    NotAccepted(String),
    /// Not a service account's.
    #[error("{0:?} is not a service account")]
    NotAServiceAccount(String),
    /// The API server did not answer.
    #[error("tokens cannot be reviewed now: {0}")]
    Unreviewed(String),
}

impl Refusal {
    fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::NotAccepted(_) => "token_not_accepted",
            Self::NotAServiceAccount(_) => "not_a_service_account",
            Self::Unreviewed(_) => "not_reviewed",
        }
    }
}

/// Reviews tokens.
pub struct Callers {
    reviews: Api<TokenReview>,
    audiences: Vec<String>,
    metrics: Arc<Metrics>,
    known: Mutex<HashMap<[u8; 32], (Instant, Caller)>>,
}

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callers")
            .field("audiences", &self.audiences)
            .finish_non_exhaustive()
    }
}

impl Callers {
    /// Accepts tokens for any of these audiences.
    #[must_use]
    pub fn new(client: kube::Client, audiences: Vec<String>, metrics: Arc<Metrics>) -> Self {
        Self {
            reviews: Api::all(client),
            audiences,
            metrics,
            known: Mutex::default(),
        }
    }

    /// The caller of a request, or the status that turns it away. `purpose` is for the log.
    pub async fn authenticate<T>(&self, request: &Request<T>, purpose: &str) -> Result<Caller, Status> {
        let outcome = match bearer(request) {
            Some(token) => self.review(token).await,
            None => Err(Refusal::NoToken),
        };
        outcome.map_err(|refusal| {
            let label = ReasonLabel {
                reason: refusal.reason(),
            };
            self.metrics.unauthenticated.get_or_create(&label).inc();
            let peer = request.remote_addr().map(|peer| peer.to_string());
            tracing::warn!(%refusal, peer, purpose, "caller turned away");
            match refusal {
                Refusal::Unreviewed(_) => Status::unavailable(refusal.to_string()),
                _ => Status::unauthenticated(refusal.to_string()),
            }
        })
    }

    async fn review(&self, token: &str) -> Result<Caller, Refusal> {
        let digest = digest(token);
        if let Some(caller) = self.remembered(&digest) {
            return Ok(caller);
        }
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(self.audiences.clone()),
            },
            ..TokenReview::default()
        };
        self.metrics.token_reviews.inc();
        let parameters = PostParams::default();
        let answer = tokio::time::timeout(PATIENCE, self.reviews.create(&parameters, &review)).await;
        let status = match answer {
            Ok(Ok(review)) => review.status.unwrap_or_default(),
            Ok(Err(error)) => return Err(Refusal::Unreviewed(error.to_string())),
            Err(_) => return Err(Refusal::Unreviewed("no answer from the API server".into())),
        };
        if status.authenticated != Some(true) {
            let why = status.error.unwrap_or_else(|| "not authenticated".into());
            return Err(Refusal::NotAccepted(why));
        }
        // An API server that knows no audiences says nothing about them: then the token is for itself.
        let audiences = status.audiences.unwrap_or_default();
        if !audiences.iter().any(|audience| self.audiences.contains(audience)) {
            return Err(Refusal::NotAccepted("it is for another audience".into()));
        }
        let caller = caller(status.user.unwrap_or_default())?;
        self.remember(digest, token, &caller);
        Ok(caller)
    }

    fn remembered(&self, digest: &[u8; 32]) -> Option<Caller> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, caller) = known.get(digest)?;
        (Instant::now() < *until).then(|| caller.clone())
    }

    fn remember(&self, digest: [u8; 32], token: &str, caller: &Caller) {
        let left = time_left(token, SystemTime::now()).unwrap_or(Duration::ZERO);
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CAPACITY {
            known.retain(|_, (until, _)| now < *until);
        }
        if known.len() < CAPACITY {
            known.insert(digest, (now + REMEMBERED.min(left), caller.clone()));
        }
    }
}

fn bearer<T>(request: &Request<T>) -> Option<&str> {
    let value = request.metadata().get("authorization")?.to_str().ok()?;
    value.strip_prefix("Bearer ").filter(|token| !token.is_empty())
}

fn digest(token: &str) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

/// How long a token that was reviewed is still valid, by its own word; none if it does not say.
fn time_left(token: &str, now: SystemTime) -> Option<Duration> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(claims["exp"].as_u64()?);
    ends.duration_since(now).ok()
}

fn caller(user: UserInfo) -> Result<Caller, Refusal> {
    let username = user.username.unwrap_or_default();
    let account = username
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'));
    let Some((namespace, service_account)) = account else {
        return Err(Refusal::NotAServiceAccount(username));
    };
    let extra = |key: &str| -> Option<String> {
        let values = user
            .extra
            .as_ref()?
            .get(&format!("authentication.kubernetes.io/{key}"))?;
        values.first().cloned()
    };
    Ok(Caller {
        namespace: namespace.into(),
        service_account: service_account.into(),
        pod: extra("pod-name")
            .zip(extra("pod-uid"))
            .map(|(name, uid)| BoundPod { name, uid }),
        node: extra("node-name"),
    })
}
