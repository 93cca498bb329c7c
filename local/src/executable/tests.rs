use super::*;

#[test]
fn what_can_be_run_is_told_from_what_cannot() {
    let folders = OsStr::new("/nowhere:/bin:/usr/bin");
    for program in ["sh", "/bin/sh"] {
        assert!(find_in(program, folders).is_ok(), "{program}");
    }
    for program in [
        "no-such-program",
        "/bin/no-such-program",
        "/bin",
        "/etc/passwd",
        "./sh",
    ] {
        assert!(find_in(program, folders).is_err(), "{program}");
    }
    assert!(find_in("sh", OsStr::new("/nowhere")).is_err());
}
