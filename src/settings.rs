//! What the user chose.

use std::time::Duration;

/// How a reader takes bytes from the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadMode {
    /// Through the mapping while there is a control page, through descriptors otherwise (the default). Where much is to be read it is
    /// made ready in steps, so that bytes which the file does not have, or the disk cannot read, are an error. What a writer has just
    /// written is touched at once, and so are records of more than 1 MiB. Somebody's truncation of those, or of what is just being
    /// read, ends the process with SIGBUS.
    /// On a file system of which nothing is known it is [`Pread`](ReadMode::Pread).
    #[default]
    Auto,
    /// The same, but all of it is touched at once.
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

/// When what is appended is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// By an explicit `sync` and at close alone. A power cut leaves a verified prefix.
    Buffered,
    /// Besides, by the helper thread, so that a power cut loses at most what was published within this time and one flush
    /// (the default, with 1 s). Less than 10 ms counts as 10 ms.
    Interval(Duration),
    /// Before it is published: an append returns, and a follower sees it, when it is durable. A batch costs what one append costs.
    Sync,
}

impl Default for Durability {
    fn default() -> Durability {
        Durability::Interval(Duration::from_secs(1))
    }
}

/// What the user chose.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) read_mode: ReadMode,
    pub(crate) wait_strategy: WaitStrategy,
    pub(crate) max_record: Option<u64>,
    /// Records are seen only once they are durable.
    pub(crate) durable: bool,
    pub(crate) window: u64,
}
