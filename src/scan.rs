//! Walking over records in a file, in large steps. Never repairs, never writes.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::fence;

use crate::chunk::{CHUNK_BYTES, Chunk};
use crate::error::{Error, Result};
use crate::format::index::BLOCK_BYTES;
use crate::format::log::{COUNT_OFFSET, HEADER_BYTES, SIZE_BYTES, most_records, next_position};
use crate::protocol::Pair;
use crate::sys::file::read_at;
use crate::sys::map::Mapping;
use crate::units::{GIB, KIB, PAGE};

/// The step where most of what is read would be skipped.
const CHUNK_LEAST: u64 = 4 * KIB;

/// The largest payload that is copied, unless told otherwise, in bytes.
pub(crate) const COPIED_MOST: u64 = GIB;

/// Reads of the count before it is looked at in another way.
const COUNT_READS_MOST: u32 = 16;

/// The number of records that a file says it has, and whether it can be so. A file without a byte has none.
pub(crate) fn count(path: &Path, file: &File) -> Result<u64> {
    count_in(path, file, false)
}

/// The same, through a mapping where it has to be and `trusted` says that nobody cuts the file to nothing meanwhile.
pub(crate) fn count_in(path: &Path, file: &File, trusted: bool) -> Result<u64> {
    let count = stored_count_in(path, file, trusted)?;
    let file_bytes = file.metadata().map_err(|error| Error::io_at("read the log", path, COUNT_OFFSET, error))?.len();
    if count > most_records(file_bytes) { Err(too_many(path, count, file_bytes)) } else { Ok(count) }
}

/// The number at offset 0, whether it can be so or not.
pub(crate) fn stored_count(path: &Path, file: &File) -> Result<u64> {
    stored_count_in(path, file, false)
}

fn stored_count_in(path: &Path, file: &File, trusted: bool) -> Result<u64> {
    let error = |error| Error::io_at("read the log", path, COUNT_OFFSET, error);
    let mut bytes = [0; HEADER_BYTES as usize];
    let mut read = || match read_at(file, &mut bytes, COUNT_OFFSET).map_err(error)? {
        // An empty file.
        0 => Ok(0),
        8 => Ok(u64::from_le_bytes(bytes)),
        n => {
            let message = format!("the file has {n} bytes, fewer than the 8 of the number of records");
            Err(Error::Damaged { path: path.to_owned(), sequence: None, position: 0, message })
        }
    };
    // Beside a writer of tiny records that never pauses, two reads are seldom alike. Where there is no mapping, more of them.
    loop {
        if let Some(count) = twice_alike(&mut read)? {
            return Ok(count);
        }
        if trusted && let Ok(header) = Mapping::read_only(file, COUNT_OFFSET, PAGE) {
            let count = header.first_word().load(Relaxed);
            fence(Acquire); // Pairs with the release store of the count in `Space::publish`.
            return Ok(count);
        }
    }
}

/// The error of a count that the file cannot hold.
#[cold]
pub(crate) fn too_many(path: &Path, count: u64, file_bytes: u64) -> Error {
    let message = format!("the count says {count} records, and a file of {file_bytes} bytes cannot hold so many");
    Error::Damaged { path: path.to_owned(), sequence: None, position: 0, message }
}

/// What `read` gives twice in a row: a read of a word that is being stored is not promised to be whole. `None` after many tries.
fn twice_alike(mut read: impl FnMut() -> Result<u64>) -> Result<Option<u64>> {
    let mut last = read()?;
    for _ in 1..COUNT_READS_MOST {
        let next = read()?;
        if next == last {
            return Ok(Some(last));
        }
        last = next;
    }
    Ok(None)
}

/// Goes from record to record.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    path: &'a Path,
    file: &'a File,
    chunk: Chunk,
    step: u64,
    limit: u64,
    /// Of the next record.
    pub(crate) sequence: u64,
    /// Of the next record.
    pub(crate) position: u64,
}

