//! `trefoilctl local`: what is typed and what is printed. The mesh itself is `trefoil_local`'s.

pub(crate) mod command;
mod flags;

pub(crate) use flags::{EnterFlags, LocalCommand, pod_name};
