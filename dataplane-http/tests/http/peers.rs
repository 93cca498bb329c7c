//! Clients that have proved who they are.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::DuplexStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use trefoil_dataplane_core::identify::Peer;

use crate::plane::identity;

/// A client that has proved to be `account`: by a handshake of its own, as there is no other way.
pub(crate) async fn peer(account: &str) -> Peer {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let leaf = |name: SanType| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        let leaf = params.signed_by(&key, &issuer).unwrap();
        (
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
    };
    let spiffe = SanType::URI(identity(account).to_string().try_into().unwrap());
    let (client, server) = (leaf(spiffe), leaf(SanType::DnsName("server".try_into().unwrap())));
    shake_hands(root.der().clone(), client, server).await
}

type Credentials = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

async fn shake_hands(root: CertificateDer<'static>, client: Credentials, server: Credentials) -> Peer {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let roots = Arc::new(roots);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone());
    let accepting = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(server.0, server.1)
        .unwrap();
    let connecting = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(client.0, client.1)
        .unwrap();
    let (one, other): (DuplexStream, DuplexStream) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("server").unwrap();
    let connector = TlsConnector::from(Arc::new(connecting));
    let acceptor = TlsAcceptor::from(Arc::new(accepting));
    let (client, server) = tokio::join!(connector.connect(name, one), acceptor.accept(other));
    client.unwrap();
    Peer::verified(server.unwrap().get_ref().1).unwrap()
}
