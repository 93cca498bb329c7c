use std::sync::Arc;

use serde_json::json;

use crate::authorize::Account;
use crate::store::{Key, Snapshot};
use crate::tokens::*;

fn account() -> Account {
    Account {
        namespace: "shop".into(),
        name: "web".into(),
        uid: "sa-1".into(),
        pod: Some(("p".into(), "pod-1".into())),
        node: Some("n1".into()),
    }
}

fn content(pod_uid: &str) -> Snapshot {
    let mut content = Snapshot::default();
    for (resource, name, uid) in [("serviceaccounts", "web", "sa-1"), ("pods", "p", pod_uid)] {
        content.objects.insert(
            Key::new(resource, "shop", name),
            Arc::new(json!({ "metadata": { "uid": uid } })),
        );
    }
    content
}

fn key() -> Tokens {
    Tokens::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap()
}

#[test]
fn a_token_is_its_accounts_for_its_audience_and_time() {
    let (tokens, content) = (key(), content("pod-1"));
    let audience = |name: &str| vec![name.to_owned()];
    let token = tokens
        .issue(&account(), &audience("trefoil-ca"), 1000, 60)
        .unwrap();
    let (verified, matching) = tokens
        .verify(&token, &audience("trefoil-ca"), 1059, &content)
        .unwrap();
    assert_eq!((verified, matching), (account(), audience("trefoil-ca")));
    assert!(matches!(
        tokens.verify(&token, &audience("x"), 1001, &content),
        Err(TokenError::Audience(..))
    ));
    assert!(matches!(
        tokens.verify(&token, &audience("trefoil-ca"), 1060, &content),
        Err(TokenError::Expired)
    ));
    assert!(matches!(
        key().verify(&token, &audience("trefoil-ca"), 1001, &content),
        Err(TokenError::Invalid(_))
    ));
}

#[test]
fn a_token_ends_with_its_pod_and_account() {
    let (tokens, wanted) = (key(), vec!["trefoil-ca".to_owned()]);
    let token = tokens.issue(&account(), &wanted, 1000, 60).unwrap();
    let another = content("pod-2");
    assert!(matches!(
        tokens.verify(&token, &wanted, 1001, &another),
        Err(TokenError::PodGone(..))
    ));
    let nothing = Snapshot::default();
    assert!(matches!(
        tokens.verify(&token, &wanted, 1001, &nothing),
        Err(TokenError::AccountGone(..))
    ));
}
