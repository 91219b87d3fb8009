//! Descriptors of one file, opened on first use, lent for one read and given back.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::sys::file::{self, Identity};

/// Lends descriptors of one file.
#[derive(Debug)]
pub(crate) struct Pool {
    path: PathBuf,
    identity: Identity,
    most: usize,
    /// Of the first descriptor, which stays open as long as the pool: /proc/self/fd/N leads to the same file whatever happens to its name.
    first: i32,
    state: Mutex<State>,
    given_back: Condvar,
}

#[derive(Debug)]
struct State {
    idle: Vec<File>,
    opened: usize,
}

/// A descriptor, given back when dropped.
#[derive(Debug)]
pub(crate) struct Lent<'a> {
    pool: &'a Pool,
    file: Option<File>,
}

impl Pool {
    /// A pool of at most `most` descriptors, `file` being the first.
    pub(crate) fn new(path: &Path, file: File, identity: Identity, most: usize) -> Pool {
        let first = file.as_raw_fd();
        let state = Mutex::new(State { idle: vec![file], opened: 1 });
        Pool { path: file::absolute(path), identity, most: most.max(1), first, state, given_back: Condvar::new() }
    }

    /// A descriptor; waits for one while all are lent.
    pub(crate) fn lend(&self) -> io::Result<Lent<'_>> {
        let mut state = self.state();
        loop {
            if let Some(file) = state.idle.pop() {
                return Ok(Lent { pool: self, file: Some(file) });
            }
            if state.opened < self.most {
                match self.open_another() {
                    Ok(file) => {
                        state.opened += 1;
                        return Ok(Lent { pool: self, file: Some(file) });
                    }
                    // None left in this process, or on the machine: one of ours comes back.
                    Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {}
                    Err(error) => return Err(error),
                }
            }
            state = self.given_back.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn open_another(&self) -> io::Result<File> {
        let same = File::open(format!("/proc/self/fd/{}", self.first));
        // Without /proc, or where the file's rights were taken away since, its name has to serve.
        let file = same.or_else(|error| match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => Err(error),
            _ => File::open(&self.path),
        })?;
        if Identity::of(&file.metadata()?) == self.identity {
            Ok(file)
        } else {
            Err(io::Error::from_raw_os_error(libc::ESTALE))
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two states, so that a poisoned lock is as good as another.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Deref for Lent<'_> {
    type Target = File;
    fn deref(&self) -> &File {
        self.file.as_ref().expect("it is taken out only when dropped")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut state = self.pool.state();
        state.idle.extend(self.file.take());
        drop(state);
        self.pool.given_back.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_opened_on_use_and_lead_to_the_same_file_whatever_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, b"first").unwrap();
        let file = File::open(&path).unwrap();
        let identity = Identity::of(&file.metadata().unwrap());
        let pool = Pool::new(&path, file, identity, 2);
        let a = pool.lend().unwrap();
        assert_eq!(pool.state().opened, 1);
        std::fs::rename(&path, dir.path().join("away")).unwrap();
        std::fs::write(&path, b"second").unwrap();
        let b = pool.lend().unwrap();
        assert_eq!(Identity::of(&b.metadata().unwrap()), identity);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| pool.lend().map(|_| ()));
            drop(a);
            waits.join().unwrap().unwrap();
        });
        assert_eq!(pool.state().opened, 2);
    }
}
