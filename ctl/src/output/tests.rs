use super::{Table, width};

#[test]
fn columns_are_aligned_and_colour_has_no_width() {
    let mut table = Table::new(&["A", "B"]);
    table.row(["long".into(), "x".into()]);
    table.row(["\u{1b}[32mok\u{1b}[0m".into(), "y".into()]);
    let text = table.render();
    let columns: Vec<usize> = text.lines().map(|line| width(line) - 1).collect();
    assert_eq!(columns, [6, 6, 6]);
}
