use super::{pod_name, service, user};

#[test]
fn services_are_name_port_and_target() {
    let parsed = service("web:80:8080").unwrap();
    assert_eq!(
        (parsed.name.as_str(), parsed.port, parsed.target),
        ("web", 80, 8080)
    );
    assert_eq!(service("web:80").unwrap().target, 80);
    for wrong in ["web", ":80", "web:80:x", "web:80:81:82", "web:70000"] {
        assert!(service(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn users_have_a_group_of_the_same_number_unless_said() {
    assert_eq!(user("100").unwrap(), (100, 100));
    assert_eq!(user("100:200").unwrap(), (100, 200));
    assert!(user("postgres").is_err());
}

#[test]
fn pods_are_named_with_their_namespace() {
    assert_eq!(pod_name("shop/cache").unwrap(), ("shop".into(), "cache".into()));
    assert!(pod_name("cache").is_err());
}
