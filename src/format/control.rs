//! The layout of the control page and of the doorbell (FORMAT.md has it in prose). Every field is a 64-bit word in the
//! machine's little-endian order; contended words lie on lines of their own, 128 bytes apart.

use std::mem::{offset_of, size_of};
use std::sync::atomic::AtomicU64;

/// "immutaCP": stored last into a new control page.
pub(crate) const PAGE_MAGIC: u64 = u64::from_le_bytes(*b"immutaCP");
/// "immutaDB": stored last into a new doorbell.
pub(crate) const BELL_MAGIC: u64 = u64::from_le_bytes(*b"immutaDB");
/// Moves when a field changes its place or its meaning.
pub(crate) const LAYOUT_VERSION: u64 = 1;
/// The size of either file, in bytes.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// Slots for the pair (count, end). With 4 a reader beside a flat-out writer seldom finishes in time; 32 last 300 ns.
pub(crate) const SLOTS: usize = 32;

/// The values of [`ControlPage::state`].
pub(crate) mod state {
    /// A writer has the log open, or died.
    pub(crate) const OPEN: u64 = 1;
    /// The writer closed the log.
    pub(crate) const CLOSED: u64 = 2;
    /// A flush failed; the writer has ended itself.
    pub(crate) const FAILED: u64 = 3;
    /// A later writer has made another control page.
    pub(crate) const SUPERSEDED: u64 = 4;
}

/// A count and the position behind its last record, as of one event.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) segment: AtomicU64,
    pub(crate) count: AtomicU64,
    pub(crate) end: AtomicU64,
    spare: AtomicU64,
}

/// How far the log has come: published, or durable. One thread stores into it.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Extent {
    /// The position behind the last record; all that a follower's hot path loads.
    pub(crate) end: AtomicU64,
    /// Counts events; its low half is the futex.
    pub(crate) commit: AtomicU64,
    spare: [AtomicU64; 14],
    pub(crate) slots: [Slot; SLOTS],
}

/// The control page: written by one writer, mapped read-only by everyone else.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct ControlPage {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU64,
    pub(crate) page_bytes: AtomicU64,
    pub(crate) device: AtomicU64,
    pub(crate) inode: AtomicU64,
    /// Nanoseconds since 1970, or 0 where the file system keeps no birth time.
    pub(crate) birth_ns: AtomicU64,
    pub(crate) boot_id: [AtomicU64; 2],
    pub(crate) history_id: [AtomicU64; 2],
    /// Tells one run of a writer from another; the doorbell carries it too.
    pub(crate) epoch: AtomicU64,
    /// For messages only.
    pub(crate) pid: AtomicU64,
    /// Of the process, in clock ticks since boot (field 22 of /proc/PID/stat).
    pub(crate) start_time: AtomicU64,
    spare: [AtomicU64; 3],
    pub(crate) state: AtomicU64,
    spare_state: [AtomicU64; 15],
    /// CLOCK_MONOTONIC in nanoseconds, stored about twice a second.
    pub(crate) heartbeat: AtomicU64,
    spare_heartbeat: [AtomicU64; 15],
    pub(crate) published: Extent,
    pub(crate) durable: Extent,
}

/// The doorbell: sleepers announce themselves in it; the writer only reads it.
#[repr(C, align(128))]
#[derive(Debug)]
pub(crate) struct Doorbell {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU64,
    pub(crate) epoch: AtomicU64,
    spare: [AtomicU64; 13],
    /// One more than the highest commit value that anyone was about to sleep on.
    pub(crate) announced: AtomicU64,
    spare_announced: [AtomicU64; 15],
}

const _: () = {
    assert!(offset_of!(ControlPage, magic) == 0);
    assert!(offset_of!(ControlPage, version) == 8);
    assert!(offset_of!(ControlPage, page_bytes) == 16);
    assert!(offset_of!(ControlPage, device) == 24);
    assert!(offset_of!(ControlPage, inode) == 32);
    assert!(offset_of!(ControlPage, birth_ns) == 40);
    assert!(offset_of!(ControlPage, boot_id) == 48);
    assert!(offset_of!(ControlPage, history_id) == 64);
    assert!(offset_of!(ControlPage, epoch) == 80);
    assert!(offset_of!(ControlPage, pid) == 88);
    assert!(offset_of!(ControlPage, start_time) == 96);
    assert!(offset_of!(ControlPage, state) == 128);
    assert!(offset_of!(ControlPage, heartbeat) == 256);
    assert!(offset_of!(ControlPage, published) == 384);
    assert!(offset_of!(ControlPage, durable) == 1536);
    assert!(size_of::<ControlPage>() == 2688);
    assert!(offset_of!(Extent, end) == 0);
    assert!(offset_of!(Extent, commit) == 8);
    assert!(offset_of!(Extent, slots) == 128);
    assert!(size_of::<Extent>() == 1152);
    assert!(offset_of!(Slot, segment) == 0);
    assert!(offset_of!(Slot, count) == 8);
    assert!(offset_of!(Slot, end) == 16);
    assert!(size_of::<Slot>() == 32);
    assert!(offset_of!(Doorbell, magic) == 0);
    assert!(offset_of!(Doorbell, version) == 8);
    assert!(offset_of!(Doorbell, epoch) == 16);
    assert!(offset_of!(Doorbell, announced) == 128);
    assert!(size_of::<Doorbell>() == 256);
    assert!(size_of::<ControlPage>() <= PAGE_BYTES as usize);
};
