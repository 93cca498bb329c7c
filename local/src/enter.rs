//! Becomes a program of a pod, as a container runtime's last step does: network namespace, files of its own,
//! user and capabilities, then exec. Runs before any thread exists, because namespaces and users are a
//! thread's own.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Gid, Signal, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, move_into_link_name_space,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use serde::{Deserialize, Serialize};

use super::mesh::{NETNS_ROOT, STATE_ROOT};

mod mounts;

/// What a program runs in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Enter {
    /// The name of its network namespace.
    pub netns: String,
    /// Files that it sees in the place of the machine's: (source, target).
    #[serde(default)]
    pub binds: Vec<(PathBuf, PathBuf)>,
    /// Its environment, beyond what it inherits.
    #[serde(default)]
    pub environment: Vec<(String, String)>,
    /// What it may do.
    #[serde(default)]
    pub privilege: Privilege,
    /// User and group that it becomes.
    #[serde(default)]
    pub user: Option<(u32, u32)>,
    /// It ends when its parent does.
    #[serde(default)]
    pub dies_with_parent: bool,
}

/// What a process may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Privilege {
    /// Everything: the mesh's own processes on a node.
    All,
    /// What a container may unless it asks for more.
    #[default]
    Container,
    /// Nothing.
    Nothing,
}

/// What containers keep of root's capabilities by default, in every common runtime.
const CONTAINER: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT);

impl Enter {
    /// The command that becomes `command` inside: this executable, which calls [`Self::exec`].
    pub(crate) fn command(&self, command: &[String]) -> anyhow::Result<Command> {
        let mut own = Command::new(std::env::current_exe().context("finding this executable")?);
        own.args(["local", "enter", "--spec"])
            .arg(serde_json::to_string(self)?);
        own.arg("--").args(command);
        Ok(own)
    }

    /// Becomes the command; returns only where that failed.
    pub fn exec(&self, command: &[String]) -> anyhow::Error {
        self.prepare().map_or_else(
            |error| error,
            |()| {
                let error = Command::new(&command[0])
                    .args(&command[1..])
                    .envs(self.environment.iter().cloned())
                    .exec();
                anyhow::Error::from(error).context(format!("running {}", command[0]))
            },
        )
    }

    fn prepare(&self) -> anyhow::Result<()> {
        if self.dies_with_parent {
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
        }
        let path = Path::new(NETNS_ROOT).join(&self.netns);
        let namespace = std::fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .context("entering the network namespace")?;
        if !self.binds.is_empty() || self.privilege == Privilege::Container {
            self.mount().context("giving the program files of its own")?;
        }
        self.drop_privilege().context("giving up privilege")
    }

    /// A mount namespace with the pod's files, in which the mesh's state is not to be seen.
    fn mount(&self) -> anyhow::Result<()> {
        // Another mesh's end may have removed what it took for its own.
        std::fs::create_dir_all(super::pod::ROOT_MOUNT)?;
        mounts::unshare()?;
        mount_change(
            "/",
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
        )?;
        for (source, target) in &self.binds {
            mount_bind(source, target)
                .with_context(|| format!("{} onto {}", source.display(), target.display()))?;
        }
        if self.privilege == Privilege::Container {
            mount(
                "tmpfs",
                STATE_ROOT,
                "tmpfs",
                MountFlags::NOSUID | MountFlags::NODEV,
                c"mode=0755,size=64k",
            )?;
        }
        Ok(())
    }

    fn drop_privilege(&self) -> anyhow::Result<()> {
        let keep = match self.privilege {
            Privilege::All => return Ok(()),
            Privilege::Container => CONTAINER,
            Privilege::Nothing => CapabilitySet::empty(),
        };
        for number in 0..64 {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if !keep.contains(capability) {
                // Numbers beyond the kernel's last are refused, and need not be dropped.
                let _ = remove_capability_from_bounding_set(capability);
            }
        }
        if let Some((user, group)) = self.user {
            let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
            set_thread_groups(&[])?;
            set_thread_res_gid(group, group, group)?;
            set_thread_res_uid(user, user, user)?;
        }
        if self.privilege == Privilege::Nothing {
            set_no_new_privs(true)?;
            let nothing = CapabilitySet::empty();
            let sets = CapabilitySets {
                effective: nothing,
                permitted: nothing,
                inheritable: nothing,
            };
            set_capabilities(None, sets)?;
        }
        Ok(())
    }
}
