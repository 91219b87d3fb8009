//! The explicit way on where a log is refused: keeps what can be kept, and sets the rest aside.

use std::path::{Path, PathBuf};

use super::options::{WriterOptions, last_page, open_locked};
use crate::control::Subject;
use crate::error::{Error, Result};
use crate::protocol::Pair;
use crate::recovery::{self, Verdict};
use crate::sys::{file, locks};

/// What a repair did, or would do.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Repair {
    /// What is wrong with the log; `None` with a sound one.
    pub problem: Option<String>,
    /// Records that stay.
    pub records: u64,
    /// The position behind the last of them, in bytes.
    pub end: u64,
    /// Counted records that do not stay.
    pub discarded_records: u64,
    /// Bytes that are set aside or, above the count, cut.
    pub discarded_bytes: u64,
    /// The side file with the bytes of counted records that did not stay; `None` where there are none, or nothing was done.
    pub side_file: Option<PathBuf>,
}

impl WriterOptions {
    /// Repairs the log, which nobody may be writing: records that nothing bears out go to a side file `LOG.lost-…`, a new file
    /// with the others takes the log's name, and what a dead writer had reserved is cut. With `dry_run` nothing is changed.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is no log, [`Error::Locked`] while a writer has it, [`Error::Io`] for what the system refuses.
    pub fn repair(&self, path: impl AsRef<Path>, dry_run: bool) -> Result<Repair> {
        let path = path.as_ref();
        // A repair creates no log.
        drop(file::open_to_read(path)?);
        if dry_run { self.look(path) } else { self.mend(path) }
    }

    fn look(&self, path: &Path) -> Result<Repair> {
        let (file, metadata) = open_locked(path, None)?;
        let page = last_page(path, &Subject::new(&metadata, self.control_dir.as_deref()))?;
        let findings = recovery::examine(path, &file, &metadata, page, true)?;
        locks::unlock(&file).map_err(|error| Error::io("unlock the log", path, error))?;
        let (Pair { count: records, end }, problem) = match findings.verdict {
            Verdict::Keep { pair, .. } => (pair, None),
            Verdict::Discard { pair, reason, .. } => (pair, Some(reason)),
            Verdict::Refuse { error, prefix, .. } => (prefix, Some(error.to_string())),
            Verdict::Done => unreachable!("an examination ends with a verdict"),
        };
        Ok(Repair {
            problem,
            records,
            end,
            discarded_records: findings.counted.saturating_sub(records),
            discarded_bytes: metadata.len().saturating_sub(end),
            side_file: None,
        })
    }

    fn mend(&self, path: &Path) -> Result<Repair> {
        let mut options = self.clone();
        options.repair = true;
        let file_bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let writer = options.open(path)?;
        let stat = writer.stat()?;
        writer.close()?;
        let discarded = stat.recovery.and_then(|recovery| recovery.discarded);
        Ok(Repair {
            problem: discarded.as_ref().map(|discarded| discarded.reason.clone()),
            records: stat.records,
            end: stat.end,
            discarded_records: discarded.as_ref().map_or(0, |discarded| discarded.records),
            discarded_bytes: file_bytes.saturating_sub(stat.end),
            side_file: discarded.map(|discarded| discarded.path),
        })
    }
}
