use rcgen::{CertificateParams, KeyPair, SanType};

use super::*;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";
const OTHER: &str = "spiffe://cluster.local/ns/shop/sa/other";

fn certificate(uris: &[&str]) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().unwrap()))
        .chain([SanType::DnsName("web.shop".try_into().unwrap())])
        .collect();
    let key = KeyPair::generate().unwrap();
    params.self_signed(&key).unwrap().der().clone()
}

#[test]
fn exactly_one_uri_name_is_an_identity() {
    assert_eq!(named(&certificate(&[WEB])).unwrap(), WEB.parse().unwrap());
}

#[test]
fn none_or_two_uri_names_are_refused() {
    assert!(matches!(
        named(&certificate(&[])),
        Err(Unidentified::NotOneName(0))
    ));
    let two = named(&certificate(&[WEB, OTHER]));
    assert!(matches!(two, Err(Unidentified::NotOneName(2))));
}

#[test]
fn another_kind_of_uri_is_refused() {
    let other = named(&certificate(&["https://example.com/"]));
    assert!(matches!(other, Err(Unidentified::NotAnIdentity(_))));
}

#[test]
fn bytes_that_are_no_certificate_are_refused() {
    let garbage = CertificateDer::from(vec![1, 2, 3]);
    assert!(matches!(named(&garbage), Err(Unidentified::Malformed(_))));
}
