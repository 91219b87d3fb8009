//! fdatasync, watched: in a test binary that has this module, every flush of a file goes through it, is counted, looked at, and
//! can be made to fail.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::collections::HashMap;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What was to be seen when a flush of a log began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The number at offset 0.
    pub count: u64,
    /// The end that the control page publishes.
    pub end: u64,
}

#[derive(Debug, Default)]
struct Watched {
    page: PathBuf,
    flushes: Vec<Seen>,
    /// How many more succeed.
    left: Option<u64>,
}

type Key = (u64, u64);

static WATCHED: Mutex<Option<HashMap<Key, Watched>>> = Mutex::new(None);

fn watched() -> MutexGuard<'static, Option<HashMap<Key, Watched>>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The flushes of one file, from now on.
pub struct Flushes(Key);

impl Flushes {
    pub fn of(path: &Path, page: &Path) -> Flushes {
        let metadata = std::fs::metadata(path).expect("a file to be watched");
        let key = (metadata.dev(), metadata.ino());
        let file = Watched { page: page.to_owned(), ..Watched::default() };
        watched().get_or_insert_default().insert(key, file);
        Flushes(key)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Watched) -> T) -> T {
        work(watched().as_mut().and_then(|files| files.get_mut(&self.0)).expect("it is watched"))
    }

    /// Since the last call.
    pub fn take(&self) -> Vec<Seen> {
        self.with(|file| std::mem::take(&mut file.flushes))
    }

    /// After `more` flushes every further one fails.
    pub fn fail_after(&self, more: u64) {
        self.with(|file| file.left = Some(more));
    }

    /// They succeed again.
    pub fn heal(&self) {
        self.with(|file| file.left = None);
    }
}

impl Drop for Flushes {
    fn drop(&mut self) {
        if let Some(files) = watched().as_mut() {
            files.remove(&self.0);
        }
    }
}

/// Whether this flush is to fail.
fn look(descriptor: i32) -> bool {
    // SAFETY: the caller of fdatasync lends the descriptor for the length of the call; it is not closed here.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(descriptor) });
    let Ok(metadata) = file.metadata() else { return false };
    let mut files = watched();
    let Some(watched) = files.as_mut().and_then(|files| files.get_mut(&(metadata.dev(), metadata.ino()))) else {
        return false;
    };
    let mut count = [0; 8];
    let _ = file.read_at(&mut count, 0);
    // FORMAT.md: the published end lies at offset 384.
    let page = std::fs::read(&watched.page).unwrap_or_default();
    let end = page.get(384..392).map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")));
    watched.flushes.push(Seen { count: u64::from_le_bytes(count), end });
    match &mut watched.left {
        Some(0) => true,
        Some(left) => {
            *left -= 1;
            false
        }
        None => false,
    }
}

/// Takes the place of libc's in this binary.
///
/// # Safety
/// As for libc's: none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(descriptor: i32) -> i32 {
    if look(descriptor) {
        // SAFETY: errno is the thread's own.
        unsafe { *libc::__errno_location() = libc::EIO };
        return -1;
    }
    // SAFETY: a system call that takes a number.
    unsafe { libc::syscall(libc::SYS_fdatasync, descriptor) as i32 }
}
