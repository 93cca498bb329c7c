use super::*;

#[test]
fn a_tunnel_ends_with_its_age_or_with_its_clients_certificate() {
    let (hour, now) = (Duration::from_secs(3600), SystemTime::now());
    let old = Term::new(hour, now + 24 * hour, now);
    assert_eq!(old.closed, hour + hour / 4);
    assert_eq!(old.leave, old.closed - NOTICE);

    let soon = Term::new(hour, now + Duration::from_secs(80), now);
    assert_eq!(soon.closed, Duration::from_secs(80));
    assert_eq!(soon.leave, Duration::from_secs(70));

    let expired = Term::new(hour, now - hour, now);
    assert_eq!((expired.leave, expired.closed), (Duration::ZERO, Duration::ZERO));
}
