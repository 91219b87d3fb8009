//! What can be said of a log at one instant.

use std::path::PathBuf;

/// Who is writing to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriterState {
    /// A writer has the log open.
    Alive,
    /// The last writer closed the log.
    Closed,
    /// The last writer died without closing.
    Gone,
    /// The writer could not flush the log to the disk, and has ended itself.
    Failed,
}

/// What the last writer had left when this one opened the log, and what was done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Why the records are believed.
    pub evidence: Evidence,
    /// Bytes above the count that were cut: reserved space, and what was never published.
    pub cut_bytes: u64,
    /// Counted records that could not be kept.
    pub discarded: Option<Discarded>,
    /// The index was made anew from the log.
    pub index_rebuilt: bool,
}

/// Why the records of a log that was opened are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// There was nothing to be believed.
    New,
    /// The last writer closed the log.
    Closed,
    /// The process of the last writer died; the memory of the machine kept what it had published.
    ProcessCrash,
    /// The machine went down, the file system was mounted anew, or a flush had failed: checksums and the walk bear the records out.
    Verified,
    /// Nothing but the walk bears them out: there was no index, or another program has appended.
    Unproven,
}

/// Counted records that a recovery could not keep: set aside, not dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Discarded {
    /// How many records the log counted beyond those that were kept.
    pub records: u64,
    /// The position in the old log from which on its bytes were set aside.
    pub position: u64,
    /// The file with these bytes.
    pub path: PathBuf,
    /// What was wrong with them.
    pub reason: String,
}

/// A log at one instant.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stat {
    /// The name that the log was opened by.
    pub path: PathBuf,
    /// Records that are published.
    pub records: u64,
    /// The position behind the last of them, in bytes.
    pub end: u64,
    /// The size of the file in bytes: `end`, and what a writer has reserved beyond it.
    pub file_bytes: u64,
    /// Records that are known to survive a power cut; `None` while nothing tells.
    pub durable_records: Option<u64>,
    /// Who is writing.
    pub writer: WriterState,
    /// The writer's process, while it is alive and the system tells. For messages only.
    pub pid: Option<u32>,
    /// Changes when counted records were discarded or the index was lost, so that a stored sequence or position may mean
    /// another record; `None` where there is neither a control page nor an index.
    pub history_id: Option<u128>,
    /// What this writer found and did when it opened the log; `None` for a reader.
    pub recovery: Option<Recovery>,
}
