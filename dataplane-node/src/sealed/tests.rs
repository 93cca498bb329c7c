use std::io::Write;

use super::{is_sealed, open, seal};

#[test]
fn what_is_sealed_reads_the_same_twice_and_cannot_be_written() {
    let sealed = seal(b"keys").unwrap();
    assert_eq!(open(&sealed).unwrap(), b"keys");
    assert_eq!(open(&sealed).unwrap(), b"keys");
    let mut file = std::fs::File::from(sealed);
    assert!(file.write_all(b"x").is_err());
    assert!(file.set_len(0).is_err());
}

#[test]
fn what_is_not_sealed_is_refused() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"changes later").unwrap();
    assert!(!is_sealed(&file));
    assert!(open(&file).is_err());
}
