use std::time::Duration;

use proptest::prelude::*;

use super::{MeshConfig, Outbound, parse_duration};
use crate::crd::MtlsMode;

#[test]
fn an_empty_text_is_the_default() {
    for text in ["", "\n", "# nothing\n"] {
        assert_eq!(MeshConfig::parse(text).expect("empty"), MeshConfig::default());
    }
}

#[test]
fn every_key_is_read() {
    let config = MeshConfig::parse(
        "trustDomain: example.org\noutbound: RegistryOnly\npodOverrides: false\ndefaultMtls: Strict\n\
         certificateLifetime: 10s\nconnectionMaxAge: 1h30m\nautoWaypoint: true\n",
    )
    .expect("valid");
    assert_eq!(config.trust_domain.as_deref(), Some("example.org"));
    assert_eq!(config.outbound, Outbound::RegistryOnly);
    assert!(!config.pod_overrides && config.auto_waypoint);
    assert_eq!(config.default_mtls, MtlsMode::Strict);
    assert_eq!(config.certificate_lifetime, Duration::from_secs(10));
    assert_eq!(config.connection_max_age, Duration::from_secs(5400));
}

#[test]
fn what_is_not_understood_is_refused() {
    for text in [
        "trustdomain: a",
        "outbound: Maybe",
        "certificateLifetime: 24",
        "certificateLifetime: 1s",
        "connectionMaxAge: 0s",
        "connectionMaxAge: 1500ms",
        "connectionMaxAge: 8761h",
        "trustDomain: Exa mple",
        "- a list",
    ] {
        assert!(MeshConfig::parse(text).is_err(), "{text} was accepted");
    }
}

proptest! {
    #[test]
    fn durations_never_panic(text in "\\PC{0,20}") {
        let _ = parse_duration(&text);
    }

    #[test]
    fn durations_add_up(hours in 0u64..1000, minutes in 0u64..1000, seconds in 0u64..1000) {
        let parsed = parse_duration(&format!("{hours}h{minutes}m{seconds}s")).expect("valid");
        prop_assert_eq!(parsed.as_secs(), hours * 3600 + minutes * 60 + seconds);
    }
}
