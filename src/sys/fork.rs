//! Whether this is still the process that opened something: a word that the kernel wipes in a forked child.
//! (getpid costs a system call, and a pid comes back.)

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::sys::map::Mapping;
use crate::units::PAGE;

/// The process that made it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    word: &'static AtomicU64,
    generation: u64,
}

static WORD: OnceLock<Mapping> = OnceLock::new();
static LAST_GENERATION: AtomicU64 = AtomicU64::new(0);

impl Owner {
    /// This process.
    pub(crate) fn current() -> io::Result<Owner> {
        if WORD.get().is_none() {
            let page = Mapping::private(PAGE)?;
            page.wipe_on_fork()?;
            // Another thread may have been first; its page serves as well.
            let _ = WORD.set(page);
        }
        let word = WORD.get().expect("set above").first_word();
        // A child counts on from its parent's number, so that no two generations of a line of descent are alike.
        // Relaxed: within a process this word only ever goes from 0 to one number, and what it guards is in that process.
        let mut generation = word.load(Ordering::Relaxed);
        if generation == 0 {
            let next = LAST_GENERATION.fetch_add(1, Ordering::Relaxed) + 1;
            generation = match word.compare_exchange(0, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => next,
                Err(other_thread) => other_thread,
            };
        }
        Ok(Owner { word, generation })
    }

    /// Whether the caller runs in the process that made this, and not in a forked child.
    #[inline(always)]
    pub(crate) fn is_current(&self) -> bool {
        self.word.load(Ordering::Relaxed) == self.generation
    }
}

/// Closes, in a forked child, a descriptor that the child has inherited together with things that it must not touch and that hold on to
/// it. Nothing is done to the file: its locks belong to the parent, and go only with the last of all descriptors. The caller sees to
/// it that nobody uses the file any more.
pub(crate) fn close_inherited(owner: Owner, file: Arc<File>) {
    assert!(!owner.is_current(), "in its own process a file is closed by its last owner");
    let descriptor = file.as_raw_fd();
    // With this the last owner is never dropped, so the number, which may be another file's soon, is closed once.
    std::mem::forget(file);
    // Linux gives the descriptor back whatever the result.
    let _ = nix::unistd::close(descriptor);
}

/// Something that each process has one of: made on first use, and anew in a forked child, where the threads that served
/// the parent's do not run. The parent's is leaked there, since its locks may be held by threads that are gone.
#[derive(Debug)]
pub(crate) struct PerProcess<T: 'static> {
    current: AtomicPtr<(Owner, T)>,
}

impl<T: Send + Sync> PerProcess<T> {
    pub(crate) const fn new() -> PerProcess<T> {
        PerProcess { current: AtomicPtr::new(std::ptr::null_mut()) }
    }

    pub(crate) fn get(&self, make: impl Fn() -> T) -> io::Result<&'static T> {
        let owner = Owner::current()?;
        // Acquire: pairs with the exchange below, which makes the value visible with its address.
        let mut current = self.current.load(Ordering::Acquire);
        loop {
            if let Some(found) = NonNull::new(current) {
                // SAFETY: the pointer came from Box::into_raw below and is never freed.
                let (made_by, value) = unsafe { found.as_ref() };
                if made_by.is_current() {
                    return Ok(value);
                }
            }
            let new = Box::into_raw(Box::new((owner, make())));
            match self.current.compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: as above.
                Ok(_) => return Ok(unsafe { &(*new).1 }),
                Err(other_thread) => {
                    // SAFETY: it was made above and nobody else has seen it.
                    drop(unsafe { Box::from_raw(new) });
                    current = other_thread;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_a_process() {
        static VALUE: PerProcess<AtomicU64> = PerProcess::new();
        let a = VALUE.get(|| AtomicU64::new(1)).unwrap();
        let b = VALUE.get(|| AtomicU64::new(2)).unwrap();
        assert!(std::ptr::eq(a, b));
        assert!(Owner::current().unwrap().is_current());
    }
}
