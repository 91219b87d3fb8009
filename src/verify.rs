//! Walks a whole log, takes the checksums that its index has, and says what is wrong. Never changes anything.

use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result};
use crate::format::index::Entry;
use crate::format::log::{COUNT_OFFSET, HEADER_BYTES};
use crate::index::{Found, Index};
use crate::protocol::Pair;
use crate::reader::Reader;
use crate::scan::{self, Walk};
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
    /// What is to be said of the index. No record depends on it.
    pub index: IndexState,
    /// Records whose bytes were compared with a checksum of the index: all but the last block while a writer runs, all after a close.
    pub checked: u64,
}

/// The state of a log's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexState {
    /// It is there and every entry is sound.
    Ok,
    /// There is none, or it belongs to another file.
    Missing,
    /// Some of it is damaged; the next writer makes it anew.
    Damaged,
}

/// The first thing in a log that cannot be true.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// The record in which it lies, or the first of the block, where only the block's checksum tells.
    pub sequence: Option<u64>,
    /// The offset in the file, in bytes.
    pub position: u64,
    /// What is wrong.
    pub message: String,
}

impl Reader {
    /// Walks every record that is published now, and takes the checksums of the blocks that the index covers. `progress` is
    /// called every few megabytes, and ends the walk by returning `false`; the result then tells how far it came. Damage is a
    /// value here, not an error.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be read.
    pub fn verify(&self, mut progress: impl FnMut(Progress) -> bool) -> Result<Verification> {
        let opened = &self.opened;
        // A descriptor of its own: `progress` may read the log itself, and the one that is lent may be the only one.
        let file = opened.lend()?.try_clone();
        let file = file.map_err(|error| Error::io("open another descriptor of the log", &opened.path, error))?;
        let start = Pair { count: 0, end: HEADER_BYTES };
        // The index first: what it covers by now was published before the count is read.
        let error = |error| Error::io("read the index of", &opened.path, error);
        let (index, mut state) = match opened.find_index().map_err(error)? {
            Found::Ours(index) => (Some(index), IndexState::Ok),
            Found::Damaged => (None, IndexState::Damaged),
            Found::Missing | Found::Foreign => (None, IndexState::Missing),
        };
        let mut result = Verification { records: 0, end: HEADER_BYTES, problem: None, index: state, checked: 0 };
        let count = match opened.count_of(&file) {
            Ok(count) => count,
            Err(error) => {
                result.problem = Some(problem(error)?);
                return Ok(result);
            }
        };
        // The file may grow meanwhile; it is never shorter than the count that was read before its size.
        let file_bytes = file::metadata(&opened.path, &file)?.len();
        let mut check = Check { path: &opened.path, file: &file, count, checked: 0, failed: None };
        let mut walk = Walk::new(&opened.path, &file, start, file_bytes);
        let mut next_report = REPORT_BYTES;
        let mut goes_on = |walk: &Walk| {
            let is_due = walk.position >= next_report;
            next_report = if is_due { walk.position + REPORT_BYTES } else { next_report };
            !is_due || progress(Progress { records: walk.sequence, position: walk.position, file_bytes })
        };
        let mut outcome = Ok(true);
        if let Some(index) = &index {
            state = check.index(index, |check, entry| {
                // First the checksum, so that a size that lies is told as such and not as what it leads to.
                outcome = check.block(entry).and_then(|()| walk_to(&mut walk, entry.end().0.min(count), &mut goes_on));
                matches!(outcome, Ok(true)) && check.failed.is_none()
            })?;
        }
        if matches!(outcome, Ok(true)) && check.failed.is_none() {
            outcome = walk_to(&mut walk, count, &mut goes_on);
        }
        (result.records, result.end) = (walk.sequence, walk.position);
        (result.index, result.checked) = (state, check.checked);
        result.problem = match (check.failed, outcome) {
            (Some(problem), _) => Some(problem),
            (None, Err(error)) => Some(problem(error)?),
            (None, Ok(_)) => None,
        };
        Ok(result)
    }
}

/// Walks on to a record; `false` where it is to end before.
fn walk_to(walk: &mut Walk, sequence: u64, goes_on: &mut impl FnMut(&Walk) -> bool) -> Result<bool> {
    while walk.sequence < sequence {
        walk.step()?;
        if !goes_on(walk) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The comparison of a log with its index.
struct Check<'a> {
    path: &'a Path,
    file: &'a File,
    count: u64,
    checked: u64,
    failed: Option<Problem>,
}

impl Check<'_> {
    /// Hands every block that lies within the count to `each`, in order, until it returns `false`; tells whether all entries are sound.
    fn index(&mut self, index: &Index, mut each: impl FnMut(&mut Self, &Entry) -> bool) -> Result<IndexState> {
        // A writer that begins says so: without an entry it was cut.
        let (mut at, mut state) =
            ((0, HEADER_BYTES), if index.entries == 0 { IndexState::Damaged } else { IndexState::Ok });
        let (mut goes_on, mut durable) = (true, 0);
        let read = index.each(|_, entry| {
            let Some(entry) = entry else {
                state = IndexState::Damaged;
                return true;
            };
            if (entry.sequence, entry.position) != at {
                state = IndexState::Damaged;
            }
            at = entry.end();
            if entry.is_durable() && at.0 > durable {
                durable = at.0;
            }
            // Blocks beyond the count are of a log that was put back; those after a gap still say what they cover.
            if goes_on && entry.block().is_some() && at.0 <= self.count {
                goes_on = each(self, &entry);
            }
            true
        });
        read.map_err(|error| Error::io("read the index of", self.path, error))?;
        if self.count < durable && self.failed.is_none() {
            // No block tells, since those beyond the count are not looked at.
            let message = format!("the count says {} records, and {durable} were durable", self.count);
            self.failed = Some(Problem { sequence: None, position: COUNT_OFFSET, message });
        }
        Ok(state)
    }

    fn block(&mut self, entry: &Entry) -> Result<()> {
        let Some(block) = entry.block() else { return Ok(()) };
        let crc = scan::crc(self.file, entry.position, block.length);
        if crc.map_err(|error| Error::io_at("read the log", self.path, entry.position, error))? == Some(block.crc) {
            self.checked += block.records;
            return Ok(());
        }
        let last = entry.sequence + block.records - 1;
        let message = format!(
            "the bytes of records {} to {last} are not those that were appended: their checksum is another",
            entry.sequence
        );
        self.failed = Some(Problem { sequence: Some(entry.sequence), position: entry.position, message });
        Ok(())
    }
}

fn problem(error: Error) -> Result<Problem> {
    match error {
        Error::Damaged { sequence, position, message, .. } => Ok(Problem { sequence, position, message }),
        error => Err(error),
    }
}
