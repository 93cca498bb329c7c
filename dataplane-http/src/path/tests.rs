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

/// How a path may be written differently.
#[derive(Clone, Debug)]
pub(crate) enum Respelling {
    Escape(bool),
    DoubleSlash,
    Dot,
    DownAndUp,
    Nothing,
}

pub(crate) fn respelling() -> impl Strategy<Value = Respelling> {
    prop_oneof![
        any::<bool>().prop_map(Respelling::Escape),
        Just(Respelling::DoubleSlash),
        Just(Respelling::Dot),
        Just(Respelling::DownAndUp),
        Just(Respelling::Nothing),
    ]
}

/// The same path, written as `how` says, one for each character.
pub(crate) fn respell(path: &str, how: &[Respelling]) -> String {
    let mut spelled = String::new();
    let mut how = how.iter().cycle();
    let mut bytes = path.bytes().peekable();
    while let Some(byte) = bytes.next() {
        let already_escaped = byte == b'%';
        match (how.next(), byte) {
            (Some(Respelling::DoubleSlash), b'/') => spelled.push_str("//"),
            (Some(Respelling::Dot), b'/') => spelled.push_str("/./"),
            (Some(Respelling::DownAndUp), b'/') => spelled.push_str("/x/%2e./"),
            (Some(Respelling::Escape(upper)), other) if other != b'/' && !already_escaped => {
                let escaped = if *upper {
                    format!("%{other:02X}")
                } else {
                    format!("%{other:02x}")
                };
                spelled.push_str(&escaped);
            }
            (_, other) => spelled.push(char::from(other)),
        }
        if already_escaped {
            spelled.extend(bytes.by_ref().take(2).map(char::from));
        }
    }
    spelled
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
    fn two_spellings_are_one_path(
        path in "(/[a-z0-9:@._~-]{1,4}(%20|%C3%A9)?){1,4}/?",
        how in prop::collection::vec(respelling(), 1..12),
    ) {
        let Ok(normal) = normalize(&path) else { return Ok(()); };
        let spelled = respell(&path, &how);
        prop_assert_eq!(normalize(&spelled), Ok(normal));
    }
}
