//! Who writes a log: the exclusive flock, and an open-file-description lock on one byte that readers can ask about.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use fs2::FileExt;
use nix::fcntl::{FcntlArg, fcntl};

use crate::sys::file::Identity;

/// The byte that a writer holds a write lock on (FORMAT.md): beyond any file, so that no other use of locks meets it.
pub(crate) const WRITER_BYTE: i64 = i64::MAX - 1;

fn writer_byte(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: WRITER_BYTE, l_len: 1, l_pid: 0 }
}

/// Takes both locks, for as long as the file is open; `false` where somebody else has one for longer than `patience`.
pub(crate) fn lock(file: &File, patience: Duration) -> io::Result<bool> {
    let begin = Instant::now();
    loop {
        if try_lock(file)? {
            return Ok(true);
        }
        if begin.elapsed() >= patience {
            return Ok(false);
        }
        // There is nothing to wait for that would also end after the given time.
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn try_lock(file: &File) -> io::Result<bool> {
    match uninterrupted(|| FileExt::try_lock_exclusive(file)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => return Ok(false),
        Err(error) => return Err(error),
    }
    match uninterrupted(|| fcntl(file, FcntlArg::F_OFD_SETLK(&writer_byte(libc::F_WRLCK)))) {
        Ok(_) => Ok(true),
        Err(error) => {
            FileExt::unlock(file)?;
            let is_taken = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES));
            if is_taken { Ok(false) } else { Err(error) }
        }
    }
}

/// Gives both locks back. Never in a forked child: it would take them from the parent.
pub(crate) fn unlock(file: &File) -> io::Result<()> {
    uninterrupted(|| fcntl(file, FcntlArg::F_OFD_SETLK(&writer_byte(libc::F_UNLCK))))?;
    uninterrupted(|| FileExt::unlock(file))
}

/// Makes a call again as long as a signal ends it. None of these waits, but a file system may.
fn uninterrupted<T, E: Into<io::Error>>(mut call: impl FnMut() -> Result<T, E>) -> io::Result<T> {
    loop {
        match call().map_err(Into::into) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Whether a writer holds its lock. Takes nothing, and works on a descriptor opened read-only, of any user.
pub(crate) fn is_locked(file: &File) -> io::Result<bool> {
    // Asked as a reader: another reader's lock on the byte does not look like a writer's.
    let mut found = writer_byte(libc::F_RDLCK);
    uninterrupted(|| fcntl(file, FcntlArg::F_OFD_GETLK(&mut found)))?;
    Ok(found.l_type as i32 != libc::F_UNLCK)
}

/// The device and inode of every file that a writer's lock is held on, as /proc/locks has them.
pub(crate) fn written() -> io::Result<Vec<(u64, u64)>> {
    let locks = std::fs::read_to_string("/proc/locks")?;
    let byte = WRITER_BYTE.to_string();
    let of_line = |line: &str| {
        // "1: OFDLCK ADVISORY  WRITE -1 fe:00:5678 9223372036854775806 9223372036854775806"
        let [_, "OFDLCK", _, "WRITE", _, file, from, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            return None;
        };
        let [major, minor, inode] = file.split(':').collect::<Vec<_>>()[..] else { return None };
        let hex = |digits| u32::from_str_radix(digits, 16).ok();
        (from == byte).then_some((libc::makedev(hex(major)?, hex(minor)?), inode.parse().ok()?))
    };
    Ok(locks.lines().filter_map(of_line).collect())
}

/// The process that holds the flock, where /proc/locks tells. For messages only.
pub(crate) fn holder(identity: Identity) -> Option<u32> {
    let (major, minor) = (libc::major(identity.device), libc::minor(identity.device));
    let file = format!("{major:02x}:{minor:02x}:{}", identity.inode);
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    // "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"; a waiter's line has "->" behind its number.
    let line = locks
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|line| matches!(line[..], [_, "FLOCK", _, _, _, on, ..] if on == file))?;
    line.get(4)?.parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_at_a_time_and_anyone_may_ask() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (a, b) = (file.reopen().unwrap(), file.reopen().unwrap());
        let asks = File::open(file.path()).unwrap();
        assert!(!is_locked(&asks).unwrap());
        assert!(lock(&a, Duration::ZERO).unwrap());
        assert!(is_locked(&asks).unwrap());
        assert!(!lock(&b, Duration::from_millis(20)).unwrap());
        let identity = Identity::of(&asks.metadata().unwrap());
        assert_eq!(holder(identity), Some(std::process::id()));
        assert!(written().unwrap().contains(&(identity.device, identity.inode)));
        unlock(&a).unwrap();
        assert!(!is_locked(&asks).unwrap());
        assert!(lock(&b, Duration::ZERO).unwrap());
        drop(b);
        assert!(!is_locked(&asks).unwrap());
    }
}
