use std::time::Duration;

use rcgen::{CertificateParams, KeyPair, SanType};
use time::OffsetDateTime;
use trefoil_api::Identity;
use x509_parser::prelude::ParsedExtension;

use super::{Authority, Error, Material, certificates};

const HOUR: Duration = Duration::from_secs(3600);

fn web() -> Identity {
    Identity::new("cluster.local", "shop", "web").expect("valid")
}

fn request(names: &[&str]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = names
        .iter()
        .map(|name| SanType::URI((*name).try_into().expect("ASCII")))
        .collect();
    let key = KeyPair::generate().expect("key");
    params
        .serialize_request(&key)
        .expect("request")
        .pem()
        .expect("PEM")
}

fn self_made() -> Authority {
    Authority::new(Material::create("cluster.local").expect("made")).expect("usable")
}

/// Subject alternative names of a certificate, as text.
fn names(pem: &str) -> Vec<String> {
    let der = certificates(pem).expect("PEM").remove(0);
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).expect("certificate");
    let names = parsed
        .subject_alternative_name()
        .expect("readable")
        .expect("there");
    names
        .value
        .general_names
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Which key signed a leaf, as the leaf says.
fn signer(pem: &str) -> Vec<u8> {
    let der = certificates(pem).expect("PEM").remove(0);
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).expect("certificate");
    let said = parsed
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(said) => said.key_identifier.clone(),
            _ => None,
        });
    said.expect("there").0.to_vec()
}

/// An authority's certificate that names its key as it likes, and our own.
#[test]
fn what_planes_are_told_of_an_authority_is_what_its_leaves_say() {
    let key = KeyPair::generate().expect("key");
    let mut own_name = CertificateParams::default();
    own_name.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    own_name.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(vec![1, 2, 3]);
    let own_name = own_name.self_signed(&key).expect("signed").pem();
    let operators = Material {
        certificate: own_name.clone(),
        key: key.serialize_pem(),
        chain: String::new(),
        roots: own_name,
    };
    let operators = Authority::new(operators).expect("usable");
    assert_eq!(operators.in_force().key_identifier, vec![1, 2, 3]);
    for authority in [operators, self_made()] {
        let signed = authority.sign(&request(&[]), &web(), HOUR).expect("signed");
        assert_eq!(signer(&signed.chain[0]), authority.in_force().key_identifier);
        assert_eq!(signed.roots, authority.in_force().roots);
    }
}

#[test]
fn a_leaf_has_exactly_the_authenticated_identity() {
    for asked in [vec![], vec!["spiffe://cluster.local/ns/shop/sa/web"]] {
        let signed = self_made().sign(&request(&asked), &web(), HOUR).expect("signed");
        assert_eq!(
            names(&signed.chain[0]),
            vec!["URI(spiffe://cluster.local/ns/shop/sa/web)"]
        );
        assert_eq!(signed.chain.len(), 1, "a root signs: no intermediates");
        assert!(signed.not_after <= OffsetDateTime::now_utc() + HOUR);
    }
}

#[test]
fn requests_for_others_are_refused() {
    let authority = self_made();
    for asked in [
        vec!["spiffe://cluster.local/ns/shop/sa/api"],
        vec![
            "spiffe://cluster.local/ns/shop/sa/web",
            "spiffe://cluster.local/ns/shop/sa/api",
        ],
        vec!["spiffe://other.org/ns/shop/sa/web"],
    ] {
        let refused = authority.sign(&request(&asked), &web(), HOUR);
        assert!(matches!(refused, Err(Error::OtherIdentity { .. })), "{asked:?}");
    }
    assert!(matches!(
        authority.sign("nonsense", &web(), HOUR),
        Err(Error::Request(_))
    ));
}

#[test]
fn a_request_that_was_tampered_with_is_refused() {
    let one = request(&[]);
    let mut lines: Vec<String> = one.lines().map(str::to_owned).collect();
    let middle = lines.len() / 2;
    let swapped = if lines[middle].starts_with('A') { "B" } else { "A" };
    lines[middle].replace_range(0..1, swapped);
    assert!(matches!(
        self_made().sign(&lines.join("\n"), &web(), HOUR),
        Err(Error::Request(_))
    ));
}

