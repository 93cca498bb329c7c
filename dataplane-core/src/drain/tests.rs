use super::*;

#[tokio::test]
async fn waits_for_what_is_running() {
    let drain = Drain::new();
    let asked = drain.clone();
    let task = drain.spawn(async move {
        asked.draining().await;
        7
    });
    assert_eq!(drain.drain(Duration::from_secs(10)).await, Drained::Complete);
    assert_eq!(task.await.expect("joined"), Some(7));
}

#[tokio::test]
async fn the_deadline_ends_what_does_not_end_itself() {
    let drain = Drain::new();
    let task = drain.spawn(std::future::pending::<()>());
    let drained = drain.drain(Duration::from_millis(10)).await;
    assert_eq!(drained, Drained::Forced { remaining: 1 });
    assert_eq!(task.await.expect("joined"), None);
}

#[tokio::test]
async fn a_part_drains_with_the_whole_but_not_the_whole_with_a_part() {
    let whole = Drain::new();
    let (one, other) = (whole.child(), whole.child());
    assert_eq!(one.drain(Duration::from_secs(1)).await, Drained::Complete);
    assert!(!whole.is_draining() && !other.is_draining());
    whole.begin();
    assert!(other.is_draining());
}

#[tokio::test]
async fn the_whole_waits_for_the_tasks_of_its_parts() {
    let whole = Drain::new();
    let part = whole.child().child();
    let asked = part.clone();
    let task = part.spawn(async move { asked.draining().await });
    drop(part);
    assert_eq!(whole.remaining(), 1);
    assert_eq!(whole.drain(Duration::from_secs(10)).await, Drained::Complete);
    assert_eq!(task.await.expect("joined"), Some(()));
}
