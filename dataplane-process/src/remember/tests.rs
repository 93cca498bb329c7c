use proptest::prelude::*;
use trefoil_api::names::MESH_SETTINGS;
use trefoil_api::proto::envoy::service::discovery::v3::Resource;
use trefoil_api::proto::trefoil::v1::{MeshSettings, Outbound};
use trefoil_api::proto::type_url;

use super::*;
use trefoil_dataplane_state::state::fixtures::{of_policies, of_workloads, response, workload};

fn held(names: &[&str]) -> Held {
    let mut held = Held::new();
    held.apply(of_policies(&[]), &[]);
    let workloads: Vec<_> = names.iter().map(|name| workload(name, [10, 0, 0, 1])).collect();
    held.apply(of_workloads(&workloads), &[]);
    held
}

#[test]
fn nothing_is_remembered_at_first_and_nothing_in_a_damaged_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let remember = Remember::new(folder.path().join("configuration"), Duration::ZERO);
    assert!(remember.recall().is_empty());
    let good = encode(&held(&["cart", "web"]));
    for length in 0..good.len() {
        std::fs::write(&remember.path, &good[..length]).expect("written");
        assert!(remember.recall().is_empty(), "cut at {length}");
    }
    std::fs::write(&remember.path, &good).expect("written");
    assert_eq!(remember.recall(), held(&["cart", "web"]));
}

#[tokio::test]
async fn changes_are_written_and_the_last_one_before_the_end_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let remember = Remember::new(folder.path().join("deeper/configuration"), Duration::ZERO);
    let (sender, receiver) = watch::channel(Held::new());
    let running = tokio::spawn(remember.clone().run(receiver));
    sender.send_replace(held(&["cart"]));
    sender.send_replace(held(&["cart", "web"]));
    drop(sender);
    running.await.expect("written");
    assert_eq!(remember.recall(), held(&["cart", "web"]));
    assert!(!folder.path().join("deeper/configuration.new").exists());
}

#[test]
fn the_meshs_settings_are_remembered_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let remember = Remember::new(folder.path().join("configuration"), Duration::ZERO);
    let settings = MeshSettings {
        outbound: Outbound::RegistryOnly.into(),
        connection_max_age: 60,
        trust_domain: "cluster.local".into(),
        authority: None,
    };
    let mut held = held(&["cart"]);
    held.apply(
        response(type_url::MESH_SETTINGS, &[(MESH_SETTINGS, settings)], &[]),
        &[],
    );
    write(&remember.path, &held).expect("written");
    let store = trefoil_dataplane_state::Store::new();
    for response in remember.recall().responses() {
        assert_eq!(store.apply(&response), []);
    }
    assert!(store.synced() && store.snapshot().registry_only());
}

proptest! {
    #[test]
    fn what_is_written_is_read(resources in prop::collection::vec(("[a-z]{1,8}", "[0-9]{0,3}"), 0..20)) {
        let mut held = Held::new();
        held.apply(DeltaDiscoveryResponse {
            type_url: type_url::ADDRESS.into(),
            resources: resources
                .into_iter()
                .map(|(name, version)| Resource { name, version, ..Resource::default() })
                .collect(),
            ..DeltaDiscoveryResponse::default()
        }, &[]);
        prop_assert_eq!(decode(&encode(&held)).expect("readable"), held);
    }

    #[test]
    fn a_flipped_bit_is_noticed(position: prop::sample::Index, bit in 0..8u8) {
        let mut bytes = encode(&held(&["cart"]));
        let position = position.index(bytes.len());
        bytes[position] ^= 1 << bit;
        prop_assert!(decode(&bytes).is_err());
    }
}
