//! Keys that outlive the process: exported into a sealed memory file whenever they change, and handed to
//! the supervisor. They are never written to a disk.

use std::sync::Arc;

use trefoil_api::proto::trefoil::worker::{StoreKeys, from_worker};
use trefoil_dataplane_state::Certificates;

use super::channel::Outbox;
use crate::sealed;

/// Stores the keys whenever they change, for as long as the process lives.
pub(super) async fn store(certificates: Arc<Certificates>, outbox: Outbox) {
    let mut changes = certificates.changes();
    while changes.changed().await.is_ok() {
        match sealed::seal(&certificates.export()) {
            Ok(file) => outbox.send_with(from_worker::Payload::StoreKeys(StoreKeys {}), file),
            Err(error) => tracing::warn!(%error, "keys would not outlive this process"),
        }
    }
}
