//! Waiting for the next record: spin, sleep on the commit word, or look at intervals; and the check-up at each bound,
//! which finds a new writer, a dead one's last record, and a log that is gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Tailer;
use super::record::Found;
use crate::control::ControlView;
use crate::error::{Error, Result};
use crate::format::control::Doorbell;
use crate::protocol;
use crate::settings::WaitStrategy;
use crate::sys::futex::{self, Ended};
use crate::units::SLEEP_BOUND;

/// How long [`WaitStrategy::SpinThenPark`] spins: about what a wake-up takes (FACTS: 24 µs).
const SPIN: Duration = Duration::from_micros(20);
/// Intervals of looking at the control page where the doorbell cannot be reached, doubled from the first to the second.
const PAGE_INTERVALS: (Duration, Duration) = (Duration::from_micros(200), Duration::from_millis(10));
/// Intervals of looking at the count where there is no control page: system calls, so fewer.
const COUNT_INTERVALS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// How a tailer's waits ended, counted by cause since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitCounts {
    /// Times that it went to sleep on the control page; the next four add up to it.
    pub sleeps: u64,
    /// Sleeps ended by a wake-up.
    pub woken: u64,
    /// Sleeps that did not begin, because the commit word had moved on.
    pub moved_on: u64,
    /// Sleeps ended by their bound.
    pub bound: u64,
    /// Sleeps ended by a signal.
    pub interrupted: u64,
    /// Of those ended by their bound, the ones with a record waiting: lost wake-ups.
    pub lost: u64,
    /// Looks at intervals, where there is no doorbell or no control page.
    pub polls: u64,
}

/// What a tailer remembers from one wait to the next.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) counts: WaitCounts,
    /// Nothing came in the last wait, so that spinning would be idle.
    rested: bool,
    interval: Duration,
    checked: Option<Instant>,
    pub(super) replaced: bool,
}

impl Tailer {
    /// Waits until there is a record. `None` once stopped.
    #[cold]
    pub(super) fn wait_for_next(&mut self, limit: Option<Duration>) -> Result<Option<Found>> {
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        self.waiting.rested = false;
        self.waiting.interval = Duration::ZERO;
        self.give_buffer_back();
        loop {
            if self.waiting.replaced {
                return Err(Error::Replaced { path: self.opened.path.clone() });
            }
            let left = deadline.map_or(SLEEP_BOUND, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Err(Error::TimedOut { path: self.opened.path.clone(), after: limit.unwrap_or_default() });
            }
            self.wait(left.min(SLEEP_BOUND))?;
            if self.stopper.is_stopped() {
                return Ok(None);
            }
            if let Some(found) = self.advance()? {
                return Ok(Some(found));
            }
        }
    }

    fn give_buffer_back(&mut self) {
        // All that was in it has been delivered.
        let buffer = self.chunk.take_buffer();
        if !buffer.is_empty() {
            self.opened.give_buffer(buffer);
        }
        self.large = Vec::new();
    }

    /// Waits until there may be something, but no longer than `bound`.
    fn wait(&mut self, bound: Duration) -> Result<()> {
        let Some(view) = self.view.clone() else {
            self.give_back();
            self.pause(COUNT_INTERVALS, bound);
            return self.check_up();
        };
        let strategy = self.opened.settings.wait_strategy;
        let spin = match strategy {
            WaitStrategy::Spin => bound,
            WaitStrategy::SpinThenPark if !self.waiting.rested => SPIN.min(bound),
            _ => Duration::ZERO,
        };
        let (known, stopper) = (self.known, &self.stopper);
        let extent = view.extent(self.durable);
        // The line of the next record comes over together with the one that says that it is there.
        let window = self.chunk.window();
        let news = || {
            if let Some(window) = window {
                window.prefetch(known);
            }
            protocol::end(extent) > known || stopper.is_stopped()
        };
        if !spin.is_zero() && futex::spin(spin, news) {
            return Ok(());
        }
        if !std::mem::replace(&mut self.waiting.rested, true) {
            self.give_back();
        }
        match view.bell() {
            _ if strategy == WaitStrategy::Spin => self.check_up(),
            // Whoever flushes always makes the wake-up, so that no doorbell is needed.
            _ if self.durable => self.sleep(&view, None, bound),
            Some(bell) => self.sleep(&view, Some(bell), bound),
            None => {
                // The look that follows checks up at times.
                self.pause(PAGE_INTERVALS, bound);
                Ok(())
            }
        }
    }

    fn sleep(&mut self, view: &Arc<ControlView>, bell: Option<&Doorbell>, bound: Duration) -> Result<()> {
        let extent = view.extent(self.durable);
        // The event first: its end, and every earlier one, is visible to the look that follows.
        let event = protocol::commit(extent);
        if protocol::end(extent) > self.known {
            return Ok(());
        }
        if !view.is_followed() {
            return self.check_up();
        }
        let ended = if bell.is_none_or(|bell| protocol::announce(extent, &bell.announced, event)) {
            futex::wait(&extent.commit, event as u32, self.stopper.word(), bound)
        } else {
            Ended::MovedOn
        };
        let counts = &mut self.waiting.counts;
        counts.sleeps += 1;
        match ended {
            Ended::Woken => counts.woken += 1,
            Ended::MovedOn => counts.moved_on += 1,
            Ended::Interrupted => counts.interrupted += 1,
            Ended::Bound => {
                counts.bound += 1;
                counts.lost += u64::from(protocol::end(extent) > self.known);
                return self.check_up();
            }
        }
        Ok(())
    }

    /// Sleeps for an interval that doubles from wait to wait.
    fn pause(&mut self, (least, most): (Duration, Duration), bound: Duration) {
        let interval = (self.waiting.interval * 2).clamp(least, most);
        self.waiting.interval = interval;
        self.waiting.counts.polls += 1;
        futex::wait_for_stop(self.stopper.word(), interval.min(bound));
    }

    pub(super) fn is_check_up_due(&self) -> bool {
        self.waiting.checked.is_none_or(|checked| checked.elapsed() >= SLEEP_BOUND)
    }

    /// Looks for what the control page does not say: that another page has its name, that its writer died between two
    /// stores, that the log itself is gone.
    pub(super) fn check_up(&mut self) -> Result<()> {
        if self.is_check_up_due() {
            self.waiting.checked = Some(Instant::now());
            // What is readable is still delivered: the caller looks once more before it hears of it.
            self.waiting.replaced = self.opened.is_replaced();
        }
        if self.durable {
            // The count does not tell what is durable, so a dead writer's page is followed as well.
            self.view = self.opened.view();
            return Ok(());
        }
        self.view = self.opened.page_to_follow(self.view.as_deref());
        let Some(view) = &self.view else { return Ok(()) };
        // The count first: it is stored before the page says so.
        let count = self.opened.count()?;
        if count > self.next.count && protocol::end(&view.page().published) <= self.known && self.opened.is_still(view)
        {
            // The writer is stopped between the two; or it has no page and this one is a dead writer's.
            self.view = None;
        }
        Ok(())
    }
}
