//! An opened log.
use crate::{Result, Start, Tailer};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How a reader takes bytes from the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadMode {
    /// Large steps through a descriptor where there is much to read, the mapping where there is little (the default).
    #[default]
    Auto,
    /// Only through the mapping. Somebody's truncation of the file ends the process with SIGBUS.
    Mapped,
    /// Only through descriptors: for a log that is not trusted.
    Pread,
}

/// What a tailer does while there is nothing to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Never sleeps: lowest latency, a core for itself.
    Spin,
    /// Spins for some microseconds, then sleeps (the default).
    #[default]
    SpinThenPark,
    /// Sleeps at once.
    Park,
}

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
    /// The writer had an I/O error while flushing, and has ended itself.
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

/// How to open a log for reading.
#[derive(Clone, Debug)]
pub struct ReaderOptions {}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl ReaderOptions {
    /// The defaults.
    pub fn new() -> Self {
        todo!()
    }
    /// The most descriptors that the reader holds (default 10, at least 1); its tailers share them.
    pub fn descriptors(&mut self, n: usize) -> &mut Self {
        let _ = n;
        self
    }
    /// How bytes are taken from the file (default [`ReadMode::Auto`]).
    pub fn read_mode(&mut self, mode: ReadMode) -> &mut Self {
        let _ = mode;
        self
    }
    /// What tailers do while there is nothing to read (default [`WaitStrategy::SpinThenPark`]).
    pub fn wait_strategy(&mut self, strategy: WaitStrategy) -> &mut Self {
        let _ = strategy;
        self
    }
    /// Waits this long for the log to appear (default: not at all).
    pub fn wait_for_log(&mut self, limit: Duration) -> &mut Self {
        let _ = limit;
        self
    }
    /// The largest payload that is taken, in bytes (default: 1 GiB for `get` and for reading without a mapping, no limit otherwise).
    pub fn max_record(&mut self, bytes: u64) -> &mut Self {
        let _ = bytes;
        self
    }
    /// Address space for the mapping, in bytes (default 64 GiB; halved when refused).
    pub fn window(&mut self, bytes: u64) -> &mut Self {
        let _ = bytes;
        self
    }
    /// The directory of the control page (default: `IMMUTA_CONTROL_DIR`, else `/dev/shm`).
    pub fn control_dir(&mut self, dir: impl Into<PathBuf>) -> &mut Self {
        let _ = dir.into();
        self
    }
    /// Opens the log.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Reader> {
        let _ = path;
        todo!()
    }
}

/// An opened log, from which any number of tailers may be taken. `Send` and `Sync`.
#[derive(Debug)]
pub struct Reader {}

impl Reader {
    /// Opens a log with the default options.
    pub fn open(path: impl AsRef<Path>) -> Result<Reader> {
        ReaderOptions::new().open(path)
    }
    /// A tailer that begins at `start`.
    pub fn tail(&self, start: impl Into<Start>) -> Result<Tailer> {
        let _ = start.into();
        todo!()
    }
    /// The payload of one record, or `None` at or beyond the count.
    pub fn get(&self, sequence: u64) -> Result<Option<Vec<u8>>> {
        let _ = sequence;
        todo!()
    }
    /// The log as it is now.
    pub fn stat(&self) -> Result<Stat> {
        todo!()
    }
    /// Who is writing.
    pub fn writer(&self) -> Result<WriterState> {
        todo!()
    }
}
