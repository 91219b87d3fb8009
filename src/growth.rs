//! Space ahead of the writer: blocks reserved, then filled with zeros, so that a full disk is an error before a byte is
//! published, and the mapping faults once in 2 MiB. Done by the helper thread; by the writer where that falls behind. On tmpfs
//! pages are reserved, and zeroed when the writer maps them, since they are mapped one by one in any case.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use crate::sys::file;
use crate::units::{KIB, LARGE_PAGE, MIB, PAGE, round_down, round_up};

/// Zeroed space that is kept ready ahead of the end of a large log, in bytes.
const AHEAD_MOST: u64 = 32 * MIB;
/// The same for a new log; it grows with the log, so that a thousand small logs do not take gigabytes.
const AHEAD_LEAST: u64 = 64 * KIB;

/// The same where each record is flushed: all that is zeroed is flushed with it.
const AHEAD_MOST_ORDERED: u64 = 512 * KIB;

/// The most that is done at once, so that a writer never waits for long while the helper thread is at it.
const STEP_MOST: u64 = 4 * LARGE_PAGE;

/// Between two steps that nobody waits for.
const LEISURE: Duration = Duration::from_millis(1);

/// How far a file has been grown. Shared by a writer and the helper thread.
#[derive(Debug)]
pub(crate) struct Growth {
    file: Arc<File>,
    /// Each record is flushed before the next.
    ordered: bool,
    /// Reserved space is left for the writer to zero.
    in_pages: bool,
    /// Bytes below this have blocks and can be stored into. Stored under the lock.
    grown: AtomicU64,
    /// Where the writer was when it last looked.
    used: AtomicU64,
    /// The writer waits for the lock.
    urgent: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    ended: bool,
    /// What `used` was when the helper found no space: it does not try again before the writer has moved on.
    refused_at: Option<u64>,
}

impl Growth {
    /// For a file that ends at `end`, with everything below it in place.
    pub(crate) fn new(file: Arc<File>, end: u64, ordered: bool) -> Growth {
        let state = Mutex::new(State { ended: false, refused_at: None });
        Growth {
            in_pages: file::is_in_pages(&file),
            file,
            ordered,
            grown: AtomicU64::new(end),
            used: AtomicU64::new(end),
            urgent: AtomicBool::new(false),
            state,
        }
    }

    pub(crate) fn grown(&self) -> u64 {
        // Acquire: pairs with the release in `step`; the blocks are there before the number says so.
        self.grown.load(Ordering::Acquire)
    }

    /// How much space should be ready ahead of `used`, in bytes.
    pub(crate) fn ahead(&self, used: u64) -> u64 {
        used.clamp(AHEAD_LEAST, if self.ordered { AHEAD_MOST_ORDERED } else { AHEAD_MOST })
    }

    /// Whether the file is kept in memory alone, page by page: then the first touch of a page zeroes it.
    pub(crate) fn is_in_pages(&self) -> bool {
        self.in_pages
    }

