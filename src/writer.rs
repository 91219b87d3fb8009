//! Appends to a log.
use crate::{Result, Stat, Stopper};
use std::io::Read;
use std::ops::{Deref, DerefMut, Range};
use std::path::{Path, PathBuf};

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// How many records come before it.
    pub sequence: u64,
    /// The offset of its size field in the log, in bytes.
    pub position: u64,
    /// The payload's size, in bytes.
    pub size: u64,
}

/// Something that a writer does without, and why. It works all the same, more slowly.
#[derive(Clone, Debug)]
pub struct Notice {}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let _ = f;
        todo!()
    }
}

/// How to open a log for appending.
#[derive(Clone, Debug)]
pub struct WriterOptions {}

impl Default for WriterOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl WriterOptions {
    /// The defaults.
    pub fn new() -> Self {
        todo!()
    }
    /// The rights of a log that is created (default 0666 without the umask's bits), set with fchmod.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        let _ = mode;
        self
    }
    /// The rights of the doorbell (default 0600). Who may write it can end the writer by truncating it: open it to a group at most.
    pub fn doorbell_mode(&mut self, mode: u32) -> &mut Self {
        let _ = mode;
        self
    }
    /// The directory of the control page and the doorbell (default: `IMMUTA_CONTROL_DIR`, else `/dev/shm`).
    pub fn control_dir(&mut self, dir: impl Into<PathBuf>) -> &mut Self {
        let _ = dir.into();
        self
    }
    /// Address space for the mapping, in bytes (default 64 GiB; halved when refused). A log may outgrow it.
    pub fn window(&mut self, bytes: u64) -> &mut Self {
        let _ = bytes;
        self
    }
    /// How much zeroed space is kept ready ahead of the end of a large log, in bytes (default 32 MiB); set, it is prepared at open.
    pub fn reserve(&mut self, bytes: u64) -> &mut Self {
        let _ = bytes;
        self
    }
    /// Appends through the mapping (default) or, with `false`, with pwrite, as is done where reserved space does not hold.
    pub fn mapped(&mut self, mapped: bool) -> &mut Self {
        let _ = mapped;
        self
    }
    /// Opens the log, and creates it where there is none.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Writer> {
        let _ = path;
        todo!()
    }
}

/// The one that appends. `Send`, not `Sync`. Dropping it closes the log, with errors unseen.
#[derive(Debug)]
pub struct Writer {}

impl Writer {
    /// Opens a log with the default options.
    pub fn open(path: impl AsRef<Path>) -> Result<Writer> {
        WriterOptions::new().open(path)
    }
    /// Appends a record and publishes it.
    pub fn append(&mut self, payload: &[u8]) -> Result<Appended> {
        let _ = payload;
        todo!()
    }
    /// Appends all that `source` gives as one record. A source that fails, or the [`stopper`](Writer::stopper), publishes nothing.
    pub fn append_from(&mut self, source: impl Read) -> Result<Appended> {
        let _ = source;
        todo!()
    }
    /// Space for a record of `size` bytes, zeroed, to be written in place.
    pub fn claim(&mut self, size: u64) -> Result<Claim<'_>> {
        let _ = size;
        todo!()
    }
    /// Records that become visible together.
    pub fn batch(&mut self) -> Batch<'_> {
        todo!()
    }
    /// Returns when all that is published is durable.
    pub fn sync(&mut self) -> Result<()> {
        todo!()
    }
    /// The log as it is now.
    pub fn stat(&self) -> Result<Stat> {
        todo!()
    }
    /// What ends an [`append_from`](Writer::append_from) midway.
    pub fn stopper(&self) -> Stopper {
        todo!()
    }
    /// What this writer does without, to be said once.
    pub fn notices(&self) -> &[Notice] {
        todo!()
    }
    /// Closes the log: cuts the file to its exact end, makes it durable, tells the followers.
    pub fn close(self) -> Result<()> {
        todo!()
    }
}

/// Space for one record, written in place. Dropping it abandons it.
#[derive(Debug)]
pub struct Claim<'a> {
    writer: &'a mut Writer,
}

impl Claim<'_> {
    /// Publishes the record.
    pub fn commit(self) -> Result<Appended> {
        let _ = self.writer;
        todo!()
    }
}
impl Deref for Claim<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        todo!()
    }
}
impl DerefMut for Claim<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        todo!()
    }
}

/// Records that become visible together. Dropping it rolls it back.
#[derive(Debug)]
pub struct Batch<'a> {
    writer: &'a mut Writer,
}

impl Batch<'_> {
    /// Adds a record; it is visible after [`commit`](Batch::commit).
    pub fn append(&mut self, payload: &[u8]) -> Result<Appended> {
        let _ = (payload, &self.writer);
        todo!()
    }
    /// Publishes all of them at once; returns their sequences.
    pub fn commit(self) -> Result<Range<u64>> {
        todo!()
    }
}
