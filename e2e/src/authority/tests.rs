use super::*;

#[test]
fn a_foreign_certificate_shows_what_was_asked() {
    let directory = tempfile::tempdir().unwrap();
    let uris = [
        "spiffe://elsewhere/ns/a/sa/b".to_owned(),
        "spiffe://elsewhere/ns/c/sa/d".to_owned(),
    ];
    foreign(&uris, None, directory.path()).unwrap();
    let chain = std::fs::read_to_string(directory.path().join("chain.pem")).unwrap();
    assert_eq!(crate::hbone::uri_names_of_pem(&chain).unwrap(), uris);
}
