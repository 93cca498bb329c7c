//! Which replicas of the control plane there are, and one stream to each: what redirects a pod is then known
//! wherever a client asks, and no replica has to believe another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Uri;

use super::Reports;
use super::stream::{self, ControlPlane, ReportError};

/// How often it is looked which replicas there are: the time to live of a cluster's names.
const LOOK: Duration = Duration::from_secs(5);
/// The same while none is known.
const SOON: Duration = Duration::from_millis(500);

/// Keeps a stream to each replica up.
pub(super) async fn run(reports: &Arc<Reports>, control_plane: &ControlPlane) {
    let known = watch::Sender::new(BTreeSet::new());
    let mut streams: BTreeMap<SocketAddr, AbortOnDropHandle<()>> = BTreeMap::new();
    let mut said = String::new();
    loop {
        match find(control_plane).await {
            Ok(found) => {
                said.clear();
                streams.retain(|_, stream| !stream.is_finished());
                for replica in &found {
                    streams.entry(*replica).or_insert_with(|| {
                        let (reports, control_plane) = (reports.clone(), control_plane.clone());
                        let (replica, known) = (*replica, known.subscribe());
                        AbortOnDropHandle::new(tokio::spawn(async move {
                            stream::run(&reports, &control_plane, replica, &known).await;
                        }))
                    });
                }
                reports.know(found.clone());
                known.send_replace(found);
            }
            // Those that are known are kept: a name server may be away. Said once, not with every attempt.
            Err(error) => {
                let reason = error.to_string();
                if said != reason {
                    tracing::warn!(%reason, "the replicas of the control plane are not known; trying again");
                    said = reason;
                }
            }
        }
        let pause = if known.borrow().is_empty() { SOON } else { LOOK };
        tokio::time::sleep(pause).await;
    }
}

/// Every address behind the control plane's names.
async fn find(control_plane: &ControlPlane) -> Result<BTreeSet<SocketAddr>, ReportError> {
    let mut found = BTreeSet::new();
    for address in &control_plane.addresses {
        let unusable = || ReportError::Address(address.clone());
        let uri: Uri = address.parse().map_err(|_| unusable())?;
        let host = uri.host().ok_or_else(unusable)?;
        let port = uri.port_u16().ok_or_else(unusable)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let resolved = tokio::net::lookup_host((host, port)).await;
        found.extend(resolved.map_err(|error| ReportError::Name {
            name: host.to_owned(),
            error,
        })?);
    }
    Ok(found)
}
