use super::*;

#[test]
fn a_line_is_read() {
    let line = "0      0      [::ffff:10.0.0.2]:41234 [::ffff:10.0.0.3]:9000 uid:15008 ino:4711 sk:1f cgroup:/ v6only:0 <->";
    let socket = read(line).unwrap();
    assert_eq!(socket.local, "[::ffff:10.0.0.2]:41234");
    assert_eq!(socket.peer, "[::ffff:10.0.0.3]:9000");
    assert!(read("nothing of the kind").is_err());
}
