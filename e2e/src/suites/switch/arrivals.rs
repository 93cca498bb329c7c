//! The kernel's word on which plane new connections of a pod are: whose process holds their sockets. Must ask
//! no part of the mesh.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::kernel::{Connection, connections, running, sockets_of};
use crate::programs::port;

/// The planes: the mode that asks for one, its name, its program, where it takes what its pod dials.
pub(super) const PLANES: [Plane; 2] = [
    Plane {
        mode: "ambient",
        name: "node",
        program: "trefoil-node",
        outbound: 15001,
    },
    Plane {
        mode: "sidecar",
        name: "sidecar",
        program: "trefoil-sidecar",
        outbound: 15101,
    },
];

/// A plane.
#[derive(Debug)]
pub(super) struct Plane {
    pub(super) mode: &'static str,
    pub(super) name: &'static str,
    program: &'static str,
    outbound: u16,
}

/// New connections that a pod must have on its new plane, for it to be there.
const ENOUGH: usize = 10;
/// For how long none may have come on the old one.
const QUIET: Duration = Duration::from_secs(1);
/// Between looks: connections are held open for longer.
const LOOK: Duration = Duration::from_millis(100);
/// When there is no more hope.
const LIMIT: Duration = Duration::from_secs(20);

/// Which sockets of a pod's network namespace tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Those that a plane accepted from the pod's application.
    Client,
    /// Those that a plane connected to the pod's application for bytes: requests may share one that was there.
    Server,
}

/// A pod that is watched.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) name: &'static str,
    pub(super) end: End,
    /// A process in its network namespace.
    pub(super) process: u32,
    /// Connections that were seen on a plane.
    pub(super) seen: HashSet<Connection>,
}

impl Watched {
    fn tells(&self, connection: &Connection) -> bool {
        match self.end {
            End::Client => PLANES
                .iter()
                .any(|plane| plane.outbound == connection.local.port()),
            End::Server => connection.remote.port() == port::TCP,
        }
    }

    /// The planes of the connections that were not seen before.
    fn fresh(&mut self, holders: &HashMap<u64, &'static str>) -> anyhow::Result<Vec<&'static str>> {
        let mut fresh = Vec::new();
        for connection in connections(self.process)? {
            if !self.tells(&connection) || self.seen.contains(&connection) {
                continue;
            }
            if let Some(plane) = holders.get(&connection.socket) {
                self.seen.insert(connection);
                fresh.push(*plane);
            }
        }
        Ok(fresh)
    }
}

/// Takes note of what is there.
pub(super) fn look(pods: &mut [Watched]) -> anyhow::Result<()> {
    let holders = holders()?;
    for pod in pods {
        pod.fresh(&holders)?;
    }
    Ok(())
}

/// Waits until each pod's new connections are on a plane and on no other; for each pod, when the last came on
/// another or, if later, the first on this one, counted from `begun`.
pub(super) async fn settled(
    pods: &mut [Watched],
    plane: &Plane,
    begun: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let mut last = vec![None; pods.len()];
    let mut arrived = vec![0; pods.len()];
    loop {
        let holders = holders()?;
        for (place, pod) in pods.iter_mut().enumerate() {
            for on in pod.fresh(&holders)? {
                if on != plane.name || arrived[place] == 0 {
                    last[place] = Some(begun.elapsed());
                }
                arrived[place] += usize::from(on == plane.name);
            }
        }
        let now = begun.elapsed();
        let quiet = last.iter().flatten().all(|last| now - *last >= QUIET);
        if quiet && arrived.iter().all(|count| *count >= ENOUGH) {
            return Ok(last.into_iter().flatten().collect());
        }
        ensure!(
            now < LIMIT,
            "after {} s, new connections on the {} of {:?}: {arrived:?}, the last elsewhere after {last:?}",
            LIMIT.as_secs(),
            plane.name,
            pods.iter().map(|pod| pod.name).collect::<Vec<_>>(),
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// Which plane's processes hold each socket.
fn holders() -> anyhow::Result<HashMap<u64, &'static str>> {
    let mut holders = HashMap::new();
    for plane in &PLANES {
        for process in running(plane.program, None)? {
            holders.extend(sockets_of(process).into_iter().map(|socket| (socket, plane.name)));
        }
    }
    Ok(holders)
}
