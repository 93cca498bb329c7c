//! `uninstall --check`: what a mesh that was removed has left in a cluster, what of it would hinder pods, and the
//! command that removes each. It removes nothing itself.

mod kinds;
mod left;
#[cfg(test)]
mod tests;

use serde::Serialize;
use trefoil_local::mesh::Mesh;

use crate::output::{Format, Table, Tone, toned};
pub(crate) use kinds::{Objects, is_about, list, name, namespace};

/// Something that is left.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Left {
    /// Pods would wait for it, be refused by it, or lose connections to it.
    pub(crate) hinders: bool,
    /// KIND/NAME, with its namespace.
    pub(crate) object: String,
    /// What it is, or does.
    pub(crate) what: String,
    /// The command that removes it.
    pub(crate) remove: String,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Found {
    /// The mesh's own processes are still there.
    installed: bool,
    left: Vec<Left>,
    /// What could not be looked at.
    unseen: Vec<String>,
}

/// What no API server knows: to be looked at on the nodes.
const ON_NODES: &str = "nodes' files, which no API server knows: /opt/cni/bin/trefoil-cni, /var/lib/trefoil, /run/trefoil, and whether a file of /etc/cni/net.d still names trefoil-cni";

/// Looks at a cluster; 1 if something would hinder pods.
pub(crate) async fn cluster(client: &kube::Client, format: Format) -> anyhow::Result<i32> {
    let objects = Objects::all(client).await?;
    let mut unseen: Vec<String> = objects.unseen().iter().map(|kind| (*kind).to_owned()).collect();
    unseen.push(ON_NODES.into());
    let found = Found {
        installed: objects.is_installed(),
        left: objects.left(),
        unseen,
    };
    format.print(&found, || render(&found))?;
    Ok(i32::from(
        found.installed || found.left.iter().any(|one| one.hinders),
    ))
}

/// Looks at this machine; 1 if anything is left of the mesh.
pub(crate) fn machine(mesh: &Mesh, format: Format) -> anyhow::Result<i32> {
    let traces = trefoil_local::down::traces(mesh)?;
    let left = traces.into_iter().map(|object| Left {
        hinders: true,
        object,
        what: format!("of mesh {} on this machine", mesh.name),
        remove: format!("trefoilctl --mesh {} local down", mesh.name),
    });
    let found = Found {
        installed: mesh.kubeconfig().exists(),
        left: left.collect(),
        unseen: Vec::new(),
    };
    format.print(&found, || render(&found))?;
    Ok(i32::from(!found.left.is_empty()))
}

fn render(found: &Found) -> String {
    let mut text = String::new();
    if found.installed {
        let still = toned(Tone::Bad, "the mesh is still installed");
        text.push_str(&format!("{still}: this is what would have to go with it\n\n"));
    }
    if found.left.is_empty() {
        text.push_str(&toned(Tone::Good, "nothing is left\n"));
    } else {
        let mut table = Table::new(&["HINDERS PODS", "OBJECT", "WHAT", "REMOVE IT WITH"]);
        for one in &found.left {
            let hinders = match one.hinders {
                true => toned(Tone::Bad, "yes"),
                false => "no".into(),
            };
            table.row([hinders, one.object.clone(), one.what.clone(), one.remove.clone()]);
        }
        text.push_str(&table.render());
    }
    for what in &found.unseen {
        text.push_str(&format!("\n{} {what}", toned(Tone::Odd, "could not look at:")));
    }
    text
}
