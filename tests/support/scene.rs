//! A log with its index and its control page as bytes, put back as a new log: what a writer left, as often as it is wanted. The
//! fields are where FORMAT.md has them.

use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

use super::Log;

/// The size of the index's header, and of an entry.
const ENTRY: usize = 64;
/// Of an entry, where it is a run.
const KIND: usize = 40;
const KIND_RUN: u8 = 2;

/// What lies around a log.
#[derive(Clone)]
pub struct Scene {
    pub log: Vec<u8>,
    pub index: Option<Vec<u8>>,
    page: Option<Vec<u8>>,
}

fn put(bytes: &mut [u8], at: usize, number: u64) {
    bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
}

fn seal(entry: &mut [u8]) {
    let crc = crc32c::crc32c(&entry[..60]);
    entry[60..].copy_from_slice(&crc.to_le_bytes());
}

impl Scene {
    pub fn of(log: &Log) -> Scene {
        let index = std::fs::read(log.path.with_extension("log.idx")).ok();
        Scene { log: log.bytes(), index, page: std::fs::read(log.page()).ok() }
    }

    /// The last writer ran before the machine was started.
    pub fn rebooted(mut self) -> Scene {
        let index = self.index.as_mut().expect("an index");
        let run = index.chunks_exact_mut(ENTRY).skip(1).rfind(|entry| entry[KIND] == KIND_RUN).expect("a run");
        put(run, 16, 1);
        seal(run);
        // It lies in memory.
        self.page = None;
        self
    }

    /// The entry of the last run is damaged, and the runs before it were before the machine was started.
    pub fn with_last_run_damaged(mut self) -> Scene {
        let index = self.index.as_mut().expect("an index");
        let mut runs: Vec<_> = index.chunks_exact_mut(ENTRY).skip(1).filter(|entry| entry[KIND] == KIND_RUN).collect();
        runs.pop().expect("a last run")[5] ^= 1;
        for run in runs {
            put(run, 16, 1);
            seal(run);
        }
        self
    }

    /// A bit of the index is another.
    pub fn with_index_flipped_at(mut self, byte: usize) -> Scene {
        self.index.as_mut().expect("an index")[byte] ^= 1;
        self
    }

    pub fn with_log_flipped_at(mut self, byte: usize) -> Scene {
        self.log[byte] ^= 1;
        self
    }

    pub fn without_index(mut self) -> Scene {
        self.index = None;
        self
    }

    pub fn without_page(mut self) -> Scene {
        self.page = None;
        self
    }

    /// A flush had failed, says the control page.
    pub fn failed(mut self) -> Scene {
        put(self.page.as_mut().expect("a page"), 128, 3);
        self
    }

    /// A new log that its writer left like this.
    pub fn restore(&self) -> Log {
        let log = Log::in_memory();
        std::fs::write(&log.path, &self.log).expect("the log");
        let metadata = std::fs::metadata(&log.path).expect("the log");
        let birth = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let birth_ns = birth.map_or(0, |birth| birth.as_nanos() as u64);
        if let Some(index) = &self.index {
            let mut index = index.clone();
            // One that was damaged stays so.
            let sound = index[60..64] == crc32c::crc32c(&index[..60]).to_le_bytes();
            put(&mut index, 32, metadata.ino());
            put(&mut index, 40, birth_ns);
            if sound {
                seal(&mut index[..ENTRY]);
            }
            std::fs::write(log.path.with_extension("log.idx"), index).expect("the index");
        }
        if let Some(page) = &self.page {
            let mut page = page.clone();
            [metadata.dev(), metadata.ino(), birth_ns]
                .into_iter()
                .enumerate()
                .for_each(|(n, id)| put(&mut page, 24 + n * 8, id));
            std::fs::write(log.page(), page).expect("the page");
        }
        log
    }
}
