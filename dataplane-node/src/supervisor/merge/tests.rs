use super::Page;

#[test]
fn series_of_several_workers_are_summed_and_facts_are_not() {
    let first = "# HELP opened Opened.\n# TYPE opened counter\nopened_total{to=\"a b\"} 2\n# TYPE build info\nbuild_info{version=\"1\"} 1\n# EOF\n";
    let second = "# HELP opened Opened.\n# TYPE opened counter\nopened_total{to=\"a b\"} 3\nopened_total{to=\"c\"} 1\n# TYPE build info\nbuild_info{version=\"1\"} 1\n# EOF\n";
    let mut page = Page::default();
    page.take(first);
    page.take(second);
    assert_eq!(
        page.text(),
        "# TYPE build info\nbuild_info{version=\"1\"} 1\n# HELP opened Opened.\n# TYPE opened counter\nopened_total{to=\"a b\"} 5\nopened_total{to=\"c\"} 1\n# EOF\n"
    );
}
