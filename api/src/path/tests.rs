use proptest::prelude::*;

use super::*;

#[test]
fn each_path_has_one_spelling() {
    for (path, normal) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("/%61%2D%2e%5F%7e", "/a-._~"),
        ("/a%3ab", "/a:b"),
        ("/a%40b%3b%2b", "/a@b;+"),
        ("/a%20b%c3%a9", "/a%20b%C3%A9"),
        ("/é", "/%C3%A9"),
        ("/{a}\"|", "/%7Ba%7D%22%7C"),
        ("/100%25", "/100%25"),
        ("/%2525", "/%2525"),
        ("//a///b//", "/a/b/"),
        ("/a/./b/.", "/a/b/"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/%2e%2E/b", "/b"),
        ("/a//../b", "/b"),
        ("/...", "/..."),
        ("/a/..b/.c", "/a/..b/.c"),
    ] {
        assert_eq!(normalize(path).as_deref(), Ok(normal), "{path}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused() {
    for (path, refused) in [
        ("", PathRefused::NotAbsolute),
        ("a", PathRefused::NotAbsolute),
        ("*", PathRefused::NotAbsolute),
        ("/a%2Fb", PathRefused::EncodedSlash),
        ("/a%2fb", PathRefused::EncodedSlash),
        ("/a%5cb", PathRefused::Backslash),
        ("/a\\b", PathRefused::Backslash),
        ("/a%00", PathRefused::Control),
        ("/a%0a", PathRefused::Control),
        ("/a%7F", PathRefused::Control),
        ("/a%", PathRefused::InvalidEscape),
        ("/a%4", PathRefused::InvalidEscape),
        ("/a%zz", PathRefused::InvalidEscape),
        ("/%é", PathRefused::InvalidEscape),
        ("/..", PathRefused::AboveRoot),
        ("/a/../../b", PathRefused::AboveRoot),
        ("/%2e%2e/b", PathRefused::AboveRoot),
        ("/a/..;/b", PathRefused::DotParameter),
        ("/a/%2e.%3bx/b", PathRefused::DotParameter),
    ] {
        assert_eq!(normalize(path), Err(refused), "{path}");
    }
}

#[test]
fn what_is_compared_with_paths_is_written_as_they_are() {
    use Part::{Beginning, End, Whole};
    for (text, part) in [
        ("/", Whole),
        ("/a/b", Whole),
        ("/a/b/", Whole),
        ("/a%20b%C3%A9", Whole),
        ("/shop.Cart/Buy", Whole),
        ("/", Beginning),
        ("/a", Beginning),
        ("/a/", Beginning),
        ("/.", Beginning),
        ("/a/..", Beginning),
        ("/a%20", Beginning),
        ("/", End),
        (".php", End),
        ("/admin", End),
        ("..", End),
    ] {
        assert_eq!(comparable(text, part), Ok(()), "{text} as {part:?}");
    }
    for (text, part, expected) in [
        ("/a//b", Whole, "write \"/a/b\""),
        ("/%61dmin", Whole, "write \"/admin\""),
        ("/a%2db", Whole, "write \"/a-b\""),
        ("/a%c3%a9", Whole, "write \"/a%C3%A9\""),
        ("/a b", Whole, "write \"/a%20b\""),
        ("/a/../b", Whole, "write \"/b\""),
        ("/a/.", Whole, "write \"/a/\""),
        ("admin", Whole, "slash"),
        ("/a%2Fb", Whole, "encoded slash"),
        ("/a\\b", Whole, "backslash"),
        ("/..", Whole, "above the root"),
        ("//", Beginning, "write \"/\""),
        ("/a/./", Beginning, "write \"/a/\""),
        ("/a%4", Beginning, "escape"),
        ("/a%", Beginning, "escape"),
        ("admin", Beginning, "slash"),
        ("//admin", End, "write \"/admin\""),
        ("/..", End, "no path"),
        ("%41", End, "write \"A\""),
    ] {
        let refused = comparable(text, part).expect_err(text);
        assert!(refused.contains(expected), "{refused}");
    }
}

proptest! {
    #[test]
    fn normalizing_is_idempotent(path in "/[a-z./%2eE;:\\\\é 05f]{0,24}") {
        if let Ok(normal) = normalize(&path) {
            prop_assert_eq!(normalize(&normal), Ok(Cow::Borrowed(&*normal)));
            prop_assert!(!normal.contains("//"));
            prop_assert!(!normal.split('/').any(|segment| segment == "." || segment == ".."));
        }
    }

    #[test]
    fn what_paths_have_can_be_compared_with(path in "/[a-z./%2eE;:\\\\é 05f]{0,24}", at in any::<prop::sample::Index>()) {
        if let Ok(normal) = normalize(&path) {
            prop_assert_eq!(comparable(&normal, Part::Whole), Ok(()));
            let at = at.index(normal.len() + 1);
            let whole_escapes = !normal[..at].ends_with('%') && !normal[..at.max(1) - 1].ends_with('%');
            if whole_escapes && at > 0 {
                prop_assert_eq!(comparable(&normal[..at], Part::Beginning), Ok(()));
            }
        }
    }
}
