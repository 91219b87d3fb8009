//! A model of the disk under a directory: what was flushed of its files and names, and what was not. The calls that flush, cut,
//! rename and unlink are this program's own (a test's symbols win over the C library's), so that every flush is a place where the
//! power may be cut. Flushes of files in such a directory reach no disk: nothing is waited for.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, OsStr, c_char, c_int, c_long, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::forge::{self, Identity, identity};

/// The versions of a page that are told apart, besides the flushed one.
const VERSIONS_MOST: usize = 5;

/// The versions of a file's bytes: as flushed, and as seen since; the last is the newest.
#[derive(Clone, Debug, Default)]
pub struct Versions(pub Vec<Arc<Vec<u8>>>);

impl Versions {
    fn see(&mut self, bytes: Vec<u8>) {
        if self.0.last().is_some_and(|last| **last == bytes) {
            return;
        }
        if self.0.len() > VERSIONS_MOST {
            self.0.remove(2);
        }
        self.0.push(Arc::new(bytes));
    }

    pub fn newest(&self) -> usize {
        self.0.len() - 1
    }
}

/// A change of the directory.
#[derive(Clone, Debug)]
pub enum Change {
    Create(String, usize),
    Rename(String, String),
    Unlink(String),
}

pub type Names = BTreeMap<String, usize>;

pub fn apply(names: &mut Names, change: &Change) {
    match change {
        Change::Create(name, file) => {
            names.insert(name.clone(), *file);
        }
        Change::Rename(from, to) => {
            if let Some(file) = names.remove(from) {
                names.insert(to.clone(), file);
            }
        }
        Change::Unlink(name) => {
            names.remove(name);
        }
    }
}

/// An instant at which the power may be cut.
#[derive(Clone, Debug)]
pub struct Cut {
    pub what: String,
    pub files: Vec<Versions>,
    /// As flushed.
    pub names: Names,
    /// Since then, in this order.
    pub changes: Vec<Change>,
    /// How many records the writer was asked to append, and how many it has said are durable.
    pub asked: usize,
    pub promised: usize,
}

#[derive(Debug)]
struct State {
    dir: PathBuf,
    files: Vec<Versions>,
    identities: HashMap<Identity, usize>,
    flushed_names: Names,
    names: Names,
    changes: Vec<Change>,
    asked: usize,
    promised: usize,
    cuts: Vec<Cut>,
    active: bool,
    /// Neither writes to the index nor its removal go well.
    index_fails: bool,
}

/// The disk under a directory.
#[derive(Debug)]
pub struct Disk(Mutex<State>);

/// Whether any index fails, so that the others are not asked at each write.
static FAILS: AtomicBool = AtomicBool::new(false);

static DISKS: Mutex<Vec<Arc<Disk>>> = Mutex::new(Vec::new());

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Looks at all files.
    fn observe(&mut self) {
        let mut names: Vec<String> = std::fs::read_dir(&self.dir)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        for name in names {
            let path = self.dir.join(&name);
            let (Some(identity), Ok(bytes)) = (identity(&path), std::fs::read(&path)) else { continue };
            let file = *self.identities.entry(identity).or_insert(self.files.len());
            if file == self.files.len() {
                // A file that was never flushed may be empty.
                self.files.push(Versions(vec![Arc::default()]));
            }
            self.files[file].see(bytes);
            if self.names.get(&name) != Some(&file) {
                self.change(Change::Create(name, file));
            }
        }
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.names, &change);
        self.changes.push(change);
    }

    fn cut(&mut self, what: String) {
        let State { files, flushed_names, changes, asked, promised, .. } = &*self;
        let (files, names, changes) = (files.clone(), flushed_names.clone(), changes.clone());
        self.cuts.push(Cut { what, files, names, changes, asked: *asked, promised: *promised });
    }

    fn flush(&mut self, path: &Path) {
        if path == self.dir {
            (self.flushed_names, self.changes) = (self.names.clone(), Vec::new());
        } else if let Some(file) = identity(path).and_then(|identity| self.identities.get(&identity)) {
            // As it was when the flush began: what came later may be on the disk or not.
            let versions = &mut self.files[*file].0;
            versions.drain(..versions.len() - 1);
        }
    }
}

impl Disk {
    /// Under `dir`, where all that is there is on the disk.
    pub fn new(dir: &Path, asked: usize, promised: usize) -> Arc<Disk> {
        let (files, identities, flushed_names, names, changes, cuts) = Default::default();
        let dir = dir.to_owned();
        let mut state = State {
            dir,
            files,
            identities,
            flushed_names,
            names,
            changes,
            asked,
            promised,
            cuts,
            active: true,
            index_fails: false,
        };
        state.observe();
        for versions in &mut state.files {
            versions.0.drain(..versions.0.len() - 1);
        }
        (state.flushed_names, state.changes) = (state.names.clone(), Vec::new());
        let disk = Arc::new(Disk(Mutex::new(state)));
        locked(&DISKS).push(disk.clone());
        disk
    }

    /// From now on its files are like others.
    pub fn end(self: &Arc<Disk>) {
        locked(&self.0).active = false;
        locked(&DISKS).retain(|disk| !Arc::ptr_eq(disk, self));
    }

    /// Before the writer is asked for something: how many records there will be.
    pub fn ask(&self, asked: usize) {
        locked(&self.0).asked = asked;
    }

    /// After it has answered: so many records are durable.
    pub fn promise(&self, promised: usize, what: &str) {
        let mut state = locked(&self.0);
        state.promised = state.promised.max(promised);
        state.observe();
        state.cut(format!("after {what}"));
    }

