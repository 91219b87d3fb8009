//! What a log holds, by evidence. Nothing is changed in here.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::control::LastPage;
use crate::error::{Error, Result};
use crate::format::index::{Entry, Run, What};
use crate::format::log::{HEADER_BYTES, most_records};
use crate::index::{self, Found, Index, is_borne_out};
use crate::protocol::Pair;
use crate::scan::{self, Walk};
use crate::stat::Evidence;
use crate::sys::file::{self, Identity};
use crate::sys::origin::Origin;

/// Before the first record.
const START: Pair = Pair { count: 0, end: HEADER_BYTES };

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The records up to here stay; what lies behind was not published.
    Keep { pair: Pair, evidence: Evidence },
    /// More are counted, but only those up to here are proven.
    Discard { pair: Pair, evidence: Evidence, reason: String },
    /// It is damaged where it was durable, or nothing tells what of it is true. What could be kept ends at `prefix`.
    Refuse { error: Error, prefix: Pair, evidence: Evidence },
    /// It was acted upon.
    Done,
}

/// What an examination found.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) verdict: Verdict,
    /// What the number at offset 0 says.
    pub(crate) counted: u64,
    /// The index, if it is this log's, and how many entries of it stay true.
    pub(crate) index: Option<Index>,
    pub(crate) kept: u64,
    pub(crate) covered: Pair,
    pub(crate) time_ns: u64,
    pub(crate) durable: Pair,
    /// There was something under the index's name.
    pub(crate) had_index: bool,
    /// A flush has failed: what is in the cache may never have reached the disk, and looks clean.
    pub(crate) failed: bool,
}

/// Examines the log `file`, whose lock the caller holds; `thorough` takes all checksums, also where an opening writer need not.
pub(crate) fn examine(
    path: &Path,
    file: &File,
    metadata: &Metadata,
    page: LastPage,
    thorough: bool,
) -> Result<Findings> {
    let error = |error| Error::io("read the index of", path, error);
    let found = Index::find(&index::path_of(path), Identity::of(metadata), metadata.uid()).map_err(error)?;
    let had_index = !matches!(found, Found::Missing);
    let index = match found {
        Found::Ours(index) => Some(index),
        _ => None,
    };
    let chain = index.as_ref().map(Chain::of).transpose().map_err(error)?;
    let failed = page.failed || chain.as_ref().is_some_and(|chain| chain.failed);
    if failed {
        // The kernel has marked pages clean that never reached the disk. What nobody has mapped is read from the disk after this.
        let flushed = file::flush(file).and_then(|()| file::forget_cached(file));
        flushed.map_err(|error| Error::io("flush, before it is verified, the log", path, error))?;
    }
    let mut findings = Findings {
        verdict: Verdict::Done,
        counted: 0,
        index: None,
        kept: 0,
        covered: START,
        time_ns: 0,
        durable: START,
        had_index,
        failed,
    };
    findings.counted = match scan::stored_count(path, file) {
        Ok(counted) => counted,
        Err(error @ Error::Damaged { .. }) => {
            findings.verdict = Verdict::Refuse { error, prefix: START, evidence: Evidence::Unproven };
            return Ok(findings);
        }
        Err(error) => return Err(error),
    };
    let log = Log { path, file, file_bytes: metadata.len(), counted: findings.counted, thorough };
    let (Some(index), Some(chain)) = (index, chain) else {
        findings.verdict = log.without_index(page)?;
        return Ok(findings);
    };
    findings.durable = chain.durable;
    let (verdict, borne_out) = log.with_index(&index, &chain, failed)?;
    findings.verdict = verdict;
    let kept = Chain::up_to(&index, borne_out).map_err(error)?;
    (findings.kept, findings.covered, findings.time_ns) = (kept.entries, kept.covered, kept.time_ns);
    findings.index = Some(index);
    Ok(findings)
}

