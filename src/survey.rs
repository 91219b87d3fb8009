//! What lies around a log: its control page, what dead writers left, what the kernel has. For `immuta doctor`; no part of
//! the API that is relied upon. Never changes anything, and takes no lock.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, Metadata};
use std::io;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::control::Doubt;
use crate::control::{ControlView, Subject, open_plain, start_time};
use crate::error::{Error, Result};
use crate::format::control::{ControlPage, PAGE_BYTES, PAGE_MAGIC, state};
use crate::format::log::number_at;
use crate::scan;
use crate::sys::file::{self, FileSystem, Identity};
use crate::sys::map::{Access, Mapping};
use crate::sys::origin::boot_id;
use crate::sys::{futex, locks};
use crate::units::{HEARTBEAT_OLD, PAGE, WINDOW};

/// Address space that a writer and a reader map unless they are told otherwise, in bytes.
pub const WINDOW_BYTES: u64 = WINDOW;
/// What a log's control page and doorbell need, and those that replace them, in bytes.
pub const CONTROL_BYTES: u64 = 4 * PAGE_BYTES;

/// The directory of control pages, as `IMMUTA_CONTROL_DIR` or the default says.
pub fn control_dir() -> PathBuf {
    crate::control::directory()
}

/// Whether the file system of `path` keeps reserved space, so that a writer appends through a mapping.
///
/// # Errors
/// What the system says where it cannot be looked at.
pub fn keeps_reserved_space(path: &Path) -> io::Result<bool> {
    Ok(file::file_system_at(path)? == FileSystem::Reserves)
}

/// What not every kernel, or sandbox, has.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Kernel {
    /// A wait can be ended at once (`futex_waitv`, Linux 5.16); without it, when its bound of 200 ms is reached.
    pub futex_waitv: bool,
    /// Stores after a flush do not fault (`MADV_POPULATE_WRITE`, Linux 5.14).
    pub populate_write: bool,
}

/// Asks the kernel.
pub fn kernel() -> Kernel {
    let populate_write = Mapping::private(PAGE).is_ok_and(|page| page.populate(Access::Write, 0, PAGE));
    Kernel { futex_waitv: futex::waits_for_two(), populate_write }
}

/// Whether a writer holds its lock on the log.
///
/// # Errors
/// [`Error::NotFound`], [`Error::NotALog`], [`Error::Io`].
pub fn is_written(log: &Path) -> Result<bool> {
    let (file, _) = file::open_to_read(log)?;
    locks::is_locked(&file).map_err(|error| Error::io("ask for the writer's lock of", log, error))
}

/// The process that holds the flock on a file, be it a writer or not, where the system tells.
pub fn flock_holder(log: &Metadata) -> Option<u32> {
    locks::holder(Identity::of(log))
}

/// What has a log's control page's name, and whether it is believed.
#[derive(Debug)]
#[non_exhaustive]
pub struct PageReport {
    /// The name of the control page.
    pub page: PathBuf,
    /// The name of the doorbell.
    pub doorbell: PathBuf,
    /// What the page says, or why it is not believed.
    pub says: Result<PageContent, Doubt>,
}

/// What a control page says.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PageContent {
    /// Whether its writer has it open still, or died with it.
    pub is_open: bool,
    /// The writer's process. For messages only.
    pub pid: Option<u32>,
    /// How long ago the writer's process last showed that it runs.
    pub heartbeat_age: Duration,
    /// Whether that is longer than a running process takes.
    pub heartbeat_is_old: bool,
    /// Whether this process may announce a sleep in the doorbell.
    pub has_doorbell: bool,
}

/// Looks at the control page of a log as a reader does.
///
/// # Errors
/// [`Error::Io`] where the log cannot be looked at.
pub fn control_page(log: &Path) -> Result<PageReport> {
    let metadata = std::fs::metadata(log).map_err(|error| Error::io("look at", log, error))?;
    let subject = Subject::new(&metadata, None);
    let says = ControlView::examine(&subject)
        .and_then(|view| if is_beyond(&view, log) { Err(Doubt::Beyond) } else { Ok(content(&view)) });
    Ok(PageReport { page: subject.page_path, doorbell: subject.bell_path, says })
}

fn content(view: &ControlView) -> PageContent {
    let age = heartbeat_age(view.heartbeat());
    PageContent {
        is_open: view.state() == state::OPEN,
        pid: u32::try_from(view.pid()).ok(),
        heartbeat_age: age,
        heartbeat_is_old: age > HEARTBEAT_OLD,
        has_doorbell: view.bell().is_some(),
    }
}

/// The page is looked at first: the file is never behind it. A log that cannot be read says nothing.
fn is_beyond(view: &ControlView, log: &Path) -> bool {
    let Some(pair) = view.pair() else { return false };
    let count = File::open(log).ok().and_then(|file| scan::count(log, &file).ok());
    count.is_some_and(|count| pair.count > count)
}

fn heartbeat_age(heartbeat: u64) -> Duration {
    futex::monotonic().saturating_sub(Duration::from_nanos(heartbeat))
}

/// Files in a control directory that a writer left when it died.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Leftover {
    /// The device of the log, as stat(2) tells it.
    pub device: u64,
    /// The log's inode number.
    pub inode: u64,
    /// The writer's process, where a page tells. For messages only.
    pub pid: Option<u32>,
    /// The files and their sizes in bytes.
    pub files: Vec<(PathBuf, u64)>,
}