#[test]
fn an_operators_intermediate_is_sent_along_and_the_root_comes_last() {
    let root = Material::create("cluster.local").expect("made");
    let root_authority = Authority::new(root.clone()).expect("usable");
    let key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "intermediate");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    params.not_after = OffsetDateTime::now_utc() + Duration::from_secs(60);
    let certificate = params
        .signed_by(&key, &root_authority.issuer)
        .expect("signed")
        .pem();
    let given = Material {
        chain: format!("{certificate}{}", root.certificate),
        certificate: certificate.clone(),
        key: key.serialize_pem(),
        roots: root.roots.clone(),
    };
    let authority = Authority::new(given.clone()).expect("usable");
    let signed = authority.sign(&request(&[]), &web(), HOUR).expect("signed");
    assert_eq!(signed.chain.len(), 2);
    assert_eq!(signer(&signed.chain[0]), authority.in_force().key_identifier);
    assert_eq!(
        certificates(&signed.chain[1]).expect("PEM"),
        certificates(&certificate).expect("PEM")
    );
    assert_eq!(signed.roots, root.roots);
    assert!(
        signed.not_after < OffsetDateTime::now_utc() + Duration::from_secs(61),
        "it outlives its issuer"
    );
    let other_key = Material {
        key: KeyPair::generate().expect("key").serialize_pem(),
        ..given
    };
    assert!(matches!(
        Authority::new(other_key),
        Err(Error::Unusable { what: "the key", .. })
    ));
}

#[test]
fn an_authority_that_its_roots_do_not_believe_is_refused() {
    let (one, other) = (
        Material::create("cluster.local").expect("made"),
        Material::create("cluster.local").expect("made"),
    );
    let signs = |material: &Material| Material {
        roots: material.roots.clone(),
        ..one.clone()
    };
    let refused = Authority::new(signs(&other));
    assert!(
        matches!(
            &refused,
            Err(Error::Unusable {
                what: "the chain",
                ..
            })
        ),
        "{refused:?}"
    );
    Authority::new(signs(&one)).expect("usable");
    let both = Material {
        roots: format!("{}{}", other.roots, one.roots),
        ..one
    };
    Authority::new(both).expect("usable");
}

#[test]
fn a_leaf_cannot_be_the_authority() {
    let authority = self_made();
    let (chain, key) = authority.serve(&["localhost".into()], HOUR).expect("signed");
    let material = Material {
        certificate: super::pem("CERTIFICATE", &chain[0]),
        key: super::pem("PRIVATE KEY", key.secret_der()),
        chain: String::new(),
        roots: authority.roots().to_owned(),
    };
    assert!(matches!(
        Authority::new(material),
        Err(Error::Unusable {
            what: "the certificate",
            ..
        })
    ));
}

#[test]
fn the_secret_of_a_certificate_issuer_is_read() {
    let root = Material::create("cluster.local").expect("made");
    let file = |name: &str, text: &str| (name.to_owned(), k8s_openapi::ByteString(text.into()));
    let secret = |files: Vec<(String, k8s_openapi::ByteString)>| k8s_openapi::api::core::v1::Secret {
        data: Some(files.into_iter().collect()),
        ..Default::default()
    };
    let issued = vec![
        file("tls.crt", &root.certificate),
        file("tls.key", &root.key),
        file("ca.crt", &root.roots),
    ];
    let read = super::keep::material(&secret(issued.clone())).expect("three files");
    assert!(read.certificate == root.certificate && read.roots == root.roots);
    Authority::new(read).expect("usable");
    // The four files of an operator come first.
    let theirs = Material::create("cluster.local").expect("made");
    let mut both = issued.clone();
    both.extend([
        file("ca-cert.pem", &theirs.certificate),
        file("ca-key.pem", &theirs.key),
        file("root-cert.pem", &theirs.roots),
    ]);
    assert!(super::keep::material(&secret(both)).expect("both").certificate == theirs.certificate);
    let missing = super::keep::material(&secret(issued[..2].to_vec())).expect_err("no root");
    assert!(missing.to_string().contains("ca.crt"), "{missing}");
}
