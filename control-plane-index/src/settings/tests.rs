use trefoil_api::proto::trefoil::v1::{Authority, Outbound};

use super::*;
use crate::Change;

fn served(index: &Index) -> MeshSettings {
    let snapshot = index.snapshot();
    let encoded = snapshot.of(ResourceKind::MeshSettings).get(MESH_SETTINGS);
    encoded.expect("served").decode().expect("decodes")
}

/// Applies a text of the configuration; whether the settings changed by it.
fn configure(index: &mut Index, text: Option<&str>) -> bool {
    index.apply(Change::MeshConfig(text.map(str::to_owned)));
    !index.flush().of(ResourceKind::MeshSettings).is_empty()
}

fn defaults() -> MeshSettings {
    MeshSettings {
        outbound: Outbound::AllowAny.into(),
        connection_max_age: 3600,
        trust_domain: "cluster.local".into(),
        authority: None,
    }
}

#[test]
fn settings_follow_the_configuration() {
    let mut index = Index::new("cluster.local");
    assert!(
        index
            .flush()
            .of(ResourceKind::MeshSettings)
            .contains(MESH_SETTINGS),
        "there without any"
    );
    assert_eq!(served(&index), defaults());
    assert!(index.flush().is_empty(), "once");
    let text = "outbound: RegistryOnly\nconnectionMaxAge: 90s\ntrustDomain: example.org\n";
    assert!(configure(&mut index, Some(text)));
    let expected = MeshSettings {
        outbound: Outbound::RegistryOnly.into(),
        connection_max_age: 90,
        trust_domain: "example.org".into(),
        authority: None,
    };
    assert_eq!(served(&index), expected);
    assert!(!configure(&mut index, Some("outbound: Maybe")));
    assert_eq!(served(&index), expected, "the last good one stays");
    assert!(configure(&mut index, None));
    assert_eq!(served(&index), defaults());
}

#[test]
fn what_planes_do_not_act_on_is_no_change_for_them() {
    let mut index = Index::new("cluster.local");
    index.flush();
    assert!(!configure(&mut index, Some("certificateLifetime: 1h")));
}

#[test]
fn a_configuration_that_was_never_understood_closes() {
    let mut index = Index::new("cluster.local");
    configure(&mut index, Some("outbund: RegistryOnly"));
    assert_eq!(served(&index).outbound(), Outbound::RegistryOnly);
}

#[test]
fn settings_say_what_certificates_are_signed_with() {
    let mut index = Index::new("cluster.local");
    let authority = |roots: &str| Authority {
        key_identifier: vec![1, 2].into(),
        roots: roots.into(),
    };
    index.apply(Change::Authority(authority("one")));
    index.flush();
    assert_eq!(served(&index).authority, Some(authority("one")));
    index.apply(Change::Authority(authority("one")));
    assert!(index.flush().is_empty());
    index.apply(Change::Authority(authority("two")));
    assert!(!index.flush().of(ResourceKind::MeshSettings).is_empty());
    assert_eq!(served(&index).authority, Some(authority("two")));
}
