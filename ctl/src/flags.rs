//! The flags of `trefoilctl`.

use std::path::PathBuf;

use clap::Parser;

use crate::local::LocalCommand;
use crate::output::Format;

/// Looks at a mesh, changes it, and makes one on this machine.
#[derive(Debug, Parser)]
#[command(name = "trefoilctl", version, about, disable_help_subcommand = true)]
pub(crate) struct Flags {
    /// The cluster; else the environment's, else the local mesh's.
    #[arg(long, global = true)]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// How results are printed.
    #[arg(long, short, global = true, default_value = "text")]
    pub(crate) output: Format,
    /// What is logged to standard error.
    #[arg(long, global = true, default_value = "warn", env = "TREFOIL_LOG_LEVEL")]
    pub(crate) log_level: String,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Subcommand,
}

/// What to do.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Subcommand {
    /// The mesh on this machine.
    Local {
        /// The name of the mesh.
        #[arg(long, global = true, default_value = "trefoil", env = "TREFOIL_MESH")]
        mesh: String,
        /// What to do.
        #[command(subcommand)]
        command: LocalCommand,
    },
}
