use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::json;

use super::{InForce, behind, ending, roots, serial};

const DAY: i64 = 24 * 3600;

fn root(year: i32) -> String {
    let mut params = CertificateParams::default();
    params.not_after = date_time_ymd(year, 1, 1);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

#[test]
fn what_ends_within_a_week_is_found() {
    // 2030-01-01.
    let then = 1_893_456_000;
    let authority = |end: i64, roots: &str| json!({ "notAfterSeconds": end, "roots": roots });
    let roots = format!("{}{}", root(2030), root(2040));
    for (now, end, expected) in [
        (then - 30 * DAY, then, 0),
        (then - 8 * DAY, then - 7 * DAY, 1),
        (then - 6 * DAY, then + 90 * DAY, 1),
        (then + 1, then, 2),
    ] {
        let found = ending(&authority(end, &roots), now);
        assert_eq!(found.len(), expected, "{now}: {found:?}");
    }
    let ended = ending(&authority(then, &roots), then + 1);
    assert!(
        ended.iter().all(|(finding, _)| finding.contains("has ended")),
        "{ended:?}"
    );
}

#[test]
fn a_plane_is_behind_until_both_key_and_roots_are_those_in_force() {
    let authority = json!({ "signer": "0a:0b", "roots": format!("{}{}", root(2030), root(2040)) });
    let serials: Vec<String> = roots(&authority).iter().filter_map(serial).collect();
    let in_force = InForce::of(&authority).unwrap();
    let turned: Vec<&String> = serials.iter().rev().collect();
    for (certificate, expected) in [
        (json!({ "signer": "0a:0b", "root_serials": serials }), 0),
        (json!({ "signer": "0a:0b", "root_serials": turned }), 0),
        (json!({ "signer": "0a:0c", "root_serials": serials }), 1),
        (json!({ "signer": "0a:0b", "root_serials": serials[..1] }), 1),
        // Awaited, and of an older version.
        (json!({ "signer": null, "root_serials": [] }), 0),
        (json!({ "roots": 2 }), 0),
    ] {
        assert_eq!(
            behind(std::slice::from_ref(&certificate), &in_force),
            expected,
            "{certificate}"
        );
    }
    assert_eq!(
        InForce::of(&json!({ "roots": root(2030) })),
        None,
        "of an older version"
    );
}
