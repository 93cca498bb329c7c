//! Whether there is a program to run, before a pod is made for it: nobody waits for one that is left running,
//! so that nobody would hear of it.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[cfg(test)]
mod tests;

/// Fails, with what is wrong, where a program cannot be run. Names without a slash are looked for in PATH, as
/// by a shell.
pub(crate) fn find(program: &str) -> anyhow::Result<()> {
    find_in(program, env::var_os("PATH").as_deref().unwrap_or_default())
}

fn find_in(program: &str, folders: &OsStr) -> anyhow::Result<()> {
    if program.contains('/') {
        let path = Path::new(program);
        anyhow::ensure!(path.exists(), "there is no program {program}");
        anyhow::ensure!(
            is_program(path),
            "{program} is not a program: it is not an executable file"
        );
        return Ok(());
    }
    let found = env::split_paths(folders).any(|folder| is_program(&folder.join(program)));
    anyhow::ensure!(
        found,
        "there is no program {program:?} in {}: give its whole path",
        folders.display()
    );
    Ok(())
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
