use super::Overview;

#[test]
fn a_second_replica_is_a_problem_with_a_remedy() {
    let overview = |replicas| Overview {
        replicas,
        ..Overview::default()
    };
    assert!(overview(0).problems().is_empty() && overview(1).problems().is_empty());
    let problems = overview(2).problems();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("run one replica"), "{problems:?}");
}