    /// From now on nothing can be written to the index, and it can neither be emptied nor removed.
    pub fn fail_index(&self) {
        locked(&self.0).index_fails = true;
        FAILS.store(true, Ordering::SeqCst);
    }

    pub fn take_cuts(&self) -> Vec<Cut> {
        std::mem::take(&mut locked(&self.0).cuts)
    }

    pub fn identities(&self) -> HashMap<Identity, usize> {
        locked(&self.0).identities.clone()
    }

    /// The writer is killed now: its files as they are, under `to`, on the same disk. Returns that disk; this one ends.
    pub fn kill(self: &Arc<Disk>, to: &Path) -> Arc<Disk> {
        let mut state = locked(&self.0);
        state.observe();
        state.cut("a kill".into());
        let mut identities = state.identities.clone();
        let mut log = None;
        for (name, file) in &state.names {
            let mut bytes = state.files[*file].0.last().expect("a version").to_vec();
            if let Some((log, identity)) = log
                && forge::log_of(&bytes).is_some_and(|of| state.identities.get(&of) == Some(&log))
            {
                forge::rename_log(&mut bytes, identity);
            }
            std::fs::write(to.join(name), &bytes).expect("a file under the new name");
            let now = identity(&to.join(name)).expect("just written");
            // The log's name comes first.
            log = log.or(Some((*file, now)));
            identities.insert(now, *file);
        }
        let moved = State {
            dir: to.to_owned(),
            files: state.files.clone(),
            identities,
            flushed_names: state.flushed_names.clone(),
            names: state.names.clone(),
            changes: state.changes.clone(),
            cuts: std::mem::take(&mut state.cuts),
            ..*state
        };
        drop(state);
        self.end();
        let disk = Arc::new(Disk(Mutex::new(moved)));
        locked(&DISKS).push(disk.clone());
        disk
    }
}

/// The disk that a path is on, to be looked at before something happens to it.
fn on_disk<T>(path: &Path, act: impl FnOnce(&mut State) -> T) -> Option<T> {
    let disks = locked(&DISKS).clone();
    for disk in disks {
        let mut state = locked(&disk.0);
        if state.active && (path == state.dir || path.parent() == Some(&state.dir)) {
            return Some(act(&mut state));
        }
    }
    None
}

fn path_of(fd: c_int) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn flush(fd: c_int, call: c_long) -> c_int {
    let Some(path) = path_of(fd) else { return real(call, fd, 0) };
    let modelled = on_disk(&path, |state| {
        state.observe();
        state.cut(format!("before the flush of {}", name_of(&path)));
        state.flush(&path);
        state.cut(format!("after the flush of {}", name_of(&path)));
    });
    modelled.map_or_else(|| real(call, fd, 0), |()| 0)
}

fn real(call: c_long, fd: c_int, len: i64) -> c_int {
    // SAFETY: the calls are those that the caller asked for, and take numbers.
    unsafe { libc::syscall(call, fd, len) as c_int }
}

fn path(name: *const c_char) -> PathBuf {
    // SAFETY: the callers of rename and unlink hand in strings with their NUL.
    OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()).into()
}

#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    flush(fd, libc::SYS_fdatasync)
}

#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    flush(fd, libc::SYS_fsync)
}

#[unsafe(no_mangle)]
extern "C" fn ftruncate64(fd: c_int, len: i64) -> c_int {
    if let Some(path) = path_of(fd) {
        if FAILS.load(Ordering::SeqCst) && fails(&path) {
            return -1;
        }
        on_disk(&path, |state| {
            state.observe();
            state.cut(format!("before the cut of {}", name_of(&path)));
        });
    }
    real(libc::SYS_ftruncate, fd, len)
}

#[unsafe(no_mangle)]
extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: as the caller asked.
    let call = || unsafe { libc::syscall(libc::SYS_rename, from, to) as c_int };
    changed(&path(from), call, |name| Change::Rename(name, name_of(&path(to))))
}

/// Whether a call on this file is to fail; says why as the C library does.
fn fails(path: &Path) -> bool {
    let is_index = path.extension().is_some_and(|extension| extension == "idx");
    let fails = is_index && FAILS.load(Ordering::SeqCst) && on_disk(path, |state| state.index_fails) == Some(true);
    if fails {
        nix::errno::Errno::EIO.set();
    }
    fails
}

#[unsafe(no_mangle)]
extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, n: usize, at: i64) -> isize {
    if FAILS.load(Ordering::SeqCst) && path_of(fd).is_some_and(|path| fails(&path)) {
        return -1;
    }
    // SAFETY: as the caller asked.
    unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, n, at) as isize }
}

#[unsafe(no_mangle)]
extern "C" fn unlink(name: *const c_char) -> c_int {
    if fails(&path(name)) {
        return -1;
    }
    // SAFETY: as the caller asked.
    let call = || unsafe { libc::syscall(libc::SYS_unlink, name) as c_int };
    changed(&path(name), call, Change::Unlink)
}

fn changed(path: &Path, call: impl Fn() -> c_int, change: impl FnOnce(String) -> Change) -> c_int {
    let modelled = on_disk(path, |state| {
        state.observe();
        state.cut(format!("before {} has another name or none", name_of(path)));
        let result = call();
        if result == 0 {
            state.change(change(name_of(path)));
            state.cut(format!("after {} has another name or none", name_of(path)));
        }
        result
    });
    modelled.unwrap_or_else(call)
}
