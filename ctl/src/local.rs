//! `trefoilctl local`: the mesh on one machine. Nodes and pods are network namespaces, everything else is
//! the real thing.

pub(crate) mod cni;
pub(crate) mod command;
mod control_plane;
mod daemon;
mod down;
pub(crate) mod enter;
mod executable;
mod flags;
mod forward;
mod hosts;
mod listening;
pub(crate) mod mesh;
pub(crate) mod network;
mod node;
pub(crate) mod objects;
mod pod;
mod process;
pub(crate) mod protocol;
pub(crate) mod run;
mod services;
mod sidecar;
mod waypoints;

use anyhow::Context;

pub(crate) use flags::{EnterFlags, LocalCommand, UpFlags, pod_name};

/// The path of a program of the mesh: beside this one.
pub(crate) fn binary(name: &str) -> anyhow::Result<String> {
    let own = std::env::current_exe().context("finding this executable")?;
    let path = own.with_file_name(name);
    anyhow::ensure!(
        path.exists(),
        "{} is missing: build the whole workspace",
        path.display()
    );
    Ok(path.display().to_string())
}
