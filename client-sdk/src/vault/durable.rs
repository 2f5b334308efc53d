//! Files that are there whole or not at all, and stay after a power cut: written beside, synced, renamed, directory synced.
//!
//! They are readable by their owner alone (mode 0600).

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::Path;

use tempfile::NamedTempFile;

/// Writes a file that must not exist yet; [`io::ErrorKind::AlreadyExists`] leaves the present one untouched.
pub(crate) fn create(path: &Path, content: &[u8]) -> io::Result<()> {
    written_beside(path, content)?.persist_noclobber(path)?;
    sync_directory_of(path)
}

/// Writes a file in the place of the one that may be there.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    written_beside(path, content)?.persist(path)?;
    sync_directory_of(path)
}

/// Removes a file; one that is not there is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_directory_of(path),
    }
}

/// Reads a small file into `buffer`; more than the buffer's capacity is an error of kind [`io::ErrorKind::FileTooLarge`].
pub(crate) fn read_within(mut file: &File, buffer: &mut Vec<u8>) -> io::Result<()> {
    let limit_bytes = buffer.capacity();
    Read::take(file, limit_bytes as u64).read_to_end(buffer)?;
    match file.read(&mut [0])? {
        0 => Ok(()),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

/// Makes the directory entry of a new, renamed or removed file durable.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    // Windows cannot sync a directory and does not need it: NTFS journals its entries.
    if cfg!(unix) { File::open(directory_of(path))?.sync_all() } else { Ok(()) }
}

fn written_beside(path: &Path, content: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix(".farshore-").tempfile_in(directory_of(path))?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
