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

    /// A descriptor; waits for one while all are lent, or no other can be opened.
    pub(crate) fn lend(&self) -> Lent<'_> {
        let mut state = self.state();
        loop {
            if let Some(file) = state.idle.pop() {
                return Lent { pool: self, file: Some(file) };
            }
            // Whatever the error: there is at least one, which is lent, so it comes back.
            if state.opened < self.most
                && let Ok(file) = self.open_another()
            {
                state.opened += 1;
                return Lent { pool: self, file: Some(file) };
            }
            state = self.given_back.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn open_another(&self) -> io::Result<File> {
        let same = file::open_plainly(format!("/proc/self/fd/{}", self.first).as_ref());
        // Without /proc, or where the file's rights were taken away since, its name has to serve.
        let file = same.or_else(|error| match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE) => Err(error),
            _ => file::open_plainly(&self.path),
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
        let a = pool.lend();
        assert_eq!(pool.state().opened, 1);
        std::fs::rename(&path, dir.path().join("away")).unwrap();
        std::fs::write(&path, b"second").unwrap();
        let b = pool.lend();
        assert_eq!(Identity::of(&b.metadata().unwrap()), identity);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| drop(pool.lend()));
            drop(a);
            waits.join().unwrap();
        });
        assert_eq!(pool.state().opened, 2);
    }

    #[test]
    fn where_no_other_descriptor_can_be_opened_one_that_is_lent_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, b"").unwrap();
        let file = File::open(&path).unwrap();
        let identity = Identity::of(&file.metadata().unwrap());
        let mut pool = Pool::new(&path, file, identity, 2);
        // As where /proc does not serve.
        pool.first = -1;
        let pool: &Pool = Box::leak(Box::new(pool));
        type Change = fn(&Path);
        let changes: [Change; 3] = [
            |path| std::fs::remove_file(path).unwrap(),
            |path| std::fs::write(path, b"another").unwrap(),
            // Opening it would wait for somebody to write into it.
            |path| {
                std::fs::remove_file(path).unwrap();
                nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            },
        ];
        for change in changes {
            change(&path);
            let lent = pool.lend();
            let (got, gets) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                drop(pool.lend());
                got.send(())
            });
            assert!(gets.recv_timeout(std::time::Duration::from_millis(50)).is_err(), "it waits");
            // Not in this thread: the pool may be locked for ever.
            std::thread::spawn(move || drop(lent));
            gets.recv_timeout(std::time::Duration::from_secs(20)).expect("a descriptor that came back");
        }
        assert_eq!(pool.state().opened, 1);
    }
}
