use super::options::listen_address;

#[test]
fn a_port_alone_means_every_address() {
    assert_eq!(
        listen_address(":15020"),
        Ok("[::]:15020".parse().expect("an address"))
    );
    assert_eq!(
        listen_address("127.0.0.1:1"),
        Ok("127.0.0.1:1".parse().expect("an address"))
    );
    for bad in ["", ":", ":70000", "15020", "localhost:1"] {
        assert!(
            listen_address(bad)
                .expect_err(bad)
                .contains("is not ADDRESS:PORT")
        );
    }
}
