use super::*;

#[test]
fn a_suite_that_checks_too_little_has_failed() {
    let mut report = Report::new("some");
    report.check("one", Ok("fine"));
    report.close(2);
    assert_eq!(report.failed(), 1);
}

#[test]
fn a_suite_with_all_its_checks_passes() {
    let mut report = Report::new("some");
    report.check("one", Ok("fine"));
    report.close(1);
    assert_eq!(report.failed(), 0);
}

#[test]
fn columns_align() {
    let rows = [vec!["a".into(), "bb".into()], vec!["ccc".into(), "d".into()]];
    assert_eq!(table(&rows), "a    bb\nccc  d\n");
}
