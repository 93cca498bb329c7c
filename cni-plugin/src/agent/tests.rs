use tokio_util::sync::CancellationToken;

use super::{AgentError, Parts};

#[tokio::test]
async fn a_part_that_ends_by_itself_ends_the_agent_with_an_error() {
    let mut parts = Parts::new(CancellationToken::new());
    parts.run("the rest", std::future::pending());
    parts.run("a server", async {});
    let ended = parts.until_ended().await;
    assert!(matches!(ended, Err(AgentError::Ended("a server"))), "{ended:?}");
}

#[tokio::test]
async fn an_agent_that_is_told_to_end_does_so_without_one() {
    let ending = CancellationToken::new();
    let mut parts = Parts::new(ending.clone());
    parts.run("a server", std::future::pending());
    ending.cancel();
    parts.until_ended().await.unwrap();
}
