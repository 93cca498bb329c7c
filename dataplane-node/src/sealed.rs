//! Sealed memory files: bytes that pass between processes as a descriptor, and that nobody can change
//! once they are handed over. They have no name in any file system.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};

#[cfg(test)]
mod tests;

/// The most that is read from a sealed file: far above any mesh's state, far below a node's memory.
const MAX_LENGTH: usize = 512 << 20;

/// Every seal: nobody can write, grow, shrink or unseal it.
const SEALS: SealFlags = SealFlags::SEAL
    .union(SealFlags::SHRINK)
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE);

/// A sealed memory file with this content.
pub fn seal(content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = std::fs::File::from(memfd_create("trefoil", flags)?);
    file.write_all(content)?;
    fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

/// Whether a descriptor is a memory file that nobody can change any more.
pub fn is_sealed(descriptor: impl AsFd) -> bool {
    fcntl_get_seals(descriptor).is_ok_and(|seals| seals.contains(SEALS))
}

/// The content of a sealed memory file, read without its shared offset. Anything else is refused: the
/// sender could change it while it is read.
pub fn open(descriptor: impl AsFd) -> io::Result<Vec<u8>> {
    if !is_sealed(&descriptor) {
        return Err(io::Error::other("not a sealed memory file"));
    }
    let length = usize::try_from(fstat(&descriptor)?.st_size).unwrap_or(usize::MAX);
    if length > MAX_LENGTH {
        return Err(io::Error::other(format!(
            "a sealed memory file of {length} bytes"
        )));
    }
    let mut content = vec![0; length];
    let mut read = 0;
    while read < length {
        match rustix::io::pread(&descriptor, &mut content[read..], read as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => read += bytes,
        }
    }
    Ok(content)
}
