//! The certificate service: a certificate for the caller itself, or, for the proxy of a node, one for a
//! workload that runs on that node. Every signing and every refusal is logged and counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde::Serialize;
use tonic::{Request, Response, Status};
use trefoil_api::Identity;
use trefoil_api::mesh_config::MeshConfig;
use trefoil_api::names::{MANAGER, label};
use trefoil_api::proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};

use super::callers::{Caller, Callers};
use super::metrics::{Metrics, ReasonLabel};
use super::stubs::istio::v1::auth::istio_certificate_service_server::IstioCertificateService;
use super::xds::Hub;
use crate::ca::{self, Keeper};
use trefoil_control_plane_index::facts;

/// How many of the latest signings are kept to be shown.
const SHOWN: usize = 256;

/// What of the mesh configuration signing needs, as it is now.
pub type Settings = tokio::sync::watch::Receiver<Arc<Mesh>>;

/// The mesh configuration in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mesh {
    /// Who vouches for identities.
    pub trust_domain: String,
    /// The rest.
    pub config: MeshConfig,
}

/// Why a certificate was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The request itself.
    #[error(transparent)]
    Authority(#[from] ca::Error),
    /// Only proxies of nodes may ask for others.
    #[error("{caller} may not ask for {asked}: it is not a node proxy")]
    NotANodeProxy {
        /// Who asked.
        caller: String,
        /// For whom.
        asked: String,
    },
    /// No such workload there.
    #[error("no workload of {asked} runs on node {node}")]
    NotOnNode {
        /// The node of the caller.
        node: String,
        /// For whom.
        asked: String,
    },
    /// A token that is bound to no pod.
    #[error("the node of {0} is not known: its token is bound to no pod")]
    NoNode(String),
    /// The account is a waypoint's, and the caller is none of its pods.
    #[error("{caller} is no pod of waypoint {account}, and its account is nobody else's to use")]
    Reserved {
        /// Who asked.
        caller: String,
        /// The waypoint, and the account of the same name.
        account: String,
    },
    /// Gateways are not known yet: the account may be a waypoint's.
    #[error("this control plane has just started and does not know the waypoints yet: ask again")]
    NotSynced,
    /// Not an identity of this mesh.
    #[error("{0:?} is not an identity of this mesh")]
    NotAnIdentity(String),
    /// The API server does not answer.
    #[error("pods cannot be looked up now: {0}")]
    LookUp(Box<kube::Error>),
}

impl Refusal {
    /// In one word.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Authority(ca::Error::OtherIdentity { .. }) => "other_identity",
            Self::Authority(ca::Error::Request(_)) => "invalid_request",
            Self::Authority(_) => "authority",
            Self::NotANodeProxy { .. } => "not_a_node_proxy",
            Self::NotOnNode { .. } => "not_on_node",
            Self::NoNode(_) => "no_node",
            Self::Reserved { .. } => "reserved_for_waypoint",
            Self::NotSynced => "not_synced",
            Self::NotAnIdentity(_) => "not_an_identity",
            Self::LookUp(_) => "look_up",
        }
    }

    fn status(&self) -> Status {
        let text = format!("{}: {self}", self.reason());
        match self {
            Self::Authority(ca::Error::Request(_)) | Self::NotAnIdentity(_) => Status::invalid_argument(text),
            Self::Authority(ca::Error::OtherIdentity { .. })
            | Self::NotANodeProxy { .. }
            | Self::NotOnNode { .. }
            | Self::Reserved { .. }
            | Self::NoNode(_) => Status::permission_denied(text),
            Self::Authority(_) | Self::NotSynced | Self::LookUp(_) => Status::unavailable(text),
        }
    }
}

/// What is shown of a signing.
#[derive(Clone, Debug, Serialize)]
pub struct Signing {
    /// For whom.
    pub identity: String,
    /// Who asked.
    pub caller: String,
    /// Serial number.
    pub serial: String,
    /// When it ends, RFC 3339.
    pub not_after: String,
}

/// The service. See the module.
#[derive(Clone)]
pub struct Certificates {
    /// Signs.
    pub keeper: Keeper,
    /// Who may ask.
    pub callers: Arc<Callers>,
    /// Knows what runs where.
    pub hub: Arc<Hub>,
    /// For pods that are too new for the watch.
    pub client: kube::Client,
    /// Accounts of node proxies, (namespace, name).
    pub node_accounts: Arc<Vec<(String, String)>>,
    /// The mesh configuration.
    pub settings: Settings,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The latest signings.
    pub signings: Arc<Mutex<VecDeque<Signing>>>,
}

#[tonic::async_trait]
impl IstioCertificateService for Certificates {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let caller = self.callers.authenticate(&request, "certificate").await?;
        let request = request.into_inner();
        match self.certificate(&caller, &request).await {
            Ok(cert_chain) => Ok(Response::new(IstioCertificateResponse { cert_chain })),
            Err(refusal) => {
                let reason = refusal.reason();
                self.metrics
                    .not_signed
                    .get_or_create(&ReasonLabel { reason })
                    .inc();
                tracing::warn!(%caller, reason, %refusal, "certificate refused");
                Err(refusal.status())
            }
        }
    }
}

