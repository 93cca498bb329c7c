use std::sync::atomic::{AtomicUsize, Ordering};

use prost::Message;
use trefoil_api::names::MESH_SETTINGS;
use trefoil_api::proto::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use trefoil_api::proto::trefoil::v1 as message;
use trefoil_api::proto::type_url;

use super::*;
use crate::tls::authority::{TestAuthority, identity};

/// Signs in memory; how long, and whether at all, is set by the test.
pub(crate) struct TestSigner {
    authority: TestAuthority,
    asked: AtomicUsize,
    lifetime: i64,
    failure: Mutex<Option<SignError>>,
}

impl TestSigner {
    pub(crate) fn new(lifetime: i64) -> Arc<Self> {
        Arc::new(Self {
            authority: TestAuthority::new(),
            asked: AtomicUsize::new(0),
            lifetime,
            failure: Mutex::default(),
        })
    }

    fn fail(&self, failure: Option<SignError>) {
        *self.failure.lock().expect("not poisoned") = failure;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Signer for TestSigner {
    fn sign(&self, identity: &Identity, csr: String) -> BoxFuture<'_, Result<Vec<String>, SignError>> {
        let identity = identity.clone();
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            match self.failure.lock().expect("not poisoned").clone() {
                Some(failure) => Err(failure),
                None => Ok(self.authority.sign(&csr, &identity, -60, self.lifetime)),
            }
        })
    }
}

fn quick() -> Settings {
    Settings {
        patience: Duration::from_secs(3),
        retry_first: Duration::from_millis(5),
        retry_last: Duration::from_millis(20),
        spread: Duration::from_millis(20),
        ..Settings::default()
    }
}

#[tokio::test]
async fn many_at_once_are_one_fetch() {
    let signer = TestSigner::new(3600);
    let certificates = Certificates::new(signer.clone(), quick());
    let web = identity("web");
    let wanted = (0..50).map(|_| certificates.server_config(&web));
    for one in futures::future::join_all(wanted).await {
        one.expect("a configuration");
    }
    assert_eq!(signer.asked(), 1);
    assert!(certificates.has(&web));
    let summaries = certificates.summaries();
    assert_eq!(summaries[0].state, "valid");
    assert_eq!(summaries[0].identity, web.to_string());
}

#[tokio::test]
async fn is_renewed_at_half_its_life() {
    let signer = TestSigner::new(2);
    let certificates = Certificates::new(signer.clone(), quick());
    let web = identity("web");
    let first = certificates.server_config(&web).await.expect("a configuration");
    let mut changes = certificates.changes();
    changes.changed().await.expect("renewed");
    let second = certificates.server_config(&web).await.expect("a configuration");
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(signer.asked() >= 2);
}

