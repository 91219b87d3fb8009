//! Counted records that cannot be kept: a new file with those that can takes the log's name, and the bytes of the others go to a
//! side file. The old file is not touched, since readers may have it open. Killed anywhere, it begins again and ends alike.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::format::log::{COUNT_OFFSET, HEADER_BYTES};
use crate::index;
use crate::protocol::Pair;
use crate::sys::file::{self, read_at};
use crate::sys::locks;
use crate::units::MIB;

/// Names of the copies until they are whole.
const KEPT: &str = ".recovered";
const LOST: &str = ".lost.new";

/// Puts a new file with the records up to `pair` in the place of `old`, locked; returns it and the name of the side file.
pub(super) fn set_aside(path: &Path, old: &File, metadata: &Metadata, pair: Pair) -> Result<(File, PathBuf)> {
    copy_apart(path, old, metadata, pair).inspect_err(|_| {
        // Where the disk is full, half a copy should not take the last of it. What cannot be removed is so by the next attempt.
        for suffix in [KEPT, LOST] {
            let _ = std::fs::remove_file(index::beside(path, suffix));
        }
    })
}

fn copy_apart(path: &Path, old: &File, metadata: &Metadata, pair: Pair) -> Result<(File, PathBuf)> {
    let kept = index::beside(path, KEPT);
    let error = |error| Error::io("copy what can be kept of", path, error);
    let new = create(&kept, metadata).map_err(error)?;
    // Nobody else knows the file.
    if !locks::lock(&new, Duration::ZERO).map_err(error)? {
        return Err(Error::io("lock the copy of", path, ErrorKind::ResourceBusy));
    }
    // Of a file that is too short for a count, all bytes are set aside.
    let begin = if metadata.len() < HEADER_BYTES { 0 } else { pair.end };
    copy(old, &new, 0, begin).map_err(error)?;
    new.write_all_at(&pair.count.to_le_bytes(), COUNT_OFFSET).map_err(error)?;
    new.sync_all().map_err(error)?;

    let lost = lost_name(path, metadata);
    let error = |error| Error::io("set aside what cannot be kept of", path, error);
    let temporary = index::beside(path, LOST);
    let side = create(&temporary, metadata).map_err(error)?;
    copy(old, &side, begin, end_of_bytes(old, begin).map_err(error)?).map_err(error)?;
    side.sync_all().map_err(error)?;
    // The side file first: once the log's name is the new file's, the old one is gone.
    std::fs::rename(temporary, &lost).map_err(error)?;
    file::flush_directory_of(&lost).map_err(error)?;
    std::fs::rename(kept, index::real(path)).map_err(error)?;
    file::flush_directory_of(&lost).map_err(error)?;
    Ok((new, lost))
}

/// `LOG.lost-` and the time of the last change: the same however often a recovery is killed and begins again.
fn lost_name(path: &Path, metadata: &Metadata) -> PathBuf {
    index::beside(path, &format!(".lost-{}.{:09}", metadata.mtime(), metadata.mtime_nsec()))
}

fn create(path: &Path, like: &Metadata) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    file::own_like(&file, like)?;
    Ok(file)
}

fn copy(from: &File, to: &File, begin: u64, end: u64) -> io::Result<()> {
    let (mut source, mut target) = (from, to);
    let bytes = end.saturating_sub(begin);
    loop {
        source.seek(SeekFrom::Start(begin))?;
        target.seek(SeekFrom::Start(0))?;
        // In the kernel where it can, and sharing blocks where the file system can.
        match io::copy(&mut source.take(bytes), &mut target) {
            Ok(copied) if copied < bytes => return Err(ErrorKind::UnexpectedEof.into()),
            // By a signal. How much was copied is not told, so from the beginning.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}

/// The end of what is not zero at or beyond `from`: space that was reserved need not be kept.
fn end_of_bytes(file: &File, from: u64) -> io::Result<u64> {
    let mut end = file.metadata()?.len();
    let mut piece = vec![0; MIB as usize];
    while end > from {
        let at = end.saturating_sub(MIB).max(from);
        let bytes = &mut piece[..(end - at) as usize];
        let read = read_at(file, bytes, at)?;
        if let Some(last) = bytes[..read].iter().rposition(|byte| *byte != 0) {
            return Ok(at + last as u64 + 1);
        }
        end = at;
    }
    Ok(from)
}