    /// Whether each record is flushed before the next.
    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered
    }

    /// A file grows by large folios, so that the mapping faults seldom. But a flush writes the whole folio of which one byte was
    /// stored into through a mapping: a batch of 4.6 KiB in `Sync` took 550 µs with these, and 180 µs with pages (bench `append`).
    fn piece(&self) -> u64 {
        if self.ordered { PAGE } else { LARGE_PAGE }
    }

    /// Says where the writer is; `true` where the helper should be nudged.
    pub(crate) fn advance(&self, used: u64) -> bool {
        self.used.store(used, Ordering::Relaxed); // A hint: whoever misses it does less ahead, or more.
        self.grown().saturating_sub(used) < self.ahead(used) / 4 * 3
    }

    /// Returns when bytes below `need` can be stored into. For the writer's thread.
    pub(crate) fn grow_to(&self, need: u64) -> io::Result<()> {
        if self.grown() >= need {
            return Ok(());
        }
        // The helper may be at it, a step at a time; it lets the writer in before the next.
        self.urgent.store(true, Ordering::Relaxed);
        let mut state = self.state();
        self.urgent.store(false, Ordering::Relaxed);
        state.refused_at = None;
        if need > self.grown() + STEP_MOST {
            // All or nothing, before the disk is filled with zeros in steps.
            file::reserve(&self.file, self.grown(), need)?;
        }
        while self.grown() < need {
            self.step(need, target(need), STEP_MOST)?;
        }
        Ok(())
    }

    /// Whether the writer would have to wait until the helper is done with a step. For more than a step the writer takes over.
    pub(crate) fn is_awaited(&self, need: u64) -> bool {
        (1..=STEP_MOST).contains(&need.saturating_sub(self.grown()))
            && matches!(self.state.try_lock(), Err(TryLockError::WouldBlock))
    }

    /// Grows by a step if too little is ready. For the helper thread; where there may be more to do, says how soon.
    pub(crate) fn work_ahead(&self) -> Option<Duration> {
        if self.urgent.load(Ordering::Relaxed) {
            // The writer is about to take the lock; something long that is begun now would delay the next step.
            return Some(Duration::ZERO);
        }
        let mut state = self.state();
        let used = self.used.load(Ordering::Relaxed);
        let wanted = target(used + self.ahead(used));
        if state.ended || state.refused_at == Some(used) || self.grown() >= wanted {
            return None;
        }
        // Who shares the processor with this thread stands still for a step. Where most of what is wanted is there, that is a short one.
        let is_leisurely = self.grown().saturating_sub(used) >= self.ahead(used) / 2;
        let (most, rest) = if is_leisurely { (LARGE_PAGE, LEISURE) } else { (STEP_MOST, Duration::ZERO) };
        // An attempt that fails takes all that is free first, in which instant others are refused what they need, such as this log's index.
        let has_room = file::free_bytes(&self.file).is_ok_and(|free| free >= 2 * STEP_MOST);
        // An error is no news before the writer itself needs the space, and it will find it out then.
        let grew = has_room && self.step(wanted, wanted, most).is_ok();
        state.refused_at = (!grew).then_some(used);
        grew.then_some(rest)
    }

    /// Grows towards `wanted` by one step of at most `most` bytes, or where there is not so much to be had, just beyond `need`. Under the lock.
    fn step(&self, need: u64, wanted: u64, most: u64) -> io::Result<()> {
        let from = self.grown();
        let to = wanted.min(round_down(from, LARGE_PAGE) + most).max(from + 1);
        let grow = |to| {
            if self.in_pages {
                file::reserve(&self.file, from, to)
            } else {
                file::grow(&self.file, from, to, self.piece())
            }
        };
        let to = match grow(to) {
            Ok(()) => to,
            Err(_) if round_up(need, PAGE) < to => {
                let to = round_up(need, PAGE);
                grow(to)?;
                to
            }
            Err(error) => return Err(error),
        };
        // Release: pairs with the acquire in `grown`.
        self.grown.store(to, Ordering::Release);
        Ok(())
    }

    /// Ends the work ahead; when this returns the helper does not touch the file any more.
    pub(crate) fn end(&self) {
        self.state().ended = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The size to grow to for `need` bytes: in small powers of two at first, then in steps of a large page.
fn target(need: u64) -> u64 {
    if need <= LARGE_PAGE { need.next_power_of_two().max(AHEAD_LEAST) } else { round_up(need, LARGE_PAGE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_waits_for_is_done_in_small_steps() {
        let growth = Growth::new(Arc::new(tempfile::tempfile().unwrap()), 0, false);
        growth.grow_to(64 * MIB).unwrap();
        growth.advance(40 * MIB);
        assert_eq!((growth.work_ahead(), growth.grown()), (Some(LEISURE), 66 * MIB), "most of 32 MiB is there");
        growth.advance(60 * MIB);
        assert_eq!((growth.work_ahead(), growth.grown()), (Some(Duration::ZERO), 74 * MIB), "6 MiB are");
        growth.advance(42 * MIB);
        assert_eq!((growth.work_ahead(), growth.grown()), (None, 74 * MIB), "all are");
    }

    #[test]
    fn a_small_log_takes_little_and_a_large_one_is_kept_ahead() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let growth = Growth::new(file.clone(), 0, false);
        growth.grow_to(16).unwrap();
        assert_eq!(growth.grown(), 64 * KIB);
        growth.grow_to(64 * KIB + 1).unwrap();
        assert_eq!(growth.grown(), 128 * KIB);
        growth.advance(5 * MIB);
        growth.grow_to(5 * MIB).unwrap();
        while growth.work_ahead().is_some() {}
        assert_eq!(growth.grown(), 10 * MIB);
        assert_eq!(file.metadata().unwrap().len(), 10 * MIB);
        growth.end();
        growth.advance(9 * MIB);
        assert!(growth.work_ahead().is_none());
    }
}
