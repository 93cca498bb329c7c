use proptest::prelude::*;

use super::{ports, ranges};

#[test]
fn what_is_not_a_port_is_refused_by_name() {
    for text in ["0", "65536", "http", "80-90", "-1", "80;81"] {
        let error = ports("trefoil.dev/exclude-inbound-ports", text).unwrap_err();
        assert!(error.to_string().contains("exclude-inbound-ports"), "{error}");
    }
}

proptest! {
    #[test]
    fn annotation_parsers_never_panic_and_read_back_what_they_print(text in ".{0,60}") {
        if let Ok(read) = ports("a", &text) {
            let printed: Vec<String> = read.iter().map(ToString::to_string).collect();
            prop_assert_eq!(ports("a", &printed.join(",")).unwrap(), read);
        }
        if let Ok(read) = ranges("a", &text) {
            let printed: Vec<String> = read.iter().map(ToString::to_string).collect();
            prop_assert_eq!(ranges("a", &printed.join(",")).unwrap(), read);
        }
    }
}
