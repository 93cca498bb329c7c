//! What a worker does first: it gives up everything that somebody who took it over could use. To be
//! called while the process has one thread: the calls below are the thread's.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{
    DumpableBehavior, Gid, Signal, Uid, chdir, set_dumpable_behavior, set_parent_process_death_signal,
};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// Why the worker is not harmless, and therefore must not run.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// A step failed.
    #[error("worker privileges: {step}: {source}")]
    Step {
        /// Which.
        step: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// It inherited more than its channel.
    #[error("worker privileges: inherited descriptor {0}, which is not its channel")]
    Descriptor(String),
    /// More threads than the one that calls.
    #[error("worker privileges: the process has {0} threads already")]
    Threads(usize),
    /// Capabilities are left.
    #[error("worker privileges: capabilities are left")]
    Left,
}

/// The channel: what the supervisor gave as standard input. That becomes `/dev/null`.
pub(super) fn take_channel() -> Result<OwnedFd, PrivilegeError> {
    let inherited = |source| step("the channel", source);
    let channel = fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map_err(inherited)?;
    let null = std::fs::File::open("/dev/null").map_err(|source| PrivilegeError::Step {
        step: "/dev/null",
        source,
    })?;
    rustix::stdio::dup2_stdin(&null).map_err(inherited)?;
    drop(null);
    only(&channel)?;
    Ok(channel)
}

/// Gives up every privilege, for good, and takes a user id of its own.
pub(super) fn shed(user: u32) -> Result<(), PrivilegeError> {
    alone()?;
    chdir("/").map_err(|errno| step("the working directory", errno))?;
    empty_bounding_set()?;
    clear_ambient_capability_set().map_err(|errno| step("the ambient capabilities", errno))?;
    set_thread_groups(&[]).map_err(|errno| step("the groups", errno))?;
    let group = Gid::from_raw(user);
    set_thread_res_gid(group, group, group).map_err(|errno| step("the group id", errno))?;
    let user = Uid::from_raw(user);
    set_thread_res_uid(user, user, user).map_err(|errno| step("the user id", errno))?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).map_err(|errno| step("the capabilities", errno))?;
    set_no_new_privs(true).map_err(|errno| step("no new privileges", errno))?;
    // Both are reset by a change of the user id, so they come after it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|errno| step("not dumpable", errno))?;
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|errno| step("the parent's end", errno))?;
    if capabilities(None).map_err(|errno| step("the capabilities", errno))? != none {
        return Err(PrivilegeError::Left);
    }
    Ok(())
}

/// Capabilities are numbered from zero; the first number that the kernel does not know ends them.
fn empty_bounding_set() -> Result<(), PrivilegeError> {
    for number in 0..64 {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(step("the bounding set", errno)),
        }
    }
    Ok(())
}

/// Whatever else was inherited would be there for the taking.
fn only(channel: &OwnedFd) -> Result<(), PrivilegeError> {
    use std::os::fd::AsRawFd;
    let expected = channel.as_raw_fd();
    let listing = |source| PrivilegeError::Step {
        step: "the own descriptors",
        source,
    };
    let entries = std::fs::read_dir("/proc/self/fd").map_err(listing)?;
    let names: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect();
    for name in names {
        let number = name.to_str().and_then(|name| name.parse::<i32>().ok());
        let known = number.is_some_and(|number| number <= 2 || number == expected);
        // The listing's own descriptor is closed by now and leads nowhere.
        let path = std::path::Path::new("/proc/self/fd").join(&name);
        if !known && std::fs::read_link(path).is_ok() {
            return Err(PrivilegeError::Descriptor(name.to_string_lossy().into()));
        }
    }
    Ok(())
}

fn alone() -> Result<(), PrivilegeError> {
    let threads = std::fs::read_dir("/proc/self/task").map(Iterator::count);
    match threads {
        Ok(1) => Ok(()),
        Ok(threads) => Err(PrivilegeError::Threads(threads)),
        Err(source) => Err(PrivilegeError::Step {
            step: "the own threads",
            source,
        }),
    }
}

fn step(step: &'static str, errno: Errno) -> PrivilegeError {
    PrivilegeError::Step {
        step,
        source: errno.into(),
    }
}
