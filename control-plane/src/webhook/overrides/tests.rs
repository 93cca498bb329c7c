use super::*;

fn read(annotations: &[(&str, &str)]) -> Result<Overrides, AnnotationError> {
    let all = annotations.iter();
    let all = all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Overrides::read(Some(&all.collect()))
}

#[test]
fn without_annotations_a_sidecar_is_like_all() {
    let usual = Overrides::read(None).expect("nothing");
    assert_eq!(usual, Overrides::default());
    assert!(usual.arguments().is_empty());
    assert_eq!(
        usual.resources("20m", "32Mi"),
        json!({"requests": {"cpu": "20m", "memory": "32Mi"}})
    );
}

#[test]
fn what_is_said_is_taken_over_and_nothing_else_changes() {
    let own = read(&[
        (annotation::SIDECAR_CPU_REQUEST, "0.5"),
        (annotation::SIDECAR_MEMORY_LIMIT, "128Mi"),
        (annotation::SIDECAR_LOG_LEVEL, "info,access=debug"),
        (annotation::SIDECAR_CONCURRENCY, "4"),
    ])
    .expect("understood");
    assert_eq!(
        own.resources("20m", "32Mi"),
        json!({"requests": {"cpu": "0.5"}, "limits": {"memory": "128Mi"}})
    );
    assert_eq!(
        own.arguments(),
        ["--log-level=info,access=debug", "--worker-threads=4"]
    );
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    for (name, value) in [
        (annotation::SIDECAR_CPU_REQUEST, "lots"),
        (annotation::SIDECAR_CPU_LIMIT, ""),
        (annotation::SIDECAR_CPU_LIMIT, "-1"),
        (annotation::SIDECAR_MEMORY_REQUEST, "64MB"),
        (annotation::SIDECAR_MEMORY_LIMIT, "1."),
        (annotation::SIDECAR_LOG_LEVEL, "loud"),
        (
            annotation::SIDECAR_LOG_LEVEL,
            "info --control-plane=https://elsewhere",
        ),
        (annotation::SIDECAR_CONCURRENCY, "0"),
        (annotation::SIDECAR_CONCURRENCY, "1000"),
    ] {
        let error = read(&[(name, value)]).expect_err(value);
        assert!(error.to_string().contains(name), "{error}");
    }
}
