//! The mesh on one machine: nodes and pods are network namespaces, everything else is the real thing. Control
//! plane, agents and planes run as they do in a cluster; only what a cluster has beside them is made here.
//!
//! The program that uses this must serve `local enter` and `local up --foreground --detached`: processes are
//! started through it, and it prints what they say. Nothing here prints.

pub mod api;
pub mod ask;
pub mod causes;
mod cni;
mod control_plane;
mod daemon;
pub mod down;
pub mod enter;
mod executable;
mod forward;
mod hosts;
mod listening;
pub mod machine;
pub mod mesh;
mod network;
mod node;
pub mod objects;
mod pod;
mod process;
pub mod protocol;
pub mod run;
mod services;
mod sidecar;
pub mod up;
mod waypoints;

use anyhow::Context;

/// The path of a program of the mesh: beside this one.
fn binary(name: &str) -> anyhow::Result<String> {
    let own = std::env::current_exe().context("finding this executable")?;
    let path = own.with_file_name(name);
    anyhow::ensure!(
        path.exists(),
        "{} is missing: build the whole workspace",
        path.display()
    );
    Ok(path.display().to_string())
}