impl Certificates {
    async fn certificate(
        &self,
        caller: &Caller,
        request: &IstioCertificateRequest,
    ) -> Result<Vec<String>, Refusal> {
        let mesh = self.settings.borrow().clone();
        let identity = match impersonated(request) {
            Some(asked) => self.impersonate(caller, &asked, &mesh).await?,
            None => Identity::new(&mesh.trust_domain, &caller.namespace, &caller.service_account)
                .map_err(|_| Refusal::NotAnIdentity(caller.to_string()))?,
        };
        self.waypoints_only(caller, &identity).await?;
        let longest = mesh.config.certificate_lifetime;
        let lifetime = match u64::try_from(request.validity_duration) {
            Ok(seconds) if seconds > 0 => Duration::from_secs(seconds).min(longest),
            _ => longest,
        };
        let signed = self.keeper.authority().sign(&request.csr, &identity, lifetime)?;
        self.metrics.signed.inc();
        let format = &time::format_description::well_known::Rfc3339;
        let not_after = signed.not_after.format(format).unwrap_or_default();
        tracing::info!(%identity, %caller, serial = signed.serial, not_after, "certificate signed");
        self.show(Signing {
            identity: identity.to_string(),
            caller: caller.to_string(),
            serial: signed.serial,
            not_after,
        });
        let mut chain = signed.chain;
        chain.push(signed.roots);
        Ok(chain)
    }

    /// Whether the caller may act for this identity.
    async fn impersonate(&self, caller: &Caller, asked: &str, mesh: &Mesh) -> Result<Identity, Refusal> {
        let identity: Identity = asked
            .parse()
            .ok()
            .filter(|identity: &Identity| identity.trust_domain() == mesh.trust_domain)
            .ok_or_else(|| Refusal::NotAnIdentity(asked.into()))?;
        let account = (caller.namespace.clone(), caller.service_account.clone());
        if !self.node_accounts.contains(&account) {
            return Err(Refusal::NotANodeProxy {
                caller: caller.to_string(),
                asked: asked.into(),
            });
        }
        let node = self.node_of(caller).await?;
        let (namespace, service_account) = (identity.namespace(), identity.service_account());
        let known = self.hub.snapshot().runs(&node, namespace, service_account);
        if known || self.look_up(&node, namespace, service_account).await? {
            return Ok(identity);
        }
        Err(Refusal::NotOnNode {
            node,
            asked: asked.into(),
        })
    }

    /// Identities of waypoints are for their own pods, which ask for themselves: whom guards believe, nobody else
    /// may be.
    async fn waypoints_only(&self, caller: &Caller, identity: &Identity) -> Result<(), Refusal> {
        if !self.hub.is_synced() {
            return Err(Refusal::NotSynced);
        }
        let (namespace, account) = (identity.namespace(), identity.service_account());
        if !self.hub.snapshot().is_reserved(namespace, account) {
            return Ok(());
        }
        let itself = caller.namespace == namespace && caller.service_account == account;
        let own = match self.bound_pod(caller).await? {
            Some(pod) if itself => {
                let labels = pod.metadata.labels.unwrap_or_default();
                let runs_as = pod.spec.and_then(|spec| spec.service_account_name);
                labels.get(label::GATEWAY_NAME).map(String::as_str) == Some(account)
                    && labels.get(label::MANAGED_BY).map(String::as_str) == Some(MANAGER)
                    && runs_as.as_deref() == Some(account)
            }
            _ => false,
        };
        if own {
            return Ok(());
        }
        Err(Refusal::Reserved {
            caller: caller.to_string(),
            account: format!("{namespace}/{account}"),
        })
    }

    /// The pod that the caller's token is bound to, while it is there.
    async fn bound_pod(&self, caller: &Caller) -> Result<Option<Pod>, Refusal> {
        let Some(bound) = &caller.pod else {
            return Ok(None);
        };
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &caller.namespace);
        let pod = pods.get_opt(&bound.name).await;
        let pod = pod.map_err(|error| Refusal::LookUp(Box::new(error)))?;
        Ok(pod.filter(|pod| pod.metadata.uid.as_deref() == Some(bound.uid.as_str())))
    }

    /// Where the caller runs: by its token, else by the pod that the token is bound to.
    async fn node_of(&self, caller: &Caller) -> Result<String, Refusal> {
        if let Some(node) = &caller.node {
            return Ok(node.clone());
        }
        let pod = self.bound_pod(caller).await?;
        pod.and_then(|pod| pod.spec?.node_name)
            .ok_or_else(|| Refusal::NoNode(caller.to_string()))
    }

    /// Asks the API server: a pod may be too new for the watch.
    async fn look_up(&self, node: &str, namespace: &str, service_account: &str) -> Result<bool, Refusal> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let found = pods
            .list(&on_node)
            .await
            .map_err(|error| Refusal::LookUp(Box::new(error)))?;
        Ok(found.iter().map(facts::Pod::from).any(|pod| {
            pod.may_be_acted_for(namespace) && pod.node == node && pod.service_account == service_account
        }))
    }

    fn show(&self, signing: Signing) {
        let mut signings = self.signings.lock().unwrap_or_else(PoisonError::into_inner);
        if signings.len() == SHOWN {
            signings.pop_front();
        }
        signings.push_back(signing);
    }
}

/// The identity that a node proxy asks for.
fn impersonated(request: &IstioCertificateRequest) -> Option<String> {
    let fields = &request.metadata.as_ref()?.fields;
    match &fields.get("ImpersonatedIdentity")?.kind {
        Some(prost_types::value::Kind::StringValue(identity)) if !identity.is_empty() => {
            Some(identity.clone())
        }
        _ => None,
    }
}
