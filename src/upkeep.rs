//! What the helper thread does for a writer: growing the file ahead, the heartbeat, waking many sleepers, keeping the index
//! up, flushing at intervals.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::cover::Cover;
use crate::durable::Durable;
use crate::format::control::ControlPage;
use crate::growth::Growth;
use crate::helper::Chore;
use crate::protocol::{self, Pair};
use crate::settings::Durability;
use crate::sys::futex;
use crate::sys::map::{Access, Mapping, View};
use crate::units::{HEARTBEAT, PAGE};

/// How soon the helper looks again while records come.
const BUSY: Duration = Duration::from_millis(10);

/// The part of a writer that its helper thread shares.
#[derive(Debug)]
pub(crate) struct Upkeep {
    growth: Arc<Growth>,
    cover: Arc<Cover>,
    durable: Arc<Durable>,
    durability: Durability,
    page: Arc<View<ControlPage>>,
    /// The first page of the log, with the count. Its writer has it: in a forked child the mapping goes with the writer.
    header: Option<Weak<Mapping>>,
    /// Set by the writer when more sleep than it wakes itself.
    more_to_wake: AtomicBool,
    /// The same for followers of what is durable.
    more_durable_to_wake: AtomicBool,
    /// The event of the helper's last complete wake-up.
    woken: AtomicU64,
    /// How many that woke.
    crowd: AtomicU32,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    /// What was published when it last looked.
    seen: Pair,
    /// When the last flush, or the last note of what is durable, began.
    flushed: Option<Instant>,
    /// What the index says is durable, in `Sync` mode.
    noted: u64,
}

impl Upkeep {
    pub(crate) fn new(
        growth: Arc<Growth>,
        cover: Arc<Cover>,
        durable: Arc<Durable>,
        durability: Durability,
        page: Arc<View<ControlPage>>,
        header: Option<Weak<Mapping>>,
    ) -> Upkeep {
        let progress = Mutex::new(Progress { seen: durable.pair(), flushed: None, noted: durable.pair().count });
        let (more_to_wake, more_durable_to_wake, woken, crowd) = Default::default();
        Upkeep {
            growth,
            cover,
            durable,
            durability,
            page,
            header,
            more_to_wake,
            more_durable_to_wake,
            woken,
            crowd,
            progress,
        }
    }

    /// The event up to which the helper has woken all sleepers.
    pub(crate) fn woken(&self) -> u64 {
        self.woken.load(Ordering::Acquire) // Pairs with the release in `wake_all`.
    }

    /// How many that woke.
    pub(crate) fn crowd(&self) -> u32 {
        self.crowd.load(Ordering::Relaxed)
    }

    /// Has the helper wake all that sleep; it is to be nudged.
    pub(crate) fn ask_to_wake(&self) {
        // Release: pairs with the acquire in `run`, which so sees the commit word that the sleepers are to see.
        self.more_to_wake.store(true, Ordering::Release);
    }

    /// The same for followers of what is durable.
    pub(crate) fn ask_to_wake_durable(&self) {
        self.more_durable_to_wake.store(true, Ordering::Release); // As above.
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a writer without a helper thread.
    pub(crate) fn run_if_due(&self) {
        let last = self.page.heartbeat.load(Ordering::Relaxed); // Its own.
        if futex::monotonic().as_nanos() as u64 - last >= BUSY.as_nanos() as u64 {
            self.run();
        }
    }

    fn wake(&self) {
        if self.more_to_wake.swap(false, Ordering::Acquire) {
            self.wake_all();
        }
        if self.more_durable_to_wake.swap(false, Ordering::Acquire) {
            self.durable.wake_all();
        }
    }

    fn wake_all(&self) {
        let event = protocol::commit(&self.page.published);
        // All in one call: where some are woken at a time, as many may be asleep again before the next call, without end.
        let crowd = futex::wake(&self.page.published.commit, i32::MAX as u32);
        self.crowd.store(crowd, Ordering::Relaxed); // A hint.
        // Complete as of an event before the call: who falls asleep later compares with that one or a later one.
        self.woken.fetch_max(event, Ordering::Release);
    }

    /// Flushes, or notes what is durable, when it is time; returns how soon it wants to look again, at the latest after `busy`.
    fn make_durable(&self, published: Pair, busy: Duration) -> Duration {
        let mut progress = self.progress();
        let interval = match self.durability {
            Durability::Buffered => return busy,
            Durability::Interval(interval) => interval.max(BUSY),
            // What is durable is noted in the index at times, so that a recovery has less to verify.
            Durability::Sync => HEARTBEAT * 2,
        };
        let passed = progress.flushed.map_or(interval, |flushed| flushed.elapsed());
        let is_due = passed >= interval;
        if is_due && self.durable.pair().count < published.count {
            progress.flushed = Some(Instant::now());
            // A failure is told to the writer by `has_failed`, and to followers by the control page.
            if self.durable.flush(published).unwrap_or(false) {
                self.durable.wake_all();
            }
            // The next store of the count would fault.
            if let Some(header) = self.header.as_ref().and_then(Weak::upgrade) {
                header.populate(Access::Write, 0, PAGE);
            }
        } else if is_due && self.durability == Durability::Sync && progress.noted < published.count {
            (progress.flushed, progress.noted) = (Some(Instant::now()), published.count);
            self.durable.note();
        } else if !is_due && self.durable.pair().count < published.count {
            // What came waits no longer than it may.
            return busy.min(interval - passed);
        }
        busy.min(interval)
    }
}

impl Chore for Upkeep {
    fn run(&self) -> Duration {
        self.wake();
        self.page.heartbeat.store(futex::monotonic().as_nanos() as u64, Ordering::Relaxed);
        // A step of each at a time: neither the other logs of this process nor a flush wait for a writer that never pauses.
        let more = self.growth.work_ahead();
        // Beside such a writer not every try meets a pair that stands.
        let Some(published) = (0..1000).find_map(|_| protocol::try_pair(&self.page.published)) else {
            return Duration::ZERO;
        };
        let last = std::mem::replace(&mut self.progress().seen, published);
        let behind = self.cover.advance(published, published.end.saturating_sub(last.end), more.is_some());
        let soon = self.make_durable(published, if published == last { HEARTBEAT } else { BUSY });
        if behind { Duration::ZERO } else { more.unwrap_or(soon).min(soon) }
    }
}
