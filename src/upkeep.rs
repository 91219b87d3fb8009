//! What the helper thread does for a writer: growing the file ahead, the heartbeat, and waking many sleepers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::format::control::ControlPage;
use crate::growth::Growth;
use crate::helper::Chore;
use crate::protocol;
use crate::sys::futex;
use crate::sys::map::View;

/// How many sleepers the helper wakes in one call: it can be seen to after each.
const WAKE_AT_ONCE: u32 = 64;

/// The part of a writer that its helper thread shares.
#[derive(Debug)]
pub(crate) struct Upkeep {
    growth: Arc<Growth>,
    page: Arc<View<ControlPage>>,
    /// Set by the writer when more sleep than it wakes itself.
    more_to_wake: AtomicBool,
    /// The event of the helper's last complete wake-up.
    woken: AtomicU64,
}

impl Upkeep {
    pub(crate) fn new(growth: Arc<Growth>, page: Arc<View<ControlPage>>) -> Upkeep {
        Upkeep { growth, page, more_to_wake: AtomicBool::new(false), woken: AtomicU64::new(0) }
    }

    /// The event up to which the helper has woken all sleepers.
    pub(crate) fn woken(&self) -> u64 {
        self.woken.load(Ordering::Acquire) // Pairs with the release in `wake_all`.
    }

    /// Has the helper wake all that sleep; it is to be nudged.
    pub(crate) fn ask_to_wake(&self) {
        // Release: pairs with the acquire in `run`, which so sees the commit word that the sleepers are to see.
        self.more_to_wake.store(true, Ordering::Release);
    }

    fn wake_all(&self) {
        loop {
            let event = protocol::commit(&self.page.published);
            if futex::wake(&self.page.published.commit, WAKE_AT_ONCE) < WAKE_AT_ONCE {
                // Complete as of an event before the call: who falls asleep later compares with that one or a later one.
                self.woken.fetch_max(event, Ordering::Release);
                return;
            }
        }
    }
}

impl Chore for Upkeep {
    fn run(&self) {
        if self.more_to_wake.swap(false, Ordering::Acquire) {
            self.wake_all();
        }
        self.page.heartbeat.store(futex::monotonic().as_nanos() as u64, Ordering::Relaxed);
        while self.growth.work_ahead() {
            // Waking does not wait for growing.
            if self.more_to_wake.swap(false, Ordering::Acquire) {
                self.wake_all();
            }
        }
    }
}
