//! Temporary directories for a log and its control page, and how much of the disk may be used.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

use crate::failure::Failure;

/// What a log may reserve beyond its end, in bytes, where it is large.
const RESERVE_MOST: u64 = 40 << 20;
/// Where control pages are looked for.
const CONTROL_DIR: &str = "IMMUTA_CONTROL_DIR";

/// Two directories that go away with it: one for files, and one for control pages, which must not stay behind even if their
/// writer is killed.
#[derive(Debug)]
pub struct Place {
    directory: TempDir,
    control: TempDir,
}

impl Place {
    /// Directories whose names begin with `prefix`; the first in `parent`, or where temporary files belong.
    pub fn new(prefix: &str, parent: Option<&Path>) -> Result<Place, Failure> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let within = |parent: &Path| tempfile::Builder::new().prefix(prefix).tempdir_in(parent);
        let failure = |error| Failure::system("create a temporary directory", error);
        let directory = within(&parent).map_err(failure)?;
        let shared = std::env::var_os(CONTROL_DIR).unwrap_or_else(|| "/dev/shm".into());
        let control = within(Path::new(&shared)).or_else(|_| within(&parent)).map_err(failure)?;
        Ok(Place { directory, control })
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What a process that works here has in its environment.
    pub fn environment(&self) -> (&'static str, &Path) {
        (CONTROL_DIR, self.control.path())
    }

    /// Removes what is in the directories.
    pub fn clear(&self) -> Result<(), Failure> {
        for directory in [&self.directory, &self.control] {
            let removed = fs::read_dir(directory)
                .and_then(|mut entries| entries.try_for_each(|entry| fs::remove_file(entry?.path())));
            removed.map_err(|error| Failure::system(format!("empty {}", directory.path().display()), error))?;
        }
        Ok(())
    }
}

/// The directory for control pages, in a process that was started with a [`Place`].
pub fn control_directory() -> PathBuf {
    std::env::var_os(CONTROL_DIR).unwrap_or_else(|| OsString::from("/dev/shm")).into()
}

/// Removes the directories of a [`Place`] whose owner has died; by their names, which begin with `prefix`, they are its.
pub fn remove_abandoned(prefix: &str, directory: &Path) {
    for place in [directory, &control_directory()] {
        if place.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            // Nobody is left who could be told.
            let _ = fs::remove_dir_all(place);
        }
    }
}

/// What may still be written into the file system of `directory`, in bytes.
pub fn free_bytes(directory: &Path) -> Result<u64, Failure> {
    let space = statvfs(directory).map_err(|error| Failure::system("look for free space", error))?;
    Ok(space.blocks_available().saturating_mul(space.fragment_size()))
}

/// Of a file of at most `limit` bytes, how far the records may reach, with what a writer reserves beyond them.
pub fn usable_bytes(limit: u64) -> u64 {
    limit.saturating_sub(RESERVE_MOST).max(limit / 4)
}

/// Has the system refuse larger files. A budget is kept by counting; this is for the day on which that goes wrong.
pub fn limit_files(limit: u64) -> Result<(), Failure> {
    setrlimit(Resource::RLIMIT_FSIZE, limit, limit).map_err(|error| Failure::system("set a limit", error))
}