impl<'a> Walk<'a> {
    /// Begins at record `from.count`, which lies at `from.end`; nothing may reach beyond `limit`.
    pub(crate) fn new(path: &'a Path, file: &'a File, from: Pair, limit: u64) -> Walk<'a> {
        let (sequence, position) = (from.count, from.end);
        Walk { path, file, chunk: Chunk::default(), step: CHUNK_LEAST, limit, sequence, position }
    }

    /// Goes behind the next record and returns its payload's size.
    pub(crate) fn step(&mut self) -> Result<u64> {
        let size = match self.chunk.number(self.position) {
            Some(size) => size,
            None => self.refill()?,
        };
        match next_position(self.position, size).filter(|next| *next <= self.limit) {
            Some(next) => {
                self.position = next;
                self.sequence += 1;
                Ok(size)
            }
            None => Err(past_the_end(self.path, self.sequence, self.position, Some(size), self.limit)),
        }
    }

    /// Goes on to record `sequence`.
    pub(crate) fn go_to(&mut self, sequence: u64) -> Result<()> {
        while self.sequence < sequence {
            self.step()?;
        }
        Ok(())
    }

    pub(crate) fn pair(&self) -> Pair {
        Pair { count: self.sequence, end: self.position }
    }

    fn refill(&mut self) -> Result<u64> {
        // Large steps pay where the records follow each other in what was read, small ones where they jump beyond it.
        let follows = self.position < self.chunk.end() + SIZE_BYTES;
        self.step = if follows { (self.step * 4).min(CHUNK_BYTES) } else { CHUNK_LEAST };
        let filled = self.chunk.fill(self.file, self.position, self.step);
        filled.map_err(|error| Error::io_at("read the log", self.path, self.position, error))?;
        let cut_short =
            || past_the_end(self.path, self.sequence, self.position, None, self.chunk.end().min(self.limit));
        self.chunk.number(self.position).ok_or_else(cut_short)
    }
}

/// The error of a record that cannot be where it says.
#[cold]
pub(crate) fn past_the_end(path: &Path, sequence: u64, position: u64, size: Option<u64>, end: u64) -> Error {
    let message = match size {
        Some(size) => format!("a record of {size} bytes begins here, but the log ends at {end}"),
        None => format!("a record begins here, but the log ends at {end}, within its size field"),
    };
    Error::Damaged { path: path.to_owned(), sequence: Some(sequence), position, message }
}

/// Cuts the records between two places into blocks of [`BLOCK_BYTES`] or just above, and calls `each` with the end of each.
pub(crate) fn cut_into_blocks(
    path: &Path,
    file: &File,
    from: Pair,
    to: Pair,
    mut each: impl FnMut(Pair) -> Result<()>,
) -> Result<()> {
    let mut walk = Walk::new(path, file, from, to.end);
    let mut begin = from.end;
    while walk.sequence < to.count {
        walk.step()?;
        if walk.position - begin >= BLOCK_BYTES || walk.sequence == to.count {
            begin = walk.position;
            each(walk.pair())?;
        }
    }
    Ok(())
}

/// The CRC32C of a range; `None` where the file ends within it.
pub(crate) fn crc(file: &File, position: u64, length: u64) -> io::Result<Option<u32>> {
    let mut buffer = vec![0; length.min(CHUNK_BYTES) as usize];
    let (mut crc, mut done) = (0, 0);
    while done < length {
        let bytes = &mut buffer[..(length - done).min(CHUNK_BYTES) as usize];
        if read_at(file, bytes, position + done)? < bytes.len() {
            return Ok(None);
        }
        crc = crc32c::crc32c_append(crc, bytes);
        done += bytes.len() as u64;
    }
    Ok(Some(crc))
}