/// A store that was told what is signed with.
fn said(store: &Store, authority: &message::Authority) {
    let settings = message::MeshSettings {
        outbound: message::Outbound::AllowAny.into(),
        connection_max_age: 60,
        trust_domain: "cluster.local".into(),
        authority: Some(authority.clone()),
    };
    let refused = store.apply(&DeltaDiscoveryResponse {
        type_url: type_url::MESH_SETTINGS.into(),
        resources: vec![Resource {
            name: MESH_SETTINGS.into(),
            resource: Some(prost_types::Any {
                type_url: type_url::MESH_SETTINGS.into(),
                value: settings.encode_to_vec(),
            }),
            ..Resource::default()
        }],
        ..DeltaDiscoveryResponse::default()
    });
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn is_renewed_once_the_authority_is_another_and_until_it_is_of_that() {
    let signer = TestSigner::new(3600);
    let certificates = Certificates::new(signer.clone(), quick());
    let store = Store::new();
    certificates.follow_authority(&store);
    let web = identity("web");
    certificates.server_config(&web).await.expect("a configuration");
    let mut changes = certificates.changes();
    let now = signer.authority.in_force();
    said(&store, &now);
    // Other roots, and another key.
    for other in [
        message::Authority {
            roots: "others".into(),
            ..now.clone()
        },
        message::Authority {
            key_identifier: vec![7].into(),
            ..now.clone()
        },
    ] {
        quiet(&mut changes).await;
        let asked = signer.asked();
        said(&store, &other);
        // The one that signs has not heard of it yet: asked again and again, but not at once.
        changes
            .wait_for(|_| signer.asked() >= asked + 3)
            .await
            .expect("renewed");
        said(&store, &now);
    }
    quiet(&mut changes).await;
}

/// Once what was on its way has come, nothing more does: it is of the authority that is in force.
async fn quiet(changes: &mut watch::Receiver<u64>) {
    let window = Duration::from_millis(200);
    let settled = async { while tokio::time::timeout(window, changes.changed()).await.is_ok() {} };
    let settled = tokio::time::timeout(Duration::from_secs(10), settled).await;
    settled.expect("it is renewed no more");
}

#[tokio::test]
async fn an_old_one_serves_until_it_expires_and_then_says_why_not() {
    let signer = TestSigner::new(4);
    let settings = Settings {
        patience: Duration::from_millis(50),
        ..quick()
    };
    let certificates = Certificates::new(signer.clone(), settings);
    let web = identity("web");
    certificates.fetch_ahead(&web);
    let mut changes = certificates.changes();
    changes.wait_for(|count| *count > 0).await.expect("issued");
    signer.fail(Some(SignError::Unreachable("cable pulled".into())));
    certificates.server_config(&web).await.expect("still valid");
    let mut polls = tokio::time::interval(Duration::from_millis(10));
    let error = loop {
        polls.tick().await;
        if let Err(error) = certificates.server_config(&web).await {
            break error;
        }
    };
    assert!(matches!(error, CertificateError::Expired { .. }), "{error}");
    assert!(error.to_string().contains("cable pulled"), "{error}");
    assert_eq!(certificates.summaries()[0].state, "expired");
    signer.fail(None);
    let mut state = certificates.changes();
    state.wait_for(|count| *count > 1).await.expect("issued again");
    certificates.server_config(&web).await.expect("valid again");
}

#[tokio::test]
async fn without_an_authority_the_reason_is_named() {
    let signer = TestSigner::new(3600);
    signer.fail(Some(SignError::Refused("not on this node".into())));
    let settings = Settings {
        patience: Duration::from_millis(50),
        ..quick()
    };
    let certificates = Certificates::new(signer, settings);
    let error = certificates
        .client_config(&identity("web"), &[identity("cart")])
        .await;
    let error = error.expect_err("nothing was issued").to_string();
    assert!(error.contains("refused: not on this node"), "{error}");
}

#[tokio::test]
async fn keys_survive_their_process_and_nothing_is_fetched() {
    let signer = TestSigner::new(3600);
    let old = Certificates::new(signer.clone(), quick());
    for account in ["web", "cart"] {
        old.server_config(&identity(account))
            .await
            .expect("a configuration");
    }
    let exported = old.export();
    let new = Certificates::new(signer.clone(), quick());
    assert_eq!(new.import(&exported).expect("readable"), 2);
    new.server_config(&identity("cart"))
        .await
        .expect("a configuration");
    assert_eq!(signer.asked(), 2);
    assert!(new.import(b"nonsense").is_err());
}

#[tokio::test]
async fn what_is_forgotten_is_fetched_again() {
    let signer = TestSigner::new(3600);
    let certificates = Certificates::new(signer.clone(), quick());
    let web = identity("web");
    certificates.server_config(&web).await.expect("a configuration");
    certificates.forget(&web);
    assert!(certificates.summaries().is_empty());
    certificates.server_config(&web).await.expect("a configuration");
    assert_eq!(signer.asked(), 2);
}

type Answer = Box<dyn Fn(&Identity, &str) -> Vec<String> + Send + Sync>;

/// Answers with what the test says.
struct Answering(Answer);

impl Signer for Answering {
    fn sign(&self, identity: &Identity, csr: String) -> BoxFuture<'_, Result<Vec<String>, SignError>> {
        let answer = self.0(identity, &csr);
        Box::pin(async move { Ok(answer) })
    }
}

#[tokio::test]
async fn answers_that_are_not_what_was_asked_for_are_not_used() {
    let settings = Settings {
        patience: Duration::from_millis(20),
        ..quick()
    };
    let authority = Arc::new(TestAuthority::new());
    let with = |make: fn(&TestAuthority, &Identity, &str) -> Vec<String>| -> Answer {
        let authority = authority.clone();
        Box::new(move |identity, csr| make(&authority, identity, csr))
    };
    let cases: [(&str, Answer); 5] = [
        (
            "a certificate of",
            with(|a, _, csr| a.sign(csr, &identity("admin"), -1, 60)),
        ),
        ("has expired", with(|a, who, csr| a.sign(csr, who, -60, -1))),
        (
            "no root",
            with(|a, who, csr| a.sign(csr, who, -1, 60)[..1].to_vec()),
        ),
        ("nothing", with(|_, _, _| Vec::new())),
        (
            "another key",
            with(|a, who, _| {
                let (leaf, _) = a.leaf_and_key(vec![crate::tls::authority::uri(&who.to_string())], -1, 60);
                vec![leaf.pem(), a.root_pem.clone()]
            }),
        ),
    ];
    for (expected, answer) in cases {
        let certificates = Certificates::new(Arc::new(Answering(answer)), settings.clone());
        let error = certificates.server_config(&identity("web")).await;
        let error = error.expect_err("unusable").to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
