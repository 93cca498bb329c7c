use k8s_openapi::api::core::v1::Taint;

use super::without;

fn taint(key: &str, effect: &str) -> Taint {
    Taint {
        key: key.into(),
        effect: effect.into(),
        ..Taint::default()
    }
}

#[test]
fn only_the_startup_taint_is_lifted_whatever_its_effect() {
    let others = vec![
        taint("node.kubernetes.io/unschedulable", "NoSchedule"),
        taint("gpu", "NoExecute"),
    ];
    assert_eq!(without(others.clone()), None);
    assert_eq!(without(Vec::new()), None);
    let mut all = others.clone();
    all.insert(1, taint("trefoil.dev/agent-not-ready", "NoSchedule"));
    all.push(taint("trefoil.dev/agent-not-ready", "NoExecute"));
    assert_eq!(without(all), Some(others));
}
