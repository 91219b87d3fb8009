//! The ordering of the control protocol: publish, announce, look, wake. Nothing in here knows of files, mappings or
//! system calls; it works on any word that can be loaded and stored, so that the unit tests run it under loom.
//!
//! Partners are named `P1` to `P4` here and in ARCHITECTURE.md:
//! - P1: the release store of `end` with the fence behind the load of it: the bytes below the end are visible.
//! - P2: the fence before the stores into a slot with the fence behind the loads from it: a slot that is being
//!   overwritten shows in the commit word.
//! - P3: the release store of `commit` with the fence behind the load of it: the slot of that event is visible, and
//!   so is every earlier store of `end`.
//! - P4: the writer's fence between the store of `commit` and the load of the doorbell, with the sleeper's fence
//!   between the announcement and the second look at `commit`: at least one of the two sees the other.

use std::sync::atomic::Ordering::{self, Acquire, Relaxed, Release, SeqCst};

use crate::format::control::{Extent, SLOTS};
use crate::sys::fault;

/// A 64-bit word that processes share.
pub(crate) trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn fetch_max(&self, value: u64, order: Ordering) -> u64;
    fn fence(order: Ordering);
}

impl Word for std::sync::atomic::AtomicU64 {
    #[inline(always)]
    fn load(&self, order: Ordering) -> u64 {
        self.load(order)
    }
    #[inline(always)]
    fn store(&self, value: u64, order: Ordering) {
        fault::at("word");
        self.store(value, order);
    }
    #[inline(always)]
    fn fetch_max(&self, value: u64, order: Ordering) -> u64 {
        self.fetch_max(value, order)
    }
    #[inline(always)]
    fn fence(order: Ordering) {
        std::sync::atomic::fence(order);
    }
}

/// A count of records and the position behind the last of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) count: u64,
    pub(crate) end: u64,
}

impl Pair {
    /// The one that is further on.
    pub(crate) fn later(self, other: Pair) -> Pair {
        if other.count > self.count { other } else { self }
    }
}

/// The words of an [`Extent`], or of a test's model of one.
pub(crate) trait Words {
    type Word: Word;
    const SLOTS: usize;
    fn end(&self) -> &Self::Word;
    fn commit(&self) -> &Self::Word;
    /// The words for segment, count and end.
    fn slot(&self, event: u64) -> [&Self::Word; 3];
}

impl Words for Extent {
    type Word = std::sync::atomic::AtomicU64;
    const SLOTS: usize = SLOTS;
    #[inline(always)]
    fn end(&self) -> &Self::Word {
        &self.end
    }
    #[inline(always)]
    fn commit(&self) -> &Self::Word {
        &self.commit
    }
    #[inline(always)]
    fn slot(&self, event: u64) -> [&Self::Word; 3] {
        let slot = &self.slots[event as usize % SLOTS];
        [&slot.segment, &slot.count, &slot.end]
    }
}

/// Makes `pair` the state as of `event`, which must be one more than the last. Only the one storing thread calls it.
#[inline(always)]
pub(crate) fn publish<W: Words>(words: &W, event: u64, pair: Pair) {
    // P2: orders the stores into this slot behind the commit of the event before.
    W::Word::fence(Release);
    let [segment, count, end] = words.slot(event);
    segment.store(0, Relaxed);
    count.store(pair.count, Relaxed);
    end.store(pair.end, Relaxed);
    // P1. Before `commit`, so that whoever sleeps on this event has seen this end.
    words.end().store(pair.end, Release);
    // P3.
    words.commit().store(event, Release);
}

/// The position behind the last record. The bytes below it are visible to the caller.
#[inline(always)]
pub(crate) fn end<W: Words>(words: &W) -> u64 {
    // On read-only memory Rust promises relaxed loads only, so the acquire is a fence.
    let end = words.end().load(Relaxed);
    W::Word::fence(Acquire); // P1
    end
}

/// The number of the last event. Every end up to that event is visible to the caller.
#[inline(always)]
pub(crate) fn commit<W: Words>(words: &W) -> u64 {
    let commit = words.commit().load(Relaxed);
    W::Word::fence(Acquire); // P3
    commit
}

/// One try at the pair as of the last event; `None` where the writer came round while it was read.
pub(crate) fn try_pair<W: Words>(words: &W) -> Option<Pair> {
    let before = commit(words);
    let [_, count, end] = words.slot(before);
    let pair = Pair { count: count.load(Relaxed), end: end.load(Relaxed) };
    W::Word::fence(Acquire); // P2
    let after = words.commit().load(Relaxed);
    (after.wrapping_sub(before) < W::SLOTS as u64 - 1).then_some(pair)
}

/// Says in the doorbell that the caller is about to sleep on `commit`. `true` where that is still the last event: the
/// caller may sleep, until the commit word's low half is another.
#[inline]
pub(crate) fn announce<W: Words>(words: &W, doorbell: &W::Word, commit: u64) -> bool {
    // Wrapping: a page may hold anything.
    doorbell.fetch_max(commit.wrapping_add(1), Relaxed);
    W::Word::fence(SeqCst); // P4
    words.commit().load(Relaxed) == commit
}

/// Whether somebody may be asleep on an event before `event`, which the caller has just published; `woken` is the event of the last
/// complete wake-up. A value that no honest sleeper can have stored yet is ignored.
#[inline(always)]
pub(crate) fn someone_sleeps<W: Word>(doorbell: &W, event: u64, woken: u64) -> bool {
    W::fence(SeqCst); // P4
    let announced = doorbell.load(Relaxed);
    announced > woken && announced <= event + 1
}

#[cfg(test)]
#[path = "protocol/model.rs"]
mod model;
