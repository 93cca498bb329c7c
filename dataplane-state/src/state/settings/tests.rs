use proptest::prelude::*;
use trefoil_api::names::MESH_SETTINGS;
use trefoil_api::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use trefoil_api::proto::type_url;

use super::*;
use crate::Store;
use crate::state::fixtures::{of_policies, of_workloads, removal, response};

fn good(outbound: message::Outbound) -> MeshSettings {
    MeshSettings {
        outbound: outbound.into(),
        connection_max_age: 90,
        trust_domain: "cluster.local".into(),
        authority: None,
    }
}

fn of_settings(settings: &MeshSettings) -> DeltaDiscoveryResponse {
    response(type_url::MESH_SETTINGS, &[(MESH_SETTINGS, settings.clone())], &[])
}

fn malformed() -> Vec<(MeshSettings, &'static str)> {
    let good = good(message::Outbound::AllowAny);
    let with = |change: &dyn Fn(&mut MeshSettings)| {
        let mut settings = good.clone();
        change(&mut settings);
        settings
    };
    vec![
        (with(&|one| one.outbound = 0), "outbound: is not set"),
        (with(&|one| one.outbound = 7), "outbound: unknown value 7"),
        (
            with(&|one| one.connection_max_age = 0),
            "connection_max_age: is 0,",
        ),
        (
            with(&|one| one.connection_max_age = u64::MAX),
            "connection_max_age: is 18446744073709551615,",
        ),
        (with(&|one| one.trust_domain.clear()), "trust_domain: \"\" is not"),
    ]
}

#[test]
fn settings_take_effect_at_once_and_end_when_they_are_removed() {
    let store = Store::new();
    assert!(!store.snapshot().registry_only() && store.snapshot().settings().is_none());
    assert_eq!(
        store.apply(&of_settings(&good(message::Outbound::RegistryOnly))),
        []
    );
    assert!(store.snapshot().registry_only());
    let known = store.snapshot();
    let settings = known.settings().expect("held");
    assert_eq!(settings.connection_max_age, Duration::from_secs(90));
    assert_eq!(settings.trust_domain, "cluster.local");
    store.apply(&of_settings(&good(message::Outbound::AllowAny)));
    assert!(!store.snapshot().registry_only());
    store.apply(&of_settings(&good(message::Outbound::RegistryOnly)));
    store.apply(&removal(type_url::MESH_SETTINGS, &[MESH_SETTINGS]));
    assert!(!store.snapshot().registry_only() && store.snapshot().settings().is_none());
}

#[test]
fn what_this_process_was_told_itself_is_never_loosened() {
    let store = Store::new();
    store.set_registry_only(true);
    store.apply(&of_settings(&good(message::Outbound::AllowAny)));
    assert!(store.snapshot().registry_only());
}

#[test]
fn what_is_not_understood_is_refused_whole_and_the_last_good_stays() {
    for (bad, problem) in malformed() {
        let store = Store::new();
        store.apply(&of_settings(&good(message::Outbound::AllowAny)));
        let before = store.snapshot();
        let refusals = store.apply(&of_settings(&bad));
        assert_eq!(refusals.len(), 1, "{bad:?}");
        assert!(refusals[0].problem.starts_with(problem), "{refusals:?}");
        assert_eq!(store.snapshot(), before);
    }
}

#[test]
fn with_no_good_version_what_it_may_have_guarded_is_closed() {
    for (bad, _) in malformed() {
        let store = Store::new();
        assert_eq!(store.apply(&of_settings(&bad)).len(), 1);
        assert!(store.snapshot().registry_only(), "{bad:?}");
        assert!(store.snapshot().settings().is_none());
        store.apply(&of_settings(&good(message::Outbound::AllowAny)));
        assert!(!store.snapshot().registry_only());
    }
}

#[test]
fn another_name_is_no_settings_of_the_mesh() {
    let store = Store::new();
    let other = response(
        type_url::MESH_SETTINGS,
        &[("other", good(message::Outbound::RegistryOnly))],
        &[],
    );
    assert_eq!(store.apply(&other).len(), 1);
    assert!(!store.snapshot().registry_only());
    store.apply(&of_settings(&good(message::Outbound::RegistryOnly)));
    store.apply(&removal(type_url::MESH_SETTINGS, &["other"]));
    assert!(store.snapshot().registry_only());
}

#[test]
fn nobody_waits_for_settings_and_they_are_not_enough() {
    let store = Store::new();
    store.apply(&of_settings(&good(message::Outbound::AllowAny)));
    assert!(!store.synced());
    let without = Store::new();
    without.apply(&of_policies(&[]));
    without.apply(&of_workloads(&[]));
    assert!(without.synced());
}

proptest! {
    #[test]
    fn settings_are_read_as_they_are_or_refused(
        outbound in -1..5i32,
        connection_max_age in prop_oneof![0..5u64, any::<u64>()],
        trust_domain in "[a-z.]{0,6}",
        authority in proptest::option::of((any::<Vec<u8>>(), "[a-z\n-]{0,6}")),
    ) {
        let said = authority.clone().map(|(key_identifier, roots)| message::Authority {
            key_identifier: key_identifier.into(),
            roots,
        });
        let from = MeshSettings { outbound, connection_max_age, trust_domain, authority: said };
        let in_range = (1..=MAX_AGE_LIMIT.as_secs()).contains(&from.connection_max_age);
        match settings(&from) {
            Ok(read) => {
                prop_assert!(in_range && (1..=2).contains(&from.outbound));
                prop_assert_eq!(read.outbound == Outbound::RegistryOnly, from.outbound == 2);
                prop_assert_eq!(read.connection_max_age.as_secs(), from.connection_max_age);
                prop_assert_eq!(read.trust_domain, from.trust_domain);
                let read = read.authority.map(|read| (read.key_identifier, read.roots));
                prop_assert_eq!(read, authority);
            }
            Err(_) => {
                let domain = Identity::new(&from.trust_domain, "n", "a").is_ok();
                prop_assert!(!in_range || !(1..=2).contains(&from.outbound) || !domain);
            }
        }
    }
}
