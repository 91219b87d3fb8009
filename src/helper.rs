//! One thread a process that works ahead for all of its writers. Nothing depends on it: a writer does what was not done.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use nix::sys::signal::SigSet;

use crate::sys::fork::PerProcess;
use crate::sys::sched;
use crate::units::HEARTBEAT;

/// What is done for one log at each heartbeat and after each nudge. It must not panic, and must return soon.
pub(crate) trait Chore: Send + Sync {
    /// Returns how soon it wants to be run again.
    fn run(&self) -> Duration;
}

struct Helper {
    chores: Mutex<Vec<Arc<dyn Chore>>>,
    thread: Mutex<Option<Thread>>,
    alive: AtomicBool,
    /// A hint: the thread sleeps and does what it is woken for at once.
    idle: AtomicBool,
}

static HELPER: PerProcess<Helper> = PerProcess::new();

/// A chore that is being done; ends when dropped, though a run of it may just be under way.
pub(crate) struct Employed {
    helper: &'static Helper,
    chore: Arc<dyn Chore>,
    thread: Option<Thread>,
}

impl std::fmt::Debug for Employed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Employed").field("helped", &self.is_helped()).finish_non_exhaustive()
    }
}

/// Has the helper thread do the chore from now on, if there can be such a thread.
pub(crate) fn employ(chore: Arc<dyn Chore>) -> io::Result<Employed> {
    let helper = HELPER.get(|| Helper {
        chores: Mutex::new(Vec::new()),
        thread: Mutex::new(None),
        alive: AtomicBool::new(false),
        idle: AtomicBool::new(false),
    })?;
    let thread = helper.thread();
    locked(&helper.chores).push(chore.clone());
    let employed = Employed { helper, chore, thread };
    employed.nudge();
    Ok(employed)
}

impl Employed {
    /// Has the chore done now. Makes a system call only where the helper sleeps.
    pub(crate) fn nudge(&self) {
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }

    /// Whether somebody does the chore.
    pub(crate) fn is_helped(&self) -> bool {
        // Acquire: pairs with the release in `Alive::drop`.
        self.thread.is_some() && self.helper.alive.load(Ordering::Acquire)
    }

    /// Whether the chore, if it is nudged now, would be done at once.
    pub(crate) fn is_at_hand(&self) -> bool {
        self.helper.idle.load(Ordering::Relaxed) // A hint.
    }
}

impl Drop for Employed {
    fn drop(&mut self) {
        locked(&self.helper.chores).retain(|chore| !Arc::ptr_eq(chore, &self.chore));
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is under these locks is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Helper {
    /// The thread, started where it does not run; `None` where the system refuses one.
    fn thread(&'static self) -> Option<Thread> {
        let mut thread = locked(&self.thread);
        if thread.is_none() || !self.alive.load(Ordering::Acquire) {
            // Signals go to the threads of the program: the mask is inherited, so there is no instant without it.
            let before = SigSet::all().thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK).ok()?;
            let spawned = thread::Builder::new().name("immuta-helper".into()).spawn(|| self.run());
            // Setting a mask that was just read cannot fail.
            let _ = before.thread_set_mask();
            self.alive.store(spawned.is_ok(), Ordering::Release);
            *thread = spawned.ok().map(|handle| handle.thread().clone());
        }
        thread.clone()
    }

    fn run(&self) {
        struct Alive<'a>(&'a AtomicBool);
        impl Drop for Alive<'_> {
            fn drop(&mut self) {
                self.0.store(false, Ordering::Release);
            }
        }
        let _alive = Alive(&self.alive);
        sched::wait_for_turn();
        let mut chores = Vec::new();
        loop {
            chores.extend(locked(&self.chores).iter().cloned());
            let mut limit = if chores.is_empty() { Duration::MAX } else { HEARTBEAT };
            for chore in chores.drain(..) {
                limit = limit.min(chore.run());
            }
            self.idle.store(true, Ordering::Relaxed);
            thread::park_timeout(limit);
            self.idle.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;
    use std::time::Instant;

    struct Counts(AtomicU32);
    impl Chore for Counts {
        fn run(&self) -> Duration {
            self.0.fetch_add(1, Ordering::Relaxed);
            HEARTBEAT
        }
    }

    #[test]
    fn a_chore_is_done_after_a_nudge_until_it_is_dropped() {
        let chore = Arc::new(Counts(AtomicU32::new(0)));
        let employed = employ(chore.clone()).unwrap();
        assert!(employed.is_helped());
        let begin = Instant::now();
        for wanted in 1..20 {
            employed.nudge();
            while chore.0.load(Ordering::Relaxed) < wanted {
                assert!(begin.elapsed() < Duration::from_secs(20));
                thread::yield_now();
            }
        }
        drop(employed);
        while Arc::strong_count(&chore) > 1 {
            assert!(begin.elapsed() < Duration::from_secs(20));
            thread::yield_now();
        }
    }
}
