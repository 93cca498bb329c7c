use std::path::Path;

use proptest::prelude::*;

use super::{Namespace, descends_from, search, sockets};

const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid
   0: 00000000:3B01 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:3A99 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 1 1
   2: 00000000000000000000000001000000:3AA0 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 1 1
";

#[test]
fn only_listening_sockets_count() {
    let ports: Vec<u16> = sockets::listening(TABLE).collect();
    assert_eq!(ports, [15105, 15008]);
}

#[test]
fn pods_are_named_by_both_cgroup_drivers() {
    let uid = "0f3a9c1e-1111-2222-3333-444455556666";
    let systemd = "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod0f3a9c1e_1111_2222_3333_444455556666.slice/cri-containerd-1.scope";
    let plain = "4:memory:/kubepods/besteffort/pod0f3a9c1e-1111-2222-3333-444455556666/abc";
    assert!(search::names_pod(systemd, uid));
    assert!(search::names_pod(plain, uid));
    assert!(!search::names_pod(plain, "0f3a9c1e-1111-2222-3333-444455556667"));
    assert!(!search::names_pod(plain, ""));
}

#[test]
fn a_command_with_parentheses_does_not_hide_the_parent() {
    assert_eq!(search::parent_in("12 (a) 1 (b c) S 77 12 12 0"), Some(77));
    let own = std::process::id().cast_signed();
    let parent = std::os::unix::process::parent_id().cast_signed();
    assert!(descends_from(Path::new("/proc"), own, parent));
    assert!(!descends_from(Path::new("/proc"), own, own));
}

#[test]
fn a_plain_file_is_not_a_namespace() {
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(Namespace::open(file.path()).is_err());
    let current = Namespace::current().unwrap();
    assert_eq!(
        current.identity(),
        Namespace::open(Path::new("/proc/thread-self/ns/net"))
            .unwrap()
            .identity()
    );
}

proptest! {
    #[test]
    fn readers_of_proc_never_panic(text in ".{0,200}") {
        let _ = sockets::listening(&text).count();
        let _ = search::names_pod(&text, "0f3a9c1e-1111");
        let _ = search::parent_in(&text);
    }
}
