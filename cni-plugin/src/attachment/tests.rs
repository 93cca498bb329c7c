use std::collections::BTreeMap;

use super::{Attachment, LastKnown, StateDirectory};

fn known(pod_overrides: bool) -> LastKnown {
    let labels = |mode: Option<&str>| {
        mode.map(|mode| ("trefoil.dev/dataplane-mode".to_string(), mode.to_string()))
            .into_iter()
            .collect::<BTreeMap<_, _>>()
    };
    LastKnown {
        namespaces: [
            ("plain".into(), labels(None)),
            ("out".into(), labels(Some("none"))),
            ("shop".into(), labels(Some("ambient"))),
            ("broken".into(), labels(Some("amibent"))),
        ]
        .into(),
        pod_overrides,
        ..LastKnown::default()
    }
}

#[test]
fn only_what_is_certain_passes_without_the_agent() {
    let cases = [
        // namespace, pods may override, passes
        ("trefoil-system", true, true),
        ("kube-system", true, true),
        ("plain", true, false),
        ("plain", false, true),
        ("out", false, true),
        ("out", true, false),
        ("shop", false, false),
        ("broken", false, false),
        ("unknown", false, false),
    ];
    for (namespace, overrides, passes) in cases {
        assert_eq!(
            known(overrides).surely_unmeshed(namespace),
            passes,
            "{namespace} {overrides}"
        );
    }
    let mut asked = known(false);
    let labels = asked.namespaces["shop"].clone();
    asked.namespaces.insert("kube-system".into(), labels);
    assert!(!asked.surely_unmeshed("kube-system"));
}

#[test]
fn state_is_read_back_and_names_cannot_leave_the_directory() {
    let folder = tempfile::tempdir().unwrap();
    let state = StateDirectory::open(folder.path()).unwrap();
    assert_eq!(state.last_known(), None);
    state.remember(&known(true)).unwrap();
    assert_eq!(state.last_known(), Some(known(true)));
    let mut attachment = Attachment {
        uid: "0f3a-1".into(),
        namespace: "shop".into(),
        name: "web".into(),
        container_id: "c".into(),
        netns: "/run/netns/x".into(),
        addresses: ["10.0.0.1".parse().unwrap()].into(),
        identity: None,
        service_account: String::new(),
    };
    state.attach(&attachment).unwrap();
    assert_eq!(state.attachments().unwrap(), [attachment.clone()]);
    state.detach("0f3a-1").unwrap();
    state.detach("0f3a-1").unwrap();
    assert!(state.attachments().unwrap().is_empty());
    attachment.uid = "../evil".into();
    assert!(state.attach(&attachment).is_err());
}
