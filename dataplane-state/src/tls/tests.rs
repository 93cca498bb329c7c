use rcgen::SanType;
use rustls::{ClientConnection, ServerConnection};
use rustls_pki_types::ServerName;

use super::authority::{TestAuthority, identity, uri};
use super::*;

fn leaf_of(authority: &TestAuthority, account: &str) -> Arc<CertifiedKey> {
    authority.leaf(vec![uri(&identity(account).to_string())], -60, 3600)
}

/// A handshake in memory, to its end or the first error.
fn handshake(
    client: ClientConfig,
    server: ServerConfig,
) -> Result<(ClientConnection, ServerConnection), String> {
    let name = ServerName::try_from("0.0.0.0").expect("a name");
    let mut client = ClientConnection::new(Arc::new(client), name).map_err(|error| error.to_string())?;
    let mut server = ServerConnection::new(Arc::new(server)).map_err(|error| error.to_string())?;
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("memory");
        server.read_tls(&mut wire.as_slice()).expect("memory");
        server
            .process_new_packets()
            .map_err(|error| format!("server: {error}"))?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).expect("memory");
        client.read_tls(&mut wire.as_slice()).expect("memory");
        client
            .process_new_packets()
            .map_err(|error| format!("client: {error}"))?;
    }
    Ok((client, server))
}

/// A handshake of a client and a server that trust `authority`.
fn meet(
    authority: &TestAuthority,
    client: Arc<CertifiedKey>,
    server: Arc<CertifiedKey>,
) -> Result<(ClientConnection, ServerConnection), String> {
    let expected = [identity("cart")];
    let client = client_config(client, authority.roots(), "cluster.local", &expected).expect("a client");
    let server = server_config(server, authority.roots(), "cluster.local").expect("a server");
    handshake(client, server)
}

fn refusal(result: Result<(ClientConnection, ServerConnection), String>) -> String {
    result.expect_err("a refusal")
}

#[test]
fn both_ends_prove_who_they_are() {
    let authority = TestAuthority::new();
    let (client, server) = meet(
        &authority,
        leaf_of(&authority, "web"),
        leaf_of(&authority, "cart"),
    )
    .expect("a handshake");
    let suite = client.negotiated_cipher_suite().expect("a suite").suite();
    assert_eq!(suite, rustls::CipherSuite::TLS13_AES_256_GCM_SHA384);
    assert_eq!(client.alpn_protocol(), Some(ALPN));
    assert_eq!(server.server_name(), None);
    let of_client = server.peer_certificates().expect("a chain");
    assert_eq!(leaf_identity(&of_client[0]), Ok(identity("web")));
    let of_server = client.peer_certificates().expect("a chain");
    assert_eq!(leaf_identity(&of_server[0]), Ok(identity("cart")));
}

#[test]
fn two_uri_names_are_refused_at_either_end() {
    let authority = TestAuthority::new();
    let both = |first: &str, second: &str| {
        let names = [first, second].map(|account| uri(&identity(account).to_string()));
        authority.leaf(names.to_vec(), -60, 3600)
    };
    let error = refusal(meet(
        &authority,
        both("web", "admin"),
        leaf_of(&authority, "cart"),
    ));
    assert!(
        error.starts_with("server:") && error.contains("count: 2"),
        "{error}"
    );
    let error = refusal(meet(
        &authority,
        leaf_of(&authority, "web"),
        both("cart", "other"),
    ));
    assert!(
        error.starts_with("client:") && error.contains("count: 2"),
        "{error}"
    );
}

#[test]
fn no_uri_name_and_no_identity_are_refused() {
    let authority = TestAuthority::new();
    let dns = SanType::DnsName("cart.shop".try_into().expect("a name"));
    let nameless = authority.leaf(vec![dns], -60, 3600);
    let error = refusal(meet(&authority, nameless, leaf_of(&authority, "cart")));
    assert!(error.contains("count: 0"), "{error}");
    let odd = authority.leaf(vec![uri("spiffe://cluster.local/shop/web")], -60, 3600);
    let error = refusal(meet(&authority, odd, leaf_of(&authority, "cart")));
    assert!(error.contains("NotAnIdentity"), "{error}");
}

