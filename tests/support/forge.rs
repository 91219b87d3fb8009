//! The bytes of a log and of its index, kept, put back and forged: by the layout in FORMAT.md, and not by the library.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

use super::Log;

/// The size of the index's header, and of an entry.
pub const ENTRY: usize = 64;
/// Flags of a block.
pub const DURABLE: u32 = 1 << 8;
pub const CLOSED: u32 = 1 << 9;
pub const FAILED: u32 = 1 << 10;

/// An entry, as far as tests look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub sequence: u64,
    pub position: u64,
    /// Of a block; 0 of a run.
    pub length: u64,
    pub records: u64,
    pub time_ns: u64,
    /// 1 a block, 2 a run, and flags.
    pub kind: u32,
}

impl Entry {
    pub fn is_run(&self) -> bool {
        self.kind & 0xff == 2
    }

    pub fn is(&self, flag: u32) -> bool {
        !self.is_run() && self.kind & flag != 0
    }

    pub fn end(&self) -> (u64, u64) {
        (self.sequence + self.records, self.position + self.length)
    }
}

/// The bytes of a log and of its index at one instant.
#[derive(Clone, Debug)]
pub struct Image {
    pub log: Vec<u8>,
    pub index: Vec<u8>,
}

/// The name of the index.
pub fn index_path(log: &Log) -> PathBuf {
    let mut name = log.path.clone().into_os_string();
    name.push(".idx");
    name.into()
}

impl Image {
    pub fn take(log: &Log) -> Image {
        Image { log: log.bytes(), index: std::fs::read(index_path(log)).expect("the index") }
    }

    /// Puts both back, and nothing else: no control page is left, as after a start of the machine.
    pub fn put(&self, log: &Log) {
        std::fs::write(&log.path, &self.log).expect("the log's bytes");
        let mut index = self.index.clone();
        belongs_to(&mut index, log);
        std::fs::write(index_path(log), index).expect("the index's bytes");
        forget_pages(log);
    }

    pub fn count(&self) -> u64 {
        number(&self.log, 0)
    }

    pub fn set_count(&mut self, count: u64) {
        self.log[..8].copy_from_slice(&count.to_le_bytes());
    }

    /// As if the machine had been started anew since: every run is of another boot.
    pub fn of_another_boot(mut self) -> Image {
        for n in 0..self.entries().len() {
            if self.entries()[n].is_run() {
                self.edit(n, |entry| entry[16] ^= 0xff);
            }
        }
        self
    }

    pub fn entries(&self) -> Vec<Entry> {
        entries(&self.index)
    }

    /// Changes entry `n`, which stays a sound one.
    pub fn edit(&mut self, n: usize, change: impl FnOnce(&mut [u8])) {
        let entry = &mut self.index[(n + 1) * ENTRY..][..ENTRY];
        change(entry);
        seal(entry);
    }

    /// Without the entries from `n` on.
    pub fn cut_entries(&mut self, n: usize) {
        self.index.truncate((n + 1) * ENTRY);
    }
}

/// Takes all control pages away.
pub fn forget_pages(log: &Log) {
    for entry in std::fs::read_dir(&log.control).into_iter().flatten().flatten() {
        let _ = std::fs::remove_file(entry.path());
    }
}

/// Makes the header name this log's inode, if it is a header.
fn belongs_to(index: &mut [u8], log: &Log) {
    let Some(header) = index.get_mut(..ENTRY).filter(|header| is_sealed(header)) else { return };
    let [_, inode, birth_ns] = identity(log);
    header[32..40].copy_from_slice(&inode.to_le_bytes());
    header[40..48].copy_from_slice(&birth_ns.to_le_bytes());
    seal(header);
}

/// Puts a control page and its doorbell under their names, as those of this log.
pub fn put_page(log: &Log, page: &[u8], bell: &[u8]) {
    let mut page = page.to_vec();
    for (at, number) in [24, 32, 40].into_iter().zip(identity(log)) {
        page[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    std::fs::write(log.page(), page).expect("the control page");
    std::fs::write(log.bell(), bell).expect("the doorbell");
}

/// Device, inode, and time of birth.
fn identity(log: &Log) -> [u64; 3] {
    let metadata = std::fs::metadata(&log.path).expect("the log's identity");
    let birth = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    [metadata.dev(), metadata.ino(), birth.map_or(0, |age| age.as_nanos() as u64)]
}

pub fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn is_sealed(entry: &[u8]) -> bool {
    entry[60..] == crc32c::crc32c(&entry[..60]).to_le_bytes()
}

/// Gives an entry, or a header, the checksum of what it says.
pub fn seal(entry: &mut [u8]) {
    let crc = crc32c::crc32c(&entry[..60]);
    entry[60..].copy_from_slice(&crc.to_le_bytes());
}

/// The entries of an index, every one of which must be whole.
pub fn entries(index: &[u8]) -> Vec<Entry> {
    assert!(index.len().is_multiple_of(ENTRY) && index.starts_with(b"immutaIX"), "an index");
    index
        .chunks(ENTRY)
        .skip(1)
        .map(|bytes| {
            assert!(is_sealed(bytes), "an entry has its checksum");
            let kind = u32::from_le_bytes(bytes[40..44].try_into().expect("four bytes"));
            let block = |at| if kind & 0xff == 1 { number(bytes, at) } else { 0 };
            let (sequence, position, time_ns) = (number(bytes, 0), number(bytes, 8), number(bytes, 32));
            Entry { sequence, position, length: block(16), records: block(24), time_ns, kind }
        })
        .collect()
}
