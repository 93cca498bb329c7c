use super::*;

fn lease(holder: &str, version: &str) -> Lease {
    Lease {
        metadata: ObjectMeta {
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }),
    }
}

#[test]
fn one_s_own_and_one_that_was_given_back_may_be_taken() {
    let now = Instant::now();
    assert!(Seen::default().may_take(&lease("us", "1"), "us", now));
    assert!(Seen::default().may_take(&lease("", "1"), "us", now));
    assert!(Seen::default().may_take(&Lease::default(), "us", now));
}

#[test]
fn another_s_may_be_taken_once_it_was_seen_unrenewed_for_its_duration() {
    let begin = Instant::now();
    let after = |seconds| begin + Duration::from_secs(seconds);
    let mut seen = Seen::default();
    // However long ago it was renewed by the holder's clock.
    assert!(!seen.may_take(&lease("them", "1"), "us", begin));
    assert!(!seen.may_take(&lease("them", "1"), "us", after(15)));
    // Renewed: the wait begins again.
    assert!(!seen.may_take(&lease("them", "2"), "us", after(16)));
    assert!(!seen.may_take(&lease("them", "2"), "us", after(31)));
    assert!(seen.may_take(&lease("them", "2"), "us", after(32)));
}
