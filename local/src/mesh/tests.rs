use super::{Mesh, Node};

#[test]
fn names_of_a_mesh_are_prefixed_by_it() {
    let mesh = Mesh::new("trefoil").unwrap();
    assert_eq!(mesh.pod_netns("shop", "cache"), "trefoil-shop-cache");
    assert_eq!(mesh.node_netns(Node(2)), "trefoil-n2");
}

#[test]
fn names_that_cannot_be_part_of_a_path_are_refused() {
    for name in ["", "../x", "a/b", "UPPER"] {
        assert!(Mesh::new(name).is_err(), "{name}");
    }
}

#[test]
fn nodes_are_found_by_name_and_by_number() {
    assert_eq!(Node::parse("n2"), Some(Node(2)));
    assert_eq!(Node::parse("2"), Some(Node(2)));
    assert_eq!(Node::parse("n0"), None);
    assert_eq!(Node::parse("worker"), None);
}

#[test]
fn addresses_of_pods_and_nodes() {
    assert_eq!(Node(2).pod_v4(7).to_string(), "10.244.2.7");
    assert_eq!(Node(2).pod_v6(7).to_string(), "fd00:10:244:2::7");
    assert_eq!(Node(1).address_v6().to_string(), "fd00:172:30::11");
}