#[test]
fn a_foreign_trust_domain_is_refused_at_either_end() {
    let authority = TestAuthority::new();
    let foreign = |account: &str| {
        let name = format!("spiffe://elsewhere.example/ns/shop/sa/{account}");
        authority.leaf(vec![uri(&name)], -60, 3600)
    };
    let error = refusal(meet(&authority, foreign("web"), leaf_of(&authority, "cart")));
    assert!(
        error.starts_with("server:") && error.contains("ForeignTrustDomain"),
        "{error}"
    );
    let error = refusal(meet(&authority, leaf_of(&authority, "web"), foreign("cart")));
    assert!(
        error.starts_with("client:") && error.contains("ForeignTrustDomain"),
        "{error}"
    );
}

#[test]
fn expired_and_early_certificates_are_refused() {
    let authority = TestAuthority::new();
    let leaf = |from, to| authority.leaf(vec![uri(&identity("web").to_string())], from, to);
    let error = refusal(meet(&authority, leaf(-3600, -60), leaf_of(&authority, "cart")));
    assert!(
        error.starts_with("server:") && error.contains("expired"),
        "{error}"
    );
    let error = refusal(meet(&authority, leaf(600, 3600), leaf_of(&authority, "cart")));
    assert!(
        error.starts_with("server:") && error.contains("not valid yet"),
        "{error}"
    );
    let expired = authority.leaf(vec![uri(&identity("cart").to_string())], -3600, -60);
    let error = refusal(meet(&authority, leaf_of(&authority, "web"), expired));
    assert!(
        error.starts_with("client:") && error.contains("expired"),
        "{error}"
    );
}

#[test]
fn a_server_that_was_not_meant_is_refused() {
    let authority = TestAuthority::new();
    let error = refusal(meet(
        &authority,
        leaf_of(&authority, "web"),
        leaf_of(&authority, "web"),
    ));
    assert!(
        error.starts_with("client:") && error.contains("NotExpected"),
        "{error}"
    );
}

#[test]
fn another_authority_is_refused() {
    let (authority, other) = (TestAuthority::new(), TestAuthority::new());
    let error = refusal(meet(
        &authority,
        leaf_of(&other, "web"),
        leaf_of(&authority, "cart"),
    ));
    assert!(error.starts_with("server:"), "{error}");
    let error = refusal(meet(
        &authority,
        leaf_of(&authority, "web"),
        leaf_of(&other, "cart"),
    ));
    assert!(error.starts_with("client:"), "{error}");
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    let authority = TestAuthority::new();
    let client = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(
            PeerVerifier::new(authority.roots(), "cluster.local", None).expect("a verifier"),
        ))
        .with_no_client_auth();
    let server = server_config(leaf_of(&authority, "cart"), authority.roots(), "cluster.local");
    let error = refusal(handshake(client, server.expect("a server")));
    assert!(error.starts_with("server:"), "{error}");
}

#[test]
fn tls_1_2_is_not_spoken() {
    let authority = TestAuthority::new();
    let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .expect("versions")
        .with_root_certificates(authority.roots())
        .with_no_client_auth();
    let server = server_config(leaf_of(&authority, "cart"), authority.roots(), "cluster.local");
    assert!(handshake(client, server.expect("a server")).is_err());
}

proptest::proptest! {
    #[test]
    fn foreign_bytes_are_never_an_identity(bytes: Vec<u8>) {
        proptest::prop_assert!(leaf_identity(&CertificateDer::from(bytes)).is_err());
    }
}

#[test]
fn damaged_certificates_do_not_change_who_they_name() {
    let authority = TestAuthority::new();
    let leaf = leaf_of(&authority, "web").cert[0].clone();
    for position in 0..leaf.len() {
        let mut damaged = leaf.to_vec();
        damaged[position] ^= 1;
        // Whatever it says now, it must not panic; the chain is what catches the damage.
        let _ = leaf_identity(&CertificateDer::from(damaged));
    }
}
