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
}