/// What the entries of an index say together.
#[derive(Debug)]
struct Chain {
    /// How many lead without a gap from the first on, and where they end.
    entries: u64,
    covered: Pair,
    time_ns: u64,
    /// The last of these that has records.
    last_block: Option<Entry>,
    /// Of all that are undamaged.
    durable: Pair,
    run: Option<Run>,
    /// Where the log was closed, if that is the last word.
    closed: Option<Pair>,
    failed: bool,
    /// Something was written where an entry ought to be, and is none: what it told is lost. A hole is no such thing: it was never written.
    damaged: bool,
}

impl Chain {
    fn of(index: &Index) -> std::io::Result<Chain> {
        Chain::up_to(index, Pair { count: u64::MAX, end: u64::MAX })
    }

    /// Of the entries that end at or before `most`.
    fn up_to(index: &Index, most: Pair) -> std::io::Result<Chain> {
        let mut chain = Chain {
            entries: 0,
            covered: START,
            time_ns: 0,
            last_block: None,
            durable: START,
            run: None,
            closed: None,
            failed: false,
            damaged: false,
        };
        let mut leads = true;
        index.each(|n, entry| {
            let Some(entry) = entry else {
                (leads, chain.closed) = (false, None);
                chain.damaged |= !index.is_hole(n).unwrap_or(false);
                return true;
            };
            let (count, end) = entry.end();
            let end = Pair { count, end };
            match entry.what {
                What::Run(run) => (chain.run, chain.closed, chain.failed) = (Some(run), None, false),
                What::Block(block) => {
                    chain.closed = block.closed.then_some(end);
                    chain.failed |= block.failed;
                    if block.durable && end.count >= chain.durable.count {
                        chain.durable = end;
                    }
                }
            }
            let begin = Pair { count: entry.sequence, end: entry.position };
            leads &= begin == chain.covered && end.count <= most.count && end.end <= most.end;
            if leads {
                (chain.entries, chain.covered, chain.time_ns) = (n + 1, end, entry.time_ns);
                chain.last_block = entry.block().map(|_| entry).or(chain.last_block);
            }
            true
        })?;
        Ok(chain)
    }
}

/// The log under examination.
struct Log<'a> {
    path: &'a Path,
    file: &'a File,
    file_bytes: u64,
    counted: u64,
    thorough: bool,
}

