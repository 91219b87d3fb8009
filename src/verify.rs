//! Walks a whole log and says what is wrong with it. Never changes anything.

use crate::error::{Error, Result};
use crate::format::log::HEADER_BYTES;
use crate::protocol::Pair;
use crate::reader::Reader;
use crate::scan::Walk;
use crate::sys::file;
use crate::units::MIB;

/// How many bytes lie between two reports of progress.
const REPORT_BYTES: u64 = 16 * MIB;

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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Walks every record that is published now. `progress` is called every few megabytes, and ends the walk by
    /// returning `false`; the result then tells how far it came. Damage is a value here, not an error.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be read.
    pub fn verify(&self, mut progress: impl FnMut(Progress) -> bool) -> Result<Verification> {
        let opened = &self.opened;
        let file = opened.lend()?;
        let file_bytes = file::metadata(&opened.path, &file)?.len();
        let start = Pair { count: 0, end: HEADER_BYTES };
        let result = |at: Pair, problem| Verification { records: at.count, end: at.end, problem };
        let count = match crate::scan::count(&opened.path, &file) {
            Ok(count) => count,
            Err(error) => return problem(error).map(|problem| result(start, Some(problem))),
        };
        // The file may have grown since its size was taken, but not below the count that was read after it.
        let limit = file::metadata(&opened.path, &file)?.len();
        let mut walk = Walk::new(&opened.path, &file, start, limit);
        let mut next_report = REPORT_BYTES;
        while walk.sequence < count {
            if let Err(error) = walk.step() {
                return problem(error).map(|problem| result(walk.pair(), Some(problem)));
            }
            if walk.position >= next_report {
                next_report = walk.position + REPORT_BYTES;
                if !progress(Progress { records: walk.sequence, position: walk.position, file_bytes }) {
                    break;
                }
            }
        }
        Ok(result(walk.pair(), None))
    }
}

fn problem(error: Error) -> Result<Problem> {
    match error {
        Error::Damaged { sequence, position, message, .. } => Ok(Problem { sequence, position, message }),
        error => Err(error),
    }
}
