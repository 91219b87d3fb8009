//! Where blocks of the index may end: a ring from the writer, which never waits, to whoever takes checksums.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::index::BLOCK_BYTES;
use crate::protocol::Pair;

/// How many there is room for: the helper may be 256 MiB behind before blocks become larger and have to be cut by a walk.
pub(crate) const MARKS: usize = 4096;

/// Ends of blocks on their way from the writer to the helper. Each side's numbers have a cache line of their own, and the other one looks at
/// it only where it finds nothing else to go on: for a line that was just stored into it would wait longer than for all else of a mark.
pub(crate) struct Marks {
    slots: Vec<[AtomicU64; 2]>,
    writer: WriterSide,
    helper: HelperSide,
}

#[repr(align(128))]
struct WriterSide {
    /// How many were put in.
    put: AtomicU64,
    /// How many may have been put in before the helper has to have taken some; the writer's alone.
    room: AtomicU64,
    /// Where the next one is due; the writer's alone.
    due: AtomicU64,
}

/// All of it is stored under the lock of the index's state.
#[repr(align(128))]
struct HelperSide {
    /// How many were taken.
    taken: AtomicU64,
    /// How many were put in when it last looked.
    seen: AtomicU64,
}

impl fmt::Debug for Marks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the slots: there are thousands.
        f.debug_struct("Marks")
            .field("taken", &self.helper.taken)
            .field("put", &self.writer.put)
            .finish_non_exhaustive()
    }
}

impl Marks {
    pub(crate) fn new(due: u64) -> Marks {
        let (put, taken, seen) = Default::default();
        Marks {
            slots: (0..MARKS).map(|_| Default::default()).collect(),
            writer: WriterSide { put, room: AtomicU64::new(MARKS as u64), due: AtomicU64::new(due) },
            helper: HelperSide { taken, seen },
        }
    }

    /// Says that a block may end here, where it is time for one; returns where the next one should end. For the writer's thread.
    pub(crate) fn mark(&self, published: Pair) -> u64 {
        let due = self.writer.due.load(Ordering::Relaxed); // Its own.
        if published.end < due {
            return due;
        }
        self.put(published);
        let next = published.end + BLOCK_BYTES;
        self.writer.due.store(next, Ordering::Relaxed);
        next
    }

    /// For the writer's thread alone. A mark for which there is no place is not needed: the block becomes larger.
    pub(crate) fn put(&self, pair: Pair) {
        let WriterSide { put: number, room, .. } = &self.writer;
        let put = number.load(Ordering::Relaxed); // Its own.
        if put == room.load(Ordering::Relaxed) {
            // Acquire: pairs with the release in `take`, after which the slot is free.
            room.store(self.helper.taken.load(Ordering::Acquire) + MARKS as u64, Ordering::Relaxed);
        }
        if put < room.load(Ordering::Relaxed) {
            let [count, end] = &self.slots[put as usize % MARKS];
            count.store(pair.count, Ordering::Relaxed);
            end.store(pair.end, Ordering::Relaxed);
            // Release: pairs with the acquire in `take`, which so sees the slot.
            number.store(put + 1, Ordering::Release);
        }
    }

    /// For one at a time: under the lock of the index's state.
    pub(crate) fn take(&self) -> Option<Pair> {
        let HelperSide { taken: number, seen } = &self.helper;
        let taken = number.load(Ordering::Relaxed); // Stored under the same lock, as is `seen`.
        if taken == seen.load(Ordering::Relaxed) {
            // Acquire: pairs with the release in `put`.
            seen.store(self.writer.put.load(Ordering::Acquire), Ordering::Relaxed);
        }
        if taken == seen.load(Ordering::Relaxed) {
            return None;
        }
        let [count, end] = &self.slots[taken as usize % MARKS];
        let pair = Pair { count: count.load(Ordering::Relaxed), end: end.load(Ordering::Relaxed) };
        number.store(taken + 1, Ordering::Release);
        Some(pair)
    }
}
