use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::json;

use super::ending;

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
