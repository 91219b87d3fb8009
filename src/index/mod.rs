//! The index as a file: where it lies, whether it belongs to its log, finding places in it. In here nothing is written;
//! `writer` does that. No record depends on an index: where it is missing or damaged, the log is walked.

mod writer;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub(crate) use writer::{IndexWriter, abandon, remove};

use crate::format::index::{ENTRY_BYTES, Entry, Header};
use crate::format::log::{SIZE_BYTES, number_at};
use crate::protocol::Pair;
use crate::scan;
use crate::sys::file::{Identity, read_at};

/// Entries that are read at once where all of them are looked at.
const ENTRIES_AT_ONCE: u64 = 1024;

/// An index that belongs to its log.
#[derive(Debug)]
pub(crate) struct Index {
    file: File,
    pub(crate) header: Header,
    /// Whole entries, as of when it was opened.
    pub(crate) entries: u64,
}

/// What lies under the name of an index.
#[derive(Debug)]
pub(crate) enum Found {
    Missing,
    /// Of another file or another user, or out of reach: the log was copied, restored or replaced.
    Foreign,
    Damaged,
    Ours(Index),
}

/// The log itself, where its name is a link: side files lie beside the file.
pub(crate) fn real(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// The name of a side file of a log.
pub(crate) fn beside(log: &Path, suffix: &str) -> PathBuf {
    let mut name = real(log).into_os_string();
    name.push(suffix);
    name.into()
}

/// The name of the index of a log.
pub(crate) fn path_of(log: &Path) -> PathBuf {
    beside(log, ".idx")
}

impl Index {
    /// The index at `path`, of the log of this identity, which belongs to user `owner`.
    pub(crate) fn find(path: &Path, identity: Identity, owner: u32) -> io::Result<Found> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
        let file = match options.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Missing),
            // A link, a socket: nothing that a writer of this log has made.
            // Neither is one that this user may not read: whoever may make files beside the log must not keep its writer from starting.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENXIO | libc::EACCES)) => {
                return Ok(Found::Foreign);
            }
            Err(error) => return Err(error),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() || ![owner, 0].contains(&metadata.uid()) {
            return Ok(Found::Foreign);
        }
        let mut bytes = [0; ENTRY_BYTES as usize];
        // A header that was cut is none, even where what is missing is zero.
        let is_whole = read_at(&file, &mut bytes, 0)? == bytes.len();
        match Header::decode(&bytes).filter(|_| is_whole) {
            None => Ok(Found::Damaged),
            Some(header) if (header.inode, header.birth_ns) != (identity.inode, identity.birth_ns) => {
                Ok(Found::Foreign)
            }
            Some(header) => {
                let entries = (metadata.len() / ENTRY_BYTES).saturating_sub(1);
                Ok(Found::Ours(Index { file, header, entries }))
            }
        }
    }

    /// Entry `n`; `None` where it is damaged.
    fn entry(&self, n: u64) -> io::Result<Option<Entry>> {
        let mut bytes = [0; ENTRY_BYTES as usize];
        let read = read_at(&self.file, &mut bytes, (n + 1) * ENTRY_BYTES)?;
        Ok(if read == bytes.len() { Entry::decode(&bytes) } else { None })
    }

    /// Whether nothing was ever written in the place of entry `n`: a power cut leaves such places, damage does not.
    pub(crate) fn is_hole(&self, n: u64) -> io::Result<bool> {
        let mut bytes = [0; ENTRY_BYTES as usize];
        let read = read_at(&self.file, &mut bytes, (n + 1) * ENTRY_BYTES)?;
        Ok(bytes[..read].iter().all(|byte| *byte == 0))
    }

    /// Calls `each` with every entry from the first on, `None` for a damaged one, until it returns `false`.
    pub(crate) fn each(&self, mut each: impl FnMut(u64, Option<Entry>) -> bool) -> io::Result<()> {
        let mut buffer = vec![0; (ENTRIES_AT_ONCE * ENTRY_BYTES) as usize];
        let mut n = 0;
        while n < self.entries {
            let wanted = (self.entries - n).min(ENTRIES_AT_ONCE) * ENTRY_BYTES;
            let read = read_at(&self.file, &mut buffer[..wanted as usize], (n + 1) * ENTRY_BYTES)?;
            let whole = buffer[..read].as_chunks::<{ ENTRY_BYTES as usize }>().0;
            for bytes in whole {
                if !each(n, Entry::decode(bytes)) {
                    return Ok(());
                }
                n += 1;
            }
            if whole.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// How many entries come before the first for which `is_before` is false; `None` where one that was met is damaged.
    fn partition(&self, is_before: impl Fn(&Entry) -> bool) -> io::Result<Option<u64>> {
        let (mut low, mut high) = (0, self.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(middle)? {
                Some(entry) if is_before(&entry) => low = middle + 1,
                Some(_) => high = middle,
                None => return Ok(None),
            }
        }
        Ok(Some(low))
    }

    /// A place at or before record `sequence`, not far from it, checked against the log; `None` where the index is of no use.
    pub(crate) fn seek(&self, log: &File, sequence: u64) -> io::Result<Option<Pair>> {
        match self.partition(|entry| entry.sequence <= sequence)? {
            None | Some(0) => Ok(None),
            Some(n) => self.place(log, n - 1, |end| end <= sequence),
        }
    }

    /// The place of the first record that may have been published at `time_ns` or later, checked against the log; `None`
    /// where the index is of no use.
    pub(crate) fn seek_time(&self, log: &File, time_ns: u64) -> io::Result<Option<Pair>> {
        match self.partition(|entry| entry.time_ns < time_ns)? {
            Some(n) if n < self.entries => self.place(log, n, |_| false),
            Some(n) if n > 0 => self.place(log, n - 1, |_| true),
            _ => Ok(None),
        }
    }

    /// The end of entry `n`, where `takes_end` of that sequence, or else its beginning; `None` where the log does not bear it out.
    fn place(&self, log: &File, n: u64, takes_end: impl Fn(u64) -> bool) -> io::Result<Option<Pair>> {
        let Some(entry) = self.entry(n)? else { return Ok(None) };
        let end = entry.end();
        let (count, end) = if takes_end(end.0) { end } else { (entry.sequence, entry.position) };
        // The nearest records that bear it out: those of this entry, or of the last one before it that has any.
        for m in (0..=n).rev() {
            match self.entry(m)? {
                None => return Ok(None),
                // The entries in between have no records, so they lie where it ends.
                Some(before) if m < n && before.end() != (entry.sequence, entry.position) => return Ok(None),
                Some(before) if before.block().is_some() => {
                    return Ok(is_borne_out(log, &before)?.then_some(Pair { count, end }));
                }
                Some(_) => {}
            }
        }
        Ok((count == 0).then_some(Pair { count, end }))
    }

    /// The last checkpoint: how far the log was flushed.
    pub(crate) fn durable(&self) -> io::Result<Option<Pair>> {
        for n in (0..self.entries).rev() {
            if let Some(entry) = self.entry(n)?.filter(Entry::is_durable) {
                let (count, end) = entry.end();
                return Ok(Some(Pair { count, end }));
            }
        }
        Ok(None)
    }
}

/// Whether the log has what the entry says of it, where the entry has records. A block of one record may be large, so its size serves.
pub(crate) fn is_borne_out(log: &File, entry: &Entry) -> io::Result<bool> {
    let Some(block) = entry.block() else { return Ok(true) };
    if block.records == 1 {
        let mut size = [0; SIZE_BYTES as usize];
        let read = read_at(log, &mut size, entry.position)?;
        return Ok(read == size.len() && number_at(&size, 0) == Some(block.length - SIZE_BYTES));
    }
    Ok(scan::crc(log, entry.position, block.length)? == Some(block.crc))
}
