use super::parse;

#[test]
fn only_listening_sockets_count() {
    let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
        0: 00000000:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n\
        1: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0\n";
    assert_eq!(parse(table), [6379]);
}
