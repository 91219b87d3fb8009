//! What the next writer, holding the lock, does before it publishes: decides by evidence what the log holds (`examine`), cuts what
//! was not published, sets aside what was counted and cannot be kept (`aside`), and brings the index up to date.

mod aside;
mod examine;

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

pub(crate) use examine::{Findings, Verdict, examine};

use crate::control::LastPage;
use crate::error::{Error, Result};
use crate::format::index::{Block, Run};
use crate::format::log::{COUNT_OFFSET, HEADER_BYTES};
use crate::index::{self, IndexWriter};
use crate::protocol::Pair;
use crate::scan;
use crate::stat::{Discarded, Evidence, Recovery};
use crate::sys::file;
use crate::sys::origin::Origin;
use crate::units::MIB;

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
    if findings.failed && discarded.is_none() {
        // In the cache it looks clean, wherever it is mapped; written once more it reaches the disk, or the flush fails again.
        write_again(path, &file, findings.durable.end.min(pair.end), pair)?;
    }
    let is_other = discarded.is_some() || findings.index.is_none();
    let history_id = match findings.index.as_ref().filter(|_| !is_other) {
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
        // In place only where every entry stays true and the last run still tells how to judge the rest, so that a kill in the
        // midst changes no judgement. Otherwise by a new file, which takes the name when it is whole.
        let in_place = !is_other
            && evidence != Evidence::Unproven
            && findings.index.as_ref().is_some_and(|index| index.entries == findings.kept);
        let plan = Plan { history_id, in_place, is_flushed: evidence == Evidence::Closed };
        let index = bring_up(path, &file, &metadata, findings, pair, plan, wanted);
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
    let index_rebuilt = is_other && index.is_some() && pair.count > 0 && (had_index || discarded.is_none());
    let report = Recovery { evidence, cut_bytes: cut, discarded, index_rebuilt };
    Ok(Recovered { file, metadata, pair, durable, history_id, epoch: wanted.epoch, index, no_index, report })
}

/// How the index is brought up to date.
#[derive(Clone, Copy, Debug)]
struct Plan {
    history_id: [u64; 2],
    /// Or by a new file, which takes the name when it is whole.
    in_place: bool,
    /// All of its entries are on the disk.
    is_flushed: bool,
}

/// Writes once more what lies between a place and the end, and the count, and returns when it is on the disk.
fn write_again(path: &Path, file: &File, from: u64, pair: Pair) -> Result<()> {
    let error = |error| Error::io_at("write once more, since a flush had failed, the log", path, from, error);
    let mut piece = vec![0; MIB as usize];
    let mut at = from;
    while at < pair.end {
        let len = (pair.end - at).min(MIB) as usize;
        let read = file::read_at(file, &mut piece[..len], at).map_err(error)?;
        if read < len {
            return Err(error(io::ErrorKind::UnexpectedEof.into()));
        }
        file.write_all_at(&piece[..len], at).map_err(error)?;
        at += len as u64;
    }
    file.write_all_at(&pair.count.to_le_bytes(), COUNT_OFFSET).map_err(error)?;
    file::flush(file).map_err(error)
}

/// The index, covering all of the log, with the run that begins on the disk.
fn bring_up(
    path: &Path,
    file: &File,
    metadata: &Metadata,
    findings: Findings,
    pair: Pair,
    plan: Plan,
    wanted: Wanted,
) -> Result<IndexWriter> {
    let error = |error: io::Error| Error::io("write the index of", path, error);
    let Findings { index, kept, covered, time_ns, .. } = findings;
    let Plan { history_id, in_place, is_flushed } = plan;
    let mut writer = match index {
        Some(old) if in_place => IndexWriter::go_on(path, old, kept, covered, time_ns).map_err(error)?,
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
        // Where the dead writer's batches end is not known, so what it left is kept whole or not at all.
        let inner = in_place && end != pair;
        let block = Block { length, records: end.count - from.count, crc, inner, ..Block::default() };
        writer.block(block).map_err(error)
    })?;
    let Origin { boot_id, mount_id, namespace } = Origin::of(file);
    if wanted.ordered {
        // From now on the count is taken for durable, so what it counts already has to be.
        file::flush(file).map_err(|error| Error::io("flush the log to the disk", path, error))?;
    }
    if in_place && !is_flushed {
        // What proves the records so far, by this writer or the last one, must not reach the disk after a run by whose word the
        // count alone proves nothing.
        writer.flush().map_err(error)?;
    }
    let run = Run { boot_id, mount_id, namespace, epoch: wanted.epoch as u32, ordered: wanted.ordered };
    writer.run(run).map_err(error)?;
    // On the disk before anything is published: what comes after it is not taken for another program's.
    if in_place { writer.flush() } else { writer.install() }.map_err(error)?;
    Ok(writer)
}
