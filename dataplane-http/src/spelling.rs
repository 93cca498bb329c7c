//! For tests: the ways in which one path may be written.

use proptest::prelude::*;
use trefoil_api::path::normalize;

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
    fn two_spellings_are_one_path(
        path in "(/[a-z0-9:@._~-]{1,4}(%20|%C3%A9)?){1,4}/?",
        how in prop::collection::vec(respelling(), 1..12),
    ) {
        let Ok(normal) = normalize(&path) else { return Ok(()); };
        let spelled = respell(&path, &how);
        prop_assert_eq!(normalize(&spelled), Ok(normal));
    }
}