/// What lies in a control directory.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ControlFiles {
    /// Logs whose writer lives.
    pub live: usize,
    /// Logs of which this user cannot tell.
    pub unknown: usize,
    /// What dead writers left.
    pub leftovers: Vec<Leftover>,
}

/// What is known of a writer by the files that it made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Lives,
    Dead,
    Unknown,
}

/// A file in a control directory: its name, its identity, its size in bytes.
type Listed = (PathBuf, Identity, u64);

/// Looks at the control files of all logs in a directory.
///
/// # Errors
/// What the system says where the directory cannot be listed.
pub fn control_files(directory: &Path) -> io::Result<ControlFiles> {
    let mut logs: BTreeMap<(u64, u64), Vec<Listed>> = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        // What is gone meanwhile is no leftover; what is no file is no writer's.
        let Some(log) = entry.file_name().to_str().and_then(log_of) else { continue };
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        if metadata.is_file() {
            logs.entry(log).or_default().push((entry.path(), Identity::of(&metadata), metadata.len()));
        }
    }
    // After the directory: a writer takes its lock before it makes a page.
    let (written, mounted) = (locks::written().ok(), file::mounted_devices());
    let mut found = ControlFiles::default();
    for ((device, inode), mut files) in logs {
        let page = directory.join(format!("immuta-{device}-{inode}"));
        let lock = written.as_ref().and_then(|written| is_locked(written, &mounted, (device, inode)));
        let (life, pid) = life(&page, lock);
        if life == Life::Dead {
            // A writer that closed meanwhile has removed them before it gave its lock back.
            files.retain(|(path, identity, _)| {
                path.symlink_metadata().is_ok_and(|metadata| Identity::of(&metadata) == *identity)
            });
        }
        match life {
            Life::Lives => found.live += 1,
            Life::Unknown => found.unknown += 1,
            Life::Dead if files.is_empty() => {}
            Life::Dead => {
                files.sort_by(|a, b| a.0.cmp(&b.0));
                let files = files.into_iter().map(|(path, _, bytes)| (path, bytes)).collect();
                found.leftovers.push(Leftover { device, inode, pid, files });
            }
        }
    }
    Ok(found)
}

/// The device and inode in the name of a control page, of a doorbell, or of one that was not finished.
fn log_of(name: &str) -> Option<(u64, u64)> {
    let name = name.strip_prefix("immuta-")?;
    let name = name.strip_suffix(".new").unwrap_or(name);
    let (device, inode) = name.strip_suffix(".bell").unwrap_or(name).split_once('-')?;
    let number = |digits: &str| digits.parse().ok().filter(|number: &u64| number.to_string() == digits);
    Some((number(device)?, number(inode)?))
}

/// Whether a writer's lock is held on a log, or `None` where that cannot be told: the files of btrfs, and of what else has
/// several devices on one mount, have another device in /proc/locks than stat tells.
fn is_locked(written: &[(u64, u64)], mounted: &HashSet<u64>, log: (u64, u64)) -> Option<bool> {
    let held = written.contains(&log);
    (held || mounted.contains(&log.0)).then_some(held)
}

/// Whether the writer of a page lives, and its process. `lock` tells whether its lock is held.
fn life(page: &Path, lock: Option<bool>) -> (Life, Option<u32>) {
    let unknown = (Life::Unknown, None);
    if lock == Some(true) {
        return (Life::Lives, None);
    }
    // By pread: whoever owns the file could truncate it, and a mapping would end this process.
    let mut bytes = [0; size_of::<ControlPage>()];
    match open_plain(page, false) {
        Ok(file) if file::read_at(&file, &mut bytes, 0).is_ok_and(|read| read == bytes.len()) => {}
        // A doorbell, or an unfinished file, without a page.
        Err(Doubt::Missing) if lock.is_some() => return (Life::Dead, None),
        _ => return unknown,
    }
    let word = |at| number_at(&bytes, at).unwrap_or(0);
    if word(offset_of!(ControlPage, magic)) != PAGE_MAGIC {
        return unknown;
    }
    let (at, pid) = (offset_of!(ControlPage, boot_id), word(offset_of!(ControlPage, pid)));
    let this_boot = [word(at), word(at + 8)] == boot_id();
    let beats = heartbeat_age(word(offset_of!(ControlPage, heartbeat))) <= HEARTBEAT_OLD;
    let runs = start_time(&pid.to_string()) == Some(word(offset_of!(ControlPage, start_time)));
    let pid = u32::try_from(pid).ok();
    // A killed writer's heartbeat is young for a moment, but its process is gone.
    let lives = this_boot && word(offset_of!(ControlPage, state)) == state::OPEN && (runs || beats && lock.is_none());
    (if lives { Life::Lives } else { Life::Dead }, pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_a_writer_gives_are_looked_at() {
        for (name, log) in [
            ("immuta-65024-131", Some((65024, 131))),
            ("immuta-65024-131.bell", Some((65024, 131))),
            ("immuta-65024-131.new", Some((65024, 131))),
            ("immuta-65024-131.bell.new", Some((65024, 131))),
            ("immuta-65024", None),
            ("immuta-65024-", None),
            ("immuta-065024-131", None),
            ("immuta-65024-+131", None),
            ("immuta-65024-131.old", None),
            ("immuta-a-b", None),
            ("other-65024-131", None),
        ] {
            assert_eq!(log_of(name), log, "{name}");
        }
    }

    #[test]
    fn this_kernel_is_asked_without_harm() {
        let (first, second) = (kernel(), kernel());
        assert_eq!((first.futex_waitv, first.populate_write), (second.futex_waitv, second.populate_write));
    }
}
