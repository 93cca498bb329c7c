//! Versions that are too far apart. Pure.

#[cfg(test)]
mod tests;

/// Planes that are more than a minor version from a control plane, of (control planes, others), each with whose
/// version it is.
pub(super) fn skew([control_planes, others]: &[Vec<(String, String)>; 2]) -> Vec<(String, String)> {
    let too_far = |one: &str, other: &str| match (parsed(one), parsed(other)) {
        (Some((major, minor)), Some((other_major, other_minor))) => {
            major != other_major || minor.abs_diff(other_minor) > 1
        }
        // What cannot be compared is not known to be wrong.
        _ => false,
    };
    let mut found = Vec::new();
    for (of, version) in control_planes {
        let far = others.iter().filter(|(_, other)| too_far(version, other));
        for (who, other) in far {
            found.push((
                format!("{who} has version {other} and {of} has {version}: one minor version between them is what is kept working"),
                "upgrade one minor version at a time, the control plane first; a sidecar is upgraded by restarting its pod".to_owned(),
            ));
        }
    }
    found
}

/// Major and minor.
pub(super) fn parsed(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim_start_matches('v').split(['.', '+', '-']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
