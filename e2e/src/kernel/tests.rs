use super::*;

#[test]
fn a_line_is_read() {
    let line = "0      0      [::ffff:10.0.0.2]:41234 [::ffff:10.0.0.3]:9000 uid:15008 ino:4711 sk:1f cgroup:/ v6only:0 <->";
    let socket = read(line).unwrap();
    assert_eq!(socket.local, "[::ffff:10.0.0.2]:41234");
    assert_eq!(socket.peer, "[::ffff:10.0.0.3]:9000");
    assert_eq!(socket.inode, 4711);
    assert!(read("nothing of the kind").is_err());
}

#[test]
fn this_program_owns_its_sockets() {
    use std::os::fd::AsRawFd;
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
    let inode = link
        .to_string_lossy()
        .trim_start_matches("socket:[")
        .trim_end_matches(']')
        .parse()
        .unwrap();
    let own = std::env::current_exe().unwrap();
    assert_eq!(
        owners(inode).unwrap(),
        [own.file_name().unwrap().to_string_lossy()]
    );
}
