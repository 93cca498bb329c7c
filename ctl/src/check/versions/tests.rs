use super::{parsed, skew};

#[test]
fn one_minor_version_apart_is_well() {
    for (control_plane, plane, well) in [
        ("0.3.0", "0.3.9", true),
        ("0.3.0", "0.2.0", true),
        ("0.3.0", "0.4.1", true),
        ("0.3.0", "0.1.0", false),
        ("0.3.0", "0.5.0", false),
        ("1.0.0", "0.9.0", false),
        ("0.3.0", "unknown", true),
    ] {
        let versions = [
            vec![("control plane c".to_owned(), control_plane.to_owned())],
            vec![("sidecar a/b".to_owned(), plane.to_owned())],
        ];
        assert_eq!(skew(&versions).is_empty(), well, "{control_plane} {plane}");
    }
}

#[test]
fn versions_of_every_spelling() {
    assert_eq!(parsed("v1.33.2+k3s1"), Some((1, 33)));
    assert_eq!(parsed("6.12.0-amd64"), Some((6, 12)));
    assert_eq!(parsed("5.15"), Some((5, 15)));
    assert_eq!(parsed("six"), None);
}
