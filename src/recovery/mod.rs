//! What the next writer, holding the lock, does before it publishes: decides by evidence what the log holds (`examine`), cuts what
//! was not published, sets aside what was counted and cannot be kept (`aside`), and brings the index up to date.

mod aside;
mod examine;

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

pub(crate) use examine::{Findings, Verdict, examine};

use crate::control::LastPage;
use crate::error::{Error, Result};
use crate::format::index::{Block, Run};
use crate::format::log::HEADER_BYTES;
use crate::index::{self, IndexWriter};
use crate::protocol::Pair;
use crate::scan;
use crate::stat::{Discarded, Evidence, Recovery};
use crate::sys::file;
use crate::sys::origin::Origin;

/// What is asked of a recovery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub(crate) index: bool,
    /// Where a recovery would refuse, goes on with what can be kept.
    pub(crate) repair: bool,
    /// Of the run that begins.
    pub(crate) epoch: u64,
    pub(crate) ordered: bool,
}

/// A log that can be appended to.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) file: Arc<File>,
    pub(crate) metadata: Metadata,
    pub(crate) pair: Pair,
    pub(crate) durable: Pair,
    pub(crate) history_id: [u64; 2],
    /// Of the run that begins.
    pub(crate) epoch: u64,
    /// `None` where none is wanted, or where it cannot be written: then with a reason.
    pub(crate) index: Option<IndexWriter>,
    pub(crate) no_index: Option<String>,
    pub(crate) report: Recovery,
}

/// Does what is to be done to the log `file`, whose lock the caller holds.
pub(crate) fn recover(
    path: &Path,
    mut file: Arc<File>,
    mut metadata: Metadata,
    page: LastPage,
    wanted: Wanted,
) -> Result<Recovered> {
    let mut findings = examine(path, &file, &metadata, page, wanted.repair)?;
    let (pair, evidence, cut, discard) = match std::mem::replace(&mut findings.verdict, Verdict::Done) {
        Verdict::Keep { pair, evidence } => (pair, evidence, metadata.len().saturating_sub(pair.end), None),
        Verdict::Discard { pair, evidence, reason } => (pair, evidence, 0, Some(reason)),
        Verdict::Refuse { error, prefix, evidence } if wanted.repair => (prefix, evidence, 0, Some(error.to_string())),
        Verdict::Refuse { error, .. } => return Err(error),
        Verdict::Done => unreachable!("an examination ends with a verdict"),
    };
    let mut discarded = None;
    if let Some(reason) = discard {
        let (new, lost) = aside::set_aside(path, &file, &metadata, pair)?;
        let records = findings.counted.saturating_sub(pair.count);
        discarded = Some(Discarded { records, position: pair.end, path: lost, reason });
        file = Arc::new(new);
    } else if cut > 0 && metadata.len() >= HEADER_BYTES {
        file.set_len(pair.end).map_err(|error| Error::io_at("cut the log to its end", path, pair.end, error))?;
    }
    metadata = file::metadata(path, &file)?;
    let is_new = discarded.is_some() || findings.index.is_none();
    let history_id = match findings.index.as_ref().filter(|_| !is_new) {
        Some(index) => index.header.history_id,
        None => file::random_words().map_err(|error| Error::io("read /dev/urandom for", path, error))?,
    };
    let (had_index, had_ours) = (findings.had_index, findings.index.is_some());
    let durable = Pair { count: findings.durable.count.min(pair.count), end: findings.durable.end.min(pair.end) };
    let user = nix::unistd::geteuid().as_raw();
    let (index, no_index) = if wanted.index && user != 0 && user != metadata.uid() {
        // Readers believe an index of the log's owner alone.
        (None, Some(format!("the log belongs to user {}, and this is user {user}", metadata.uid())))
    } else if wanted.index {
        let is_flushed = evidence == Evidence::Closed;
        let index = bring_up(path, &file, &metadata, findings, pair, history_id, is_new, is_flushed, wanted);
        match index.inspect_err(|_| index::abandon(path)) {
            Ok(index) => (Some(index), None),
            Err(Error::Io { source, .. }) => (None, Some(source.to_string())),
            Err(error) => return Err(error),
        }
    } else {
        (None, None)
    };
    if index.is_none() {
        // One that is not kept up must not be taken for the truth later.
        match index::remove(&index::path_of(path)) {
            // Another file's is not believed in any case; and records behind a clean close are taken without it.
            Err(_) if !had_ours || evidence == Evidence::Closed => {}
            removed => removed.map_err(|error| Error::io("remove the index of", path, error))?,
        }
    }
    let index_rebuilt = is_new && index.is_some() && pair.count > 0 && (had_index || discarded.is_none());
    let report = Recovery { evidence, cut_bytes: cut, discarded, index_rebuilt };
    Ok(Recovered { file, metadata, pair, durable, history_id, epoch: wanted.epoch, index, no_index, report })
}

/// The index, covering all of the log, with the run that begins on the disk.
#[expect(clippy::too_many_arguments, reason = "what the steps before found out; used once")]
fn bring_up(
    path: &Path,
    file: &File,
    metadata: &Metadata,
    findings: Findings,
    pair: Pair,
    history_id: [u64; 2],
    is_new: bool,
    is_flushed: bool,
    wanted: Wanted,
) -> Result<IndexWriter> {
    let error = |error: io::Error| Error::io("write the index of", path, error);
    let Findings { index, kept, covered, time_ns, .. } = findings;
    let mut writer = match index {
        Some(old) if !is_new => IndexWriter::go_on(path, old, kept, covered, time_ns).map_err(error)?,
        old => {
            let mut new = IndexWriter::create(path, metadata, history_id).map_err(error)?;
            if let Some(old) = old {
                new.adopt(&old, kept, covered, time_ns).map_err(error)?;
            }
            new
        }
    };
    let from = writer.covered();
    scan::cut_into_blocks(path, file, from, pair, |end| {
        let from = writer.covered();
        let length = end.end - from.end;
        let crc = scan::crc(file, from.end, length).map_err(error)?;
        let crc = crc.ok_or_else(|| error(io::ErrorKind::UnexpectedEof.into()))?;
        let block = Block { length, records: end.count - from.count, crc, ..Block::default() };
        writer.block(block).map_err(error)
    })?;
    let Origin { boot_id, mount_id, namespace } = Origin::of(file);
    if wanted.ordered {
        // From now on the count is taken for durable, so what it counts already has to be.
        file::flush(file).map_err(|error| Error::io("flush the log to the disk", path, error))?;
    }
    if !is_new && !is_flushed {
        // What proves the records so far must not reach the disk after a run by whose word the count alone proves nothing.
        writer.flush().map_err(error)?;
    }
    let run = Run { boot_id, mount_id, namespace, epoch: wanted.epoch as u32, ordered: wanted.ordered };
    writer.run(run).map_err(error)?;
    // On the disk before anything is published: what comes after it is not taken for another program's.
    if is_new { writer.install() } else { writer.flush() }.map_err(error)?;
    Ok(writer)
}
