//! Writing an index. Entries are kept in memory until there are some, or until they are asked for.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Index, beside, path_of};
use crate::format::index::{Block, Bytes, ENTRY_BYTES, Entry, Header, Run, What};
use crate::format::log::HEADER_BYTES;
use crate::protocol::Pair;
use crate::sys::file::{self, Identity};

/// Entries that are written at once, and the most that wait in memory.
const PENDING_MOST: usize = 64;

/// The name of a new index until it is whole.
const NEW: &str = ".idx.new";

/// The index of a log that is being written.
#[derive(Debug)]
pub(crate) struct IndexWriter {
    file: File,
    path: PathBuf,
    /// Where the next entry goes.
    at: u64,
    /// With room for all: the writer that assists does not allocate.
    pending: Vec<Bytes>,
    covered: Pair,
    time_ns: u64,
}

/// Nanoseconds since 1970.
fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

impl IndexWriter {
    /// A new index, not under its name yet.
    pub(crate) fn create(log: &Path, metadata: &Metadata, history_id: [u64; 2]) -> io::Result<IndexWriter> {
        let path = beside(log, NEW);
        let create = || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = create().or_else(|error| match error.kind() {
            // Only the holder of the writer's lock comes here: it is the leftover of one that was killed.
            ErrorKind::AlreadyExists => std::fs::remove_file(&path).and_then(|()| create()),
            _ => Err(error),
        })?;
        file::own_like(&file, metadata)?;
        let identity = Identity::of(metadata);
        let created_ns = now_ns();
        let header = Header { history_id, inode: identity.inode, birth_ns: identity.birth_ns, created_ns };
        file.write_all_at(&header.encode(), 0)?;
        let covered = Pair { count: 0, end: HEADER_BYTES };
        let pending = Vec::with_capacity(PENDING_MOST);
        Ok(IndexWriter { file, path: path_of(log), at: ENTRY_BYTES, pending, covered, time_ns: 0 })
    }

    /// Puts a new index under its name.
    pub(crate) fn install(&mut self) -> io::Result<()> {
        self.flush()?;
        let mut new = self.path.clone().into_os_string();
        new.push(".new");
        std::fs::rename(new, &self.path)?;
        file::flush_directory_of(&self.path)
    }

    /// Goes on with an index behind its first `kept` entries, of which the last ends at `covered`.
    pub(crate) fn go_on(log: &Path, index: Index, kept: u64, covered: Pair, time_ns: u64) -> io::Result<IndexWriter> {
        let path = path_of(log);
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(&path)?;
        if Identity::of(&file.metadata()?) != Identity::of(&index.file.metadata()?) {
            return Err(ErrorKind::StaleNetworkFileHandle.into());
        }
        let at = (kept + 1) * ENTRY_BYTES;
        if file.metadata()?.len() != at {
            file.set_len(at)?;
        }
        Ok(IndexWriter { file, path, at, pending: Vec::with_capacity(PENDING_MOST), covered, time_ns })
    }

    /// Takes over the first `kept` entries of another index, of which the last ends at `covered`.
    pub(crate) fn adopt(&mut self, index: &Index, kept: u64, covered: Pair, time_ns: u64) -> io::Result<()> {
        let mut written = Ok(());
        index.each(|n, entry| {
            let Some(entry) = entry.filter(|_| n < kept) else { return false };
            self.pending.push(entry.encode());
            if self.pending.len() >= PENDING_MOST {
                written = self.write();
            }
            written.is_ok()
        })?;
        written?;
        (self.covered, self.time_ns) = (covered, time_ns);
        self.write()
    }

    /// How far it covers the log, with what has not been written yet.
    pub(crate) fn covered(&self) -> Pair {
        self.covered
    }

    /// Adds a block that begins where the last one ended.
    pub(crate) fn block(&mut self, block: Block) -> io::Result<()> {
        self.add(What::Block(block))
    }

    /// Says that a writer begins.
    pub(crate) fn run(&mut self, run: Run) -> io::Result<()> {
        self.add(What::Run(run))
    }

    fn add(&mut self, what: What) -> io::Result<()> {
        // The clock may be set back; the times in an index are searched, so they never fall.
        self.time_ns = self.time_ns.max(now_ns());
        let Pair { count: sequence, end: position } = self.covered;
        let entry = Entry { sequence, position, time_ns: self.time_ns, what };
        let (count, end) = entry.end();
        self.covered = Pair { count, end };
        self.pending.push(entry.encode());
        if self.pending.len() >= PENDING_MOST { self.write() } else { Ok(()) }
    }

    /// Writes what is in memory.
    pub(crate) fn write(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.file.write_all_at(self.pending.as_flattened(), self.at)?;
            self.at += self.pending.len() as u64 * ENTRY_BYTES;
            self.pending.clear();
        }
        Ok(())
    }

    /// Writes what is in memory, and returns when it is on the disk.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.write()?;
        file::flush(&self.file)
    }

    /// Takes the index away: what cannot be written must not be taken for the truth by a recovery. Without an index nothing is
    /// discarded. Through the descriptor, which needs no space, no right to the directory, and meets no other log's index.
    pub(crate) fn give_up(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        file::flush(&self.file)?;
        if file::names(&self.path, Identity::of(&self.file.metadata()?)).unwrap_or(false) {
            // An empty file serves as well.
            let _ = std::fs::remove_file(&self.path);
        }
        Ok(())
    }
}

/// Removes what a failed attempt has left of a new index of this log, so that it takes no space.
pub(crate) fn abandon(log: &Path) {
    let _ = std::fs::remove_file(beside(log, NEW)); // The next attempt removes it, too.
}

/// Removes an index, for good.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => file::flush_directory_of(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // An empty one serves as well, where the directory may not be written and the file may.
        Err(error) => empty(path).map_err(|_| error),
    }
}

fn empty(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    file.set_len(0)?;
    file::flush(&file)
}
