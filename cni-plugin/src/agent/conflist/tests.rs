use serde_json::{Value, json};

use super::{install, uninstall};

fn read(path: &std::path::Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn the_entry_is_last_once_and_goes_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let entry = json!({"type": "trefoil-cni", "runDir": "/run/trefoil"});
    assert!(install(folder.path(), &entry).is_err(), "no network yet");
    let path = folder.path().join("10-net.conflist");
    let before = json!({"name": "net", "plugins": [{"type": "ptp", "x": [1]}, {"type": "portmap"}]});
    std::fs::write(&path, before.to_string()).unwrap();
    std::fs::write(folder.path().join("20-other.conflist"), "{\"plugins\": []}").unwrap();

    assert!(install(folder.path(), &entry).unwrap());
    assert!(!install(folder.path(), &entry).unwrap());
    let plugins = read(&path)["plugins"].clone();
    assert_eq!(plugins.as_array().unwrap().len(), 3);
    assert_eq!(plugins[2], entry);

    // Somebody rewrites it.
    std::fs::write(&path, before.to_string()).unwrap();
    assert!(install(folder.path(), &entry).unwrap());
    uninstall(folder.path(), folder.path()).unwrap();
    assert_eq!(read(&path), before);
}

#[test]
fn a_single_plugin_becomes_a_list() {
    let folder = tempfile::tempdir().unwrap();
    let single = json!({"cniVersion": "0.4.0", "name": "net", "type": "bridge"});
    std::fs::write(folder.path().join("10-net.conf"), single.to_string()).unwrap();
    assert!(install(folder.path(), &json!({"type": "trefoil-cni"})).unwrap());
    let list = read(&folder.path().join("10-net.conflist"));
    assert_eq!(list["name"], "net");
    assert_eq!(list["plugins"][0]["type"], "bridge");
    assert!(!folder.path().join("10-net.conf").exists());
}
