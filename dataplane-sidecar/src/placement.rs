//! Noticing that another plane took the workload over: our clients are then asked to leave. We keep serving,
//! because established connections stay where they are, and because the workload may come back.

use trefoil_dataplane_state::Store;
use trefoil_dataplane_state::state::Plane;

#[cfg(test)]
mod tests;

/// Calls `retire` each time that the workload's placement changes to another plane than ours. Ends with the
/// store.
pub(crate) async fn watch(store: Store, workload: String, retire: impl Fn()) {
    let mut changes = store.changes();
    let mut before = None;
    loop {
        let now = plane(&store, &workload);
        if now != before {
            tracing::info!(?now, "the workload's placement changed");
            if matches!(now, Some(Plane::Node | Plane::None)) {
                retire();
            }
            before = now;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// What redirects the workload now, where the control plane says.
pub(crate) fn plane(store: &Store, workload: &str) -> Option<Plane> {
    let placement = store.workload(workload)?.placement.clone()?;
    (placement.plane != Plane::Unspecified).then_some(placement.plane)
}
