//! What the user of a reader chose.

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

/// What the user chose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) read_mode: ReadMode,
    pub(crate) wait_strategy: WaitStrategy,
    pub(crate) max_record: Option<u64>,
    pub(crate) window: u64,
}
