use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::json;

use super::archive::{Archive, FILE_BYTES};
use super::{SIDECARS, bounded};
use crate::planes::{Plane, Role};

/// The files of an archive.
fn unpacked(path: &std::path::Path) -> BTreeMap<String, String> {
    let file = std::fs::File::open(path).unwrap();
    let mut tar = tar::Archive::new(GzDecoder::new(file));
    let files = tar.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name, text)
    });
    files.collect()
}

#[test]
fn nothing_secret_comes_through_any_door_of_the_archive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.tar.gz");
    let mut archive = Archive::create(&path, 0).unwrap();
    let secret = "Xy7-hunter2";
    let line = format!("Authorization: Bearer {secret}");
    archive.log("a.log", &line).unwrap();
    archive.text("b.txt", &line).unwrap();
    archive
        .json(
            "c.json",
            &json!([{ "env": [{ "name": "X", "value": secret }], "said": line }]),
        )
        .unwrap();
    archive.lacks(line);
    let written = archive.finish().unwrap();
    assert_eq!(written.files, 4);
    let files = unpacked(&path);
    assert_eq!(files.len(), 4, "{files:?}");
    for (name, text) in &files {
        assert!(
            text.contains("REDACTED") && !text.contains(secret),
            "{name}: {text}"
        );
    }
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    assert!(Archive::create(&path, 0).is_err(), "it overwrites nothing");
}

#[test]
fn files_are_bounded_and_what_is_cut_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.tar.gz");
    let mut archive = Archive::create(&path, 0).unwrap().with_room(FILE_BYTES * 2);
    // A character that is not of one byte, over the bound.
    let long = format!("first{}last", "é".repeat(FILE_BYTES / 2));
    archive.log("log", &long).unwrap();
    archive.text("text", &long).unwrap();
    archive.text("more", "some").unwrap();
    archive.text("over", &long).unwrap();
    let written = archive.finish().unwrap();
    let files = unpacked(&path);
    assert!(files["trefoil-bugreport/log"].ends_with("last"));
    assert!(files["trefoil-bugreport/text"].starts_with("first"));
    assert!(files.values().all(|text| text.len() <= FILE_BYTES));
    assert!(
        written.missing.iter().any(|one| one.starts_with("log: cut to")),
        "{:?}",
        written.missing
    );
    assert!(
        written
            .missing
            .iter()
            .any(|one| one == "over: the archive is full"),
        "{:?}",
        written.missing
    );
}

#[test]
fn sidecars_beyond_a_number_are_left_out_and_counted() {
    let sidecars = (0..SIDECARS + 7).map(|number| Plane::named(Role::Sidecar, &format!("a/{number}")));
    let all = sidecars.chain([Plane::named(Role::ControlPlane, "c")]).collect();
    let mut left = 0;
    assert_eq!(bounded(all, |count| left = count).len(), SIDECARS + 1);
    assert_eq!(left, 7);
}