/// A copy of the payload of the record `at`, which lies below the end of the log.
pub(crate) fn copy(path: &Path, file: &File, at: Pair, size: u64, max: u64) -> Result<Vec<u8>> {
    let (sequence, position) = (at.count, at.end);
    let error = |error| Error::io_at("read the log", path, position, error);
    if size > max {
        return Err(Error::TooLarge { path: path.to_owned(), sequence, position, size, max });
    }
    let mut payload = Vec::new();
    let no_memory = |_| error(io::ErrorKind::OutOfMemory.into());
    payload.try_reserve_exact(size as usize).map_err(no_memory)?;
    payload.resize(size as usize, 0);
    let read = read_at(file, &mut payload, position + SIZE_BYTES).map_err(error)?;
    if (read as u64) < size {
        return Err(past_the_end(path, sequence, position, Some(size), position + SIZE_BYTES + read as u64));
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn walk_to_end(path: &Path, file: &File, count: u64) -> Result<Pair> {
        let mut walk = Walk::new(path, file, Pair { count: 0, end: HEADER_BYTES }, file.metadata().unwrap().len());
        walk.go_to(count)?;
        Ok(walk.pair())
    }

    fn log(sizes: &[u64]) -> (File, u64) {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&(sizes.len() as u64).to_le_bytes(), 0).unwrap();
        let mut position = HEADER_BYTES;
        for size in sizes {
            file.write_all_at(&size.to_le_bytes(), position).unwrap();
            position += SIZE_BYTES + size;
        }
        file.set_len(position).unwrap();
        (file, position)
    }

    #[test]
    fn a_walk_finds_every_record_small_and_large() {
        let path = Path::new("log");
        let sizes: Vec<u64> = (0..3000).map(|n| if n % 100 == 0 { 300_000 } else { n % 90 }).collect();
        let (file, end) = log(&sizes);
        assert_eq!(count(path, &file).unwrap(), 3000);
        assert_eq!(walk_to_end(path, &file, 3000).unwrap(), Pair { count: 3000, end });
        let mut walk = Walk::new(path, &file, Pair { count: 0, end: 8 }, end);
        for size in sizes {
            assert_eq!(walk.step().unwrap(), size);
        }
        assert!(matches!(walk.step(), Err(Error::Damaged { sequence: Some(3000), .. })));
    }

    #[test]
    fn a_count_that_never_stands_still_is_read_for_a_while_only() {
        let mut reads = 0;
        let moves = || {
            reads += 1;
            Ok(reads)
        };
        assert_eq!(twice_alike(moves).unwrap(), None);
        assert_eq!(reads, COUNT_READS_MOST.into());
        let mut given = [3, 4, 5, 5, 6].into_iter();
        assert_eq!(twice_alike(|| Ok(given.next().unwrap())).unwrap(), Some(5));
    }

    #[test]
    fn a_count_is_found_beside_a_writer_that_never_pauses() {
        let (file, end) = log(&[0; 1]);
        // So that each of these counts could be.
        file.set_len(end + (1 << 40)).unwrap();
        let words = Mapping::writable(&file, 0, PAGE).unwrap();
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut count = 1;
                while !done.load(Relaxed) {
                    count += 1;
                    words.first_word().store(count, std::sync::atomic::Ordering::Release);
                }
            });
            let counts: Vec<_> = (0..2000).map(|_| count_in(Path::new("log"), &file, true)).collect();
            done.store(true, Relaxed);
            assert!(counts.into_iter().map(Result::unwrap).is_sorted(), "it never falls");
        });
    }

    #[test]
    fn what_cannot_be_is_damage() {
        let path = Path::new("log");
        let (file, end) = log(&[5, 6]);
        file.set_len(end - 1).unwrap();
        assert!(matches!(walk_to_end(path, &file, 2), Err(Error::Damaged { sequence: Some(1), position: 21, .. })));
        file.write_all_at(&u64::MAX.to_le_bytes(), 0).unwrap();
        assert!(matches!(count(path, &file), Err(Error::Damaged { sequence: None, position: 0, .. })));
        file.set_len(7).unwrap();
        assert!(matches!(count(path, &file), Err(Error::Damaged { .. })));
        file.set_len(0).unwrap();
        assert_eq!(count(path, &file).unwrap(), 0);
    }
}
