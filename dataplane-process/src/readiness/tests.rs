use super::*;

#[tokio::test]
async fn is_ready_once_every_block_is_gone() {
    let readiness = Readiness::new();
    let (first, second) = (readiness.block("policies"), readiness.block("workloads"));
    let again = readiness.block("policies");
    assert_eq!(readiness.pending(), ["policies", "workloads"]);
    drop(first);
    assert_eq!(readiness.pending(), ["policies", "workloads"]);
    let waiting = tokio::spawn({
        let readiness = readiness.clone();
        async move { readiness.ready().await }
    });
    drop(again);
    drop(second);
    waiting.await.expect("ready");
    assert!(readiness.pending().is_empty());
}
