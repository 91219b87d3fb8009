//! What can go wrong, said for people: what happened, to which file, at which position, what to do.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong with a log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{}: cannot {action}{}: {source}{}", path.display(), at(*position), remedy(source))]
    Io {
        /// What was being done, as a verb phrase: "open the log".
        action: &'static str,
        /// The file that it was done to.
        path: PathBuf,
        /// The byte of the file, where there is one.
        position: Option<u64>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is no file under this name.
    #[error("{}: no such log (a writer creates it; a follower can wait for it)", path.display())]
    NotFound {
        /// The name that was asked for.
        path: PathBuf,
    },
    /// There is something under this name that cannot be a log.
    #[error("{}: is {kind}, not a log (a log is an ordinary file)", path.display())]
    NotALog {
        /// The name that was asked for.
        path: PathBuf,
        /// What it is: "a directory", "a socket".
        kind: &'static str,
    },
    /// Another writer holds the log's lock.
    #[error("{}: another process holds the writer's lock ({}); a log has one writer at a time", path.display(), holder(*pid))]
    Locked {
        /// The log.
        path: PathBuf,
        /// The process that holds the lock, where the system tells.
        pid: Option<u32>,
    },
    /// The bytes of the file are not a log, or no longer one.
    #[error("{}: damaged at position {position}{}: {message}", path.display(), of_record(*sequence))]
    Damaged {
        /// The log.
        path: PathBuf,
        /// The record in which the damage lies, where it lies in one.
        sequence: Option<u64>,
        /// The offset in the file of the field that cannot be true.
        position: u64,
        /// What is wrong.
        message: String,
    },
    /// A record is larger than the reader was told to take.
    #[error("{}: record {sequence} at position {position} has {size} bytes, more than the {max} that this reader takes (raise max_record)", path.display())]
    TooLarge {
        /// The log.
        path: PathBuf,
        /// The record's sequence.
        sequence: u64,
        /// The record's position.
        position: u64,
        /// The payload's size in bytes.
        size: u64,
        /// What `max_record` allows, in bytes.
        max: u64,
    },
    /// The log was removed, or another file has taken its name, while it was followed; all that was readable has been delivered.
    #[error("{}: the log was removed or replaced by another file while it was followed", path.display())]
    Replaced {
        /// The log.
        path: PathBuf,
    },
    /// Nothing came in the time that was given.
    #[error("{}: nothing came within {after:?}", path.display())]
    TimedOut {
        /// The log.
        path: PathBuf,
        /// How long was waited.
        after: Duration,
    },
    /// A [`Stopper`](crate::Stopper) ended the work; nothing of it was published.
    #[error("{}: stopped before the record was complete; nothing of it was published", path.display())]
    Stopped {
        /// The log.
        path: PathBuf,
    },
    /// The source that was to be appended failed; nothing of it was published.
    #[error("{}: the source of the record failed, nothing of it was published: {source}", path.display())]
    Source {
        /// The log.
        path: PathBuf,
        /// What the source said.
        #[source]
        source: io::Error,
    },
    /// A flush failed earlier: what the kernel wrote of the log is unknown, so this writer publishes nothing more.
    #[error("{}: a flush to the disk failed earlier ({message}); this writer has ended, open the log anew", path.display())]
    Failed {
        /// The log.
        path: PathBuf,
        /// What the system said of the flush.
        message: String,
    },
    /// Only what is durable is wanted, and nothing tells what that is.
    #[error("{}: nothing tells which records are durable: {reason}", path.display())]
    DurableUnknown {
        /// The log.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A place in time is wanted, and nothing tells when records came.
    #[error("{}: nothing tells when its records came: it has no index that can be used (a writer that opens it makes one, for what comes then)", path.display())]
    NoTimes {
        /// The log.
        path: PathBuf,
    },
    /// The writer was inherited by a forked child. Only the process that opened a log may write to it.
    #[error("{}: this writer belongs to the parent process; a forked child must open its own log", path.display())]
    Forked {
        /// The log.
        path: PathBuf,
    },
}

impl Error {
    /// The file that the error is about.
    pub fn path(&self) -> &Path {
        match self {
            Error::Io { path, .. }
            | Error::NotFound { path }
            | Error::NotALog { path, .. }
            | Error::Locked { path, .. }
            | Error::Damaged { path, .. }
            | Error::TooLarge { path, .. }
            | Error::Replaced { path }
            | Error::TimedOut { path, .. }
            | Error::Stopped { path }
            | Error::Source { path, .. }
            | Error::Failed { path, .. }
            | Error::DurableUnknown { path, .. }
            | Error::NoTimes { path }
            | Error::Forked { path } => path,
        }
    }

    /// The offset in the file that the error is about, where there is one.
    pub fn position(&self) -> Option<u64> {
        match self {
            Error::Io { position, .. } => *position,
            Error::Damaged { position, .. } | Error::TooLarge { position, .. } => Some(*position),
            _ => None,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Error {
        Error::Io { action, path: path.to_owned(), position: None, source: source.into() }
    }

    pub(crate) fn io_at(action: &'static str, path: &Path, position: u64, source: impl Into<io::Error>) -> Error {
        Error::Io { action, path: path.to_owned(), position: Some(position), source: source.into() }
    }
}

fn at(position: Option<u64>) -> String {
    position.map(|p| format!(" at position {p}")).unwrap_or_default()
}

fn of_record(sequence: Option<u64>) -> String {
    sequence.map(|s| format!(" (record {s})")).unwrap_or_default()
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "its process id is hidden from here".to_owned(), |pid| format!("process {pid}"))
}

fn remedy(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::ENOSPC) => " (what was published is safe; free some space and append again)",
        Some(libc::EDQUOT) => " (the disk quota is used up; what was published is safe)",
        Some(libc::EFBIG) => " (the file size limit, ulimit -f, is reached; what was published is safe)",
        Some(libc::EMFILE) => " (no descriptors are left in this process; raise ulimit -n)",
        Some(libc::ENFILE) => " (no descriptors are left on this machine)",
        _ => "",
    }
}
