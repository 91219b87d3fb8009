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
        let mut at = Pair { count: 0, end: HEADER_BYTES };
        let result = |at: Pair, problem| Verification { records: at.count, end: at.end, problem };
        let (file_bytes, count, limit) = {
            let file = opened.lend()?;
            let file_bytes = file::metadata(&opened.path, &file)?.len();
            let count = match opened.count_of(&file) {
                Ok(count) => count,
                Err(error) => return problem(error).map(|problem| result(at, Some(problem))),
            };
            // The file may have grown since its size was taken, but not below the count that was read after it.
            (file_bytes, count, file::metadata(&opened.path, &file)?.len())
        };
        while at.count < count {
            // A descriptor for one stretch: `progress` may read the log itself, and this may be the only one.
            let file = opened.lend()?;
            let mut walk = Walk::new(&opened.path, &file, at, limit);
            let next_report = at.end + REPORT_BYTES;
            while walk.sequence < count && walk.position < next_report {
                if let Err(error) = walk.step() {
                    return problem(error).map(|problem| result(walk.pair(), Some(problem)));
                }
            }
            at = walk.pair();
            drop(file);
            let so_far = Progress { records: at.count, position: at.end, file_bytes };
            if at.end >= next_report && !progress(so_far) {
                break;
            }
        }
        Ok(result(at, None))
    }
}

fn problem(error: Error) -> Result<Problem> {
    match error {
        Error::Damaged { sequence, position, message, .. } => Ok(Problem { sequence, position, message }),
        error => Err(error),
    }
}