impl Log<'_> {
    fn without_index(&self, page: LastPage) -> Result<Verdict> {
        if self.file_bytes == 0 {
            return Ok(Verdict::Keep { pair: START, evidence: Evidence::New });
        }
        let evidence = if page.found && !page.failed { Evidence::ProcessCrash } else { Evidence::Unproven };
        let (pair, last_full, result) = self.walk(START, self.counted);
        let error = match result {
            Err(error) => error,
            Ok(()) if evidence == Evidence::Unproven && last_full.count < pair.count && self.file_bytes > pair.end => {
                self.only_empty(last_full)
            }
            Ok(()) => return Ok(Verdict::Keep { pair, evidence }),
        };
        let error = if self.counted > most_records(self.file_bytes) {
            scan::too_many(self.path, self.counted, self.file_bytes)
        } else {
            error
        };
        refuse(error, last_full, evidence)
    }

    /// The verdict, and up to where the index stays true.
    fn with_index(&self, index: &Index, chain: &Chain, failed: bool) -> Result<(Verdict, Pair)> {
        if self.thorough {
            let mut proven = START;
            match self.verify(index, chain, true, &mut proven)? {
                Verdict::Keep { .. } => {}
                // Where nothing contradicts the rest, how the last writer ended decides, as always.
                Verdict::Discard { pair, .. } if !self.is_damaged(index, pair)? => {}
                damaged => return Ok((damaged, proven)),
            }
        }
        let error = |error| Error::io_at("read the log", self.path, chain.covered.end, error);
        let is_borne_out = match &chain.last_block {
            Some(block) => is_borne_out(self.file, block).map_err(error)?,
            None => true,
        };
        let falls_short = self.counted < chain.durable.count;
        if let Some(closed) = chain.closed.filter(|closed| is_borne_out && *closed == chain.covered && !falls_short) {
            if self.counted == closed.count && self.file_bytes >= closed.end {
                return Ok((Verdict::Keep { pair: closed, evidence: Evidence::Closed }, closed));
            }
            if self.counted > closed.count {
                // Whoever wrote the rest did not keep the index up.
                return Ok((self.unproven(closed)?, closed));
            }
        }
        let here = Origin::of(self.file);
        let there = chain.run.map(|Run { boot_id, mount_id, namespace, .. }| Origin { boot_id, mount_id, namespace });
        let kept_cache = there.is_some_and(|there| here.has_kept_cache_since(&there));
        if kept_cache && !failed && is_borne_out && !falls_short && chain.covered.count <= self.counted {
            let evidence = Evidence::ProcessCrash;
            let verdict = match self.walk(chain.covered, self.counted) {
                (pair, _, Ok(())) => Verdict::Keep { pair, evidence },
                // Reserved zeros look like empty records.
                (_, prefix, Err(error)) => Verdict::Refuse { error, prefix, evidence },
            };
            return Ok((verdict, chain.covered));
        }
        // Where the system hides the boot, nothing tells of a crash of the machine.
        let crashed = failed || there.is_some_and(|there| here.can_be_compared_with(&there));
        let mut proven = START;
        let verdict = self.verify(index, chain, crashed, &mut proven)?;
        Ok((verdict, proven))
    }

    /// Of the records behind `proven` nothing tells but the walk.
    fn unproven(&self, proven: Pair) -> Result<Verdict> {
        let evidence = Evidence::Unproven;
        match self.walk(proven, self.counted) {
            (_, _, Err(error)) => refuse(error, proven, evidence),
            (pair, last_full, Ok(())) if last_full == proven && self.file_bytes > pair.end => {
                refuse(self.only_empty(proven), proven, evidence)
            }
            (pair, _, Ok(())) => Ok(Verdict::Keep { pair, evidence }),
        }
    }

    /// Takes the checksums, from the first block on; `borne_out` becomes the end of what they bear out. `crashed`: more than lack
    /// of knowledge speaks against the rest.
    fn verify(&self, index: &Index, chain: &Chain, crashed: bool, borne_out: &mut Pair) -> Result<Verdict> {
        let evidence = Evidence::Verified;
        // After a run that stored its count only when the records were durable, the count is as good as a checkpoint.
        let ordered = chain.run.is_some_and(|run| run.ordered);
        let durable = if ordered { self.counted.max(chain.durable.count) } else { chain.durable.count };
        // Up to where it is borne out with all batches whole.
        let mut whole = START;
        let mut outcome = Ok(true);
        let read = index.each(|_, entry| {
            let Some(entry) = entry.filter(|entry| entry.block().is_some()) else { return true };
            outcome = self.prove(borne_out, &entry, durable);
            if matches!(outcome, Ok(true)) && entry.block().is_some_and(|block| !block.inner) {
                whole = *borne_out;
            }
            matches!(outcome, Ok(true))
        });
        read.map_err(|error| Error::io("read the index of", self.path, error))?;
        outcome?;
        let mut proven = *borne_out;
        if self.counted < chain.durable.count {
            let message = format!(
                "the count says {} records, and {} were durable; if the log was put back on purpose, remove its index",
                self.counted, chain.durable.count
            );
            let error = Error::Damaged { path: self.path.to_owned(), sequence: None, position: 0, message };
            return refuse(error, proven, evidence);
        }
        if proven.count < chain.durable.count {
            // No entry, or a damaged one, for what was durable: the walk has to do, and has to end where it ended.
            match self.walk(proven, chain.durable.count) {
                (end, _, Ok(())) if end == chain.durable && !self.is_damaged(index, proven)? => proven = end,
                _ => return refuse(self.damaged(proven), proven, evidence),
            }
        }
        if proven.count >= self.counted {
            return Ok(Verdict::Keep { pair: proven, evidence });
        }
        if ordered {
            return match self.walk(proven, self.counted) {
                // It cannot be that a checksum says otherwise because the power failed.
                _ if self.is_damaged(index, proven)? => refuse(self.damaged(proven), proven, evidence),
                (pair, _, Ok(())) => Ok(Verdict::Keep { pair, evidence }),
                // Reserved zeros look like empty records.
                (_, last_full, Err(error)) => refuse(error, last_full, evidence),
            };
        }
        if (chain.damaged || chain.run.is_none() || !crashed) && !self.is_damaged(index, proven)? {
            // What would bear the rest out is lost with a part of the index, or cannot be told, and lack of proof discards nothing.
            return self.unproven(proven);
        }
        let kept = if whole.count < chain.durable.count { chain.durable } else { whole };
        if kept.count < borne_out.count {
            *borne_out = kept;
        }
        let lost = self.counted - kept.count;
        let reason =
            format!("no checksum bears out the last {lost} records, and nothing proves that they reached the disk");
        Ok(Verdict::Discard { pair: kept, evidence, reason })
    }

    /// Goes on with the proof by one block; `false` where it ends.
    fn prove(&self, proven: &mut Pair, entry: &Entry, durable: u64) -> Result<bool> {
        let begin = Pair { count: entry.sequence, end: entry.position };
        if begin != *proven {
            // Entries are missing in between. What was durable is believed if it leads to where this one begins.
            if begin.count > durable || begin.count > self.counted || begin.end < proven.end {
                return Ok(false);
            }
            match self.walk(*proven, begin.count) {
                (end, _, Ok(())) if end == begin => *proven = end,
                _ => return Ok(false),
            }
        }
        let Some(block) = entry.block() else { return Ok(true) };
        let crc = scan::crc(self.file, begin.end, block.length);
        if crc.map_err(|error| Error::io_at("read the log", self.path, begin.end, error))? != Some(block.crc) {
            return Ok(false);
        }
        let (count, end) = entry.end();
        if count <= self.counted {
            *proven = Pair { count, end };
            return Ok(true);
        }
        // The block is whole, and the count ends within it.
        *proven = self.walk(begin, self.counted).0;
        Ok(false)
    }

    /// Whether an entry contradicts the log at `at`: then it is not a lack of proof.
    fn is_damaged(&self, index: &Index, at: Pair) -> Result<bool> {
        let mut found = None;
        let read = index.each(|_, entry| {
            found = entry.filter(|entry| entry.block().is_some() && entry.sequence == at.count);
            found.is_none()
        });
        read.map_err(|error| Error::io("read the index of", self.path, error))?;
        Ok(found.is_some())
    }

    /// Walks from a place to a record, or to where the walk fails; and the end of the last record on the way that is not empty.
    fn walk(&self, from: Pair, to: u64) -> (Pair, Pair, Result<()>) {
        let mut walk = Walk::new(self.path, self.file, from, self.file_bytes);
        let mut last_full = from;
        while walk.sequence < to {
            match walk.step() {
                Ok(0) => {}
                Ok(_) => last_full = walk.pair(),
                Err(error) => return (walk.pair(), last_full, Err(error)),
            }
        }
        (walk.pair(), last_full, Ok(()))
    }

    fn damaged(&self, at: Pair) -> Error {
        let message = "the bytes from here on are not those that were flushed to the disk: their checksum is another; \
            `immuta repair` sets them aside and keeps what comes before"
            .to_owned();
        Error::Damaged { path: self.path.to_owned(), sequence: Some(at.count), position: at.end, message }
    }

    fn only_empty(&self, at: Pair) -> Error {
        let message = "all counted records from here on are empty, as zeros are that a power cut left, and nothing \
            bears them out; `immuta repair` sets them aside and keeps what comes before"
            .to_owned();
        Error::Damaged { path: self.path.to_owned(), sequence: Some(at.count), position: at.end, message }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the last word of functions that may fail")]
fn refuse(error: Error, prefix: Pair, evidence: Evidence) -> Result<Verdict> {
    Ok(Verdict::Refuse { error, prefix, evidence })
}
