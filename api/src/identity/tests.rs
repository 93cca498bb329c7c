use proptest::prelude::*;

use super::Identity;

#[test]
fn anything_but_the_five_segments_is_refused() {
    for text in [
        "",
        "spiffe://",
        "spiffe://cluster.local",
        "spiffe://cluster.local/ns/shop",
        "spiffe://cluster.local/ns/shop/sa/",
        "spiffe:///ns/shop/sa/web",
        "spiffe://cluster.local/ns/shop/sa/web/",
        "spiffe://cluster.local/ns/shop/sa/web/more",
        "spiffe://cluster.local/sa/shop/ns/web",
        "spiffe://cluster.local/ns/sh%2fop/sa/web",
        "spiffe://cluster.local/ns/Shop/sa/web",
        "SPIFFE://cluster.local/ns/shop/sa/web",
        "https://cluster.local/ns/shop/sa/web",
    ] {
        assert!(
            text.parse::<Identity>().is_err(),
            "{text} was taken for an identity"
        );
    }
}

proptest! {
    #[test]
    fn what_parses_prints_the_same(text in "\\PC{0,80}") {
        if let Ok(identity) = text.parse::<Identity>() {
            prop_assert_eq!(identity.to_string(), text);
        }
    }

    #[test]
    fn parts_survive(domain in "[a-z][a-z0-9.-]{0,20}", ns in "[a-z][a-z0-9-]{0,20}", sa in "[a-z][a-z0-9-]{0,20}") {
        let identity = Identity::new(&domain, &ns, &sa).expect("valid parts");
        let parsed: Identity = identity.to_string().parse().expect("its own text");
        prop_assert_eq!(parsed, identity);
    }
}
