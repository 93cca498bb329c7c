use trefoil_dataplane_state::state::Isolation;

use super::Scope;

#[test]
fn a_scope_is_as_wide_as_the_isolation_says() {
    let scope = |isolation| Scope::of(isolation, "shop", "uid-1").to_string();
    assert_eq!(scope(Isolation::Shared), "shared");
    assert_eq!(scope(Isolation::Unspecified), "shared");
    assert_eq!(scope(Isolation::Namespace), "namespace/shop");
    assert_eq!(scope(Isolation::Workload), "workload/uid-1");
}
