//! Walks a whole log and says what is wrong with it. Never changes anything.
use crate::{Reader, Result};

/// How far a verification has come.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// Records walked so far.
    pub records: u64,
    /// The position reached, in bytes.
    pub position: u64,
    /// The size of the file in bytes, as it was when the walk began.
    pub file_bytes: u64,
}

/// What a verification found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verification {
    /// Records that were found whole.
    pub records: u64,
    /// The position behind the last of them, in bytes.
    pub end: u64,
    /// What is wrong, or `None` with a sound log.
    pub problem: Option<Problem>,
}

/// The first thing in a log that cannot be true.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Problem {
    /// The record in which it lies, where it lies in one.
    pub sequence: Option<u64>,
    /// The offset in the file, in bytes.
    pub position: u64,
    /// What is wrong.
    pub message: String,
}

impl Reader {
    /// Walks every record that is published now; `progress` is called every few megabytes and ends the walk early by returning `false`.
    /// Damage is a value, not an error; an error is a file that cannot be read.
    pub fn verify(&self, progress: impl FnMut(Progress) -> bool) -> Result<Verification> {
        let _ = progress;
        todo!()
    }
}
