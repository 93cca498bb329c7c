//! A control plane that only signs certificates, and the network namespace in which it and a waypoint are alone:
//! planes listen on ports that a machine has once. Needs root and `ip`.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, SanType,
};
use rustix::thread::UnshareFlags;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::{Identity as ServerIdentity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use trefoil_api::Identity;
use trefoil_api::proto::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use trefoil_dataplane_state::certificates::{SignError, Signer};

/// Where it listens.
pub(crate) const ADDRESS: &str = "127.0.0.1:15012";
/// The name in its certificate.
const NAME: &str = "trefoil-control-plane.trefoil-system.svc";

/// Runs a test in a network namespace of its own.
pub(crate) fn alone<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let run = std::thread::spawn(move || {
        // Network namespaces alone are unshared: file descriptors stay the process's.
        #[allow(deprecated)]
        rustix::thread::unshare(UnshareFlags::NEWNET).expect("root");
        let up = std::process::Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.expect("ip").success());
        // On this thread, which is in the namespace, and on no other.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(test());
    });
    if let Err(panic) = run.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Signs for whoever it is told to.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

impl Authority {
    pub(crate) fn new() -> Arc<Self> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).expect("a root").pem();
        let issuer = Issuer::new(params, key);
        Arc::new(Self { issuer, root })
    }

    fn chain(&self, identity: &Identity, csr: &str) -> Vec<String> {
        let mut request = CertificateSigningRequestParams::from_pem(csr).expect("a request");
        let name = identity.to_string().try_into().expect("a name");
        request.params.subject_alt_names = vec![SanType::URI(name)];
        let leaf = request.signed_by(&self.issuer).expect("signed");
        vec![leaf.pem(), self.root.clone()]
    }

    /// Signs for `identity` whoever asks, from now on; what a client must know of it is in `folder`.
    pub(crate) fn serve(self: &Arc<Self>, identity: Identity, folder: &Path) {
        std::fs::write(folder.join("root.pem"), &self.root).expect("written");
        std::fs::write(folder.join("token"), "token").expect("written");
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([NAME.to_owned()]).expect("a name");
        let leaf = params.signed_by(&key, &self.issuer).expect("signed");
        let own = ServerIdentity::from_pem(leaf.pem(), key.serialize_pem());
        let signing = Signing(Arc::new(Asked {
            authority: self.clone(),
            identity,
        }));
        let server = Server::builder()
            .tls_config(ServerTlsConfig::new().identity(own))
            .expect("a certificate")
            .add_service(signing);
        tokio::spawn(server.serve(ADDRESS.parse().expect("an address")));
    }
}

impl Signer for Authority {
    fn sign(&self, identity: &Identity, csr: String) -> BoxFuture<'_, Result<Vec<String>, SignError>> {
        let chain = self.chain(identity, &csr);
        Box::pin(async { Ok(chain) })
    }
}

/// What is signed, and for whom.
struct Asked {
    authority: Arc<Authority>,
    identity: Identity,
}

/// The service of certificates, whose only method this is.
#[derive(Clone)]
struct Signing(Arc<Asked>);

impl NamedService for Signing {
    const NAME: &'static str = "istio.v1.auth.IstioCertificateService";
}

impl UnaryService<IstioCertificateRequest> for Signing {
    type Response = IstioCertificateResponse;
    type Future = BoxFuture<'static, Result<Response<IstioCertificateResponse>, Status>>;

    fn call(&mut self, request: Request<IstioCertificateRequest>) -> Self::Future {
        let Asked { authority, identity } = &*self.0;
        let cert_chain = authority.chain(identity, &request.into_inner().csr);
        Box::pin(async { Ok(Response::new(IstioCertificateResponse { cert_chain })) })
    }
}

impl Service<http::Request<Body>> for Signing {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let signing = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<IstioCertificateResponse, IstioCertificateRequest>::default();
            Ok(Grpc::new(codec).unary(signing, request).await)
        })
    }
}
