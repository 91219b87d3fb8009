//! Opening files, telling them apart, reading, growing and cutting them.

use std::collections::HashSet;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::UNIX_EPOCH;

use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::{self, FsType, fstatfs};
use nix::sys::statvfs::fstatvfs;

use crate::error::{Error, Result};
use crate::units::{LARGE_PAGE, PAGE, round_down};

/// What tells a file from every other on this machine: ext4 gives a deleted file's inode number to the next, but not its birth time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Nanoseconds since 1970, or 0 where the file system keeps no birth time.
    pub(crate) birth_ns: u64,
}

impl Identity {
    pub(crate) fn of(metadata: &Metadata) -> Identity {
        let birth = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let birth_ns = birth.map_or(0, |age| age.as_nanos() as u64);
        Identity { device: metadata.dev(), inode: metadata.ino(), birth_ns }
    }
}

/// The name that leads to the same file after the process has gone to another directory.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    // Without a current directory a relative name leads nowhere, now and later.
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Opens an existing log for reading.
pub(crate) fn open_to_read(path: &Path) -> Result<(File, Metadata)> {
    match open_plainly(path) {
        Ok(file) => checked(path, file),
        Err(error) => Err(open_error(path, error)),
    }
}

/// Opens whatever has the name, for reading.
pub(crate) fn open_plainly(path: &Path) -> io::Result<File> {
    // O_NONBLOCK: a pipe under this name must not hang the caller. It means nothing to an ordinary file.
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// Opens a log for writing, and creates it where there is none; tells whether it did.
pub(crate) fn open_to_write(path: &Path, mode: Option<u32>) -> Result<(File, Metadata, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    loop {
        match options.open(path) {
            Ok(file) => return checked(path, file).map(|(file, metadata)| (file, metadata, false)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(open_error(path, error)),
        }
        // With the mode at once, since whoever opens it in between keeps it open; umask may still take bits away.
        match options.clone().create_new(true).mode(mode.unwrap_or(0o666)).open(path) {
            Ok(file) => {
                if let Some(mode) = mode {
                    file.set_permissions(PermissionsExt::from_mode(mode))
                        .map_err(|error| Error::io("set the mode of the new log", path, error))?;
                }
                return checked(path, file).map(|(file, metadata)| (file, metadata, true));
            }
            // Created by somebody else meanwhile, or a link that leads nowhere.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && !path.is_symlink() => {}
            Err(error) => return Err(Error::io("create the log", path, error)),
        }
    }
}

fn open_error(path: &Path, error: io::Error) -> Error {
    // A socket and a device without a driver cannot be opened, a directory not for writing: say what it is.
    match std::fs::metadata(path).ok().and_then(|metadata| not_a_log(&metadata)) {
        Some(kind) => Error::NotALog { path: path.to_owned(), kind },
        None if error.kind() == ErrorKind::NotFound => Error::NotFound { path: path.to_owned() },
        None => Error::io("open the log", path, error),
    }
}

fn checked(path: &Path, file: File) -> Result<(File, Metadata)> {
    let metadata = metadata(path, &file)?;
    match not_a_log(&metadata) {
        Some(kind) => Err(Error::NotALog { path: path.to_owned(), kind }),
        None => Ok((file, metadata)),
    }
}

fn not_a_log(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() {
        None
    } else if kind.is_dir() {
        Some("a directory")
    } else if kind.is_socket() {
        Some("a socket")
    } else if kind.is_fifo() {
        Some("a named pipe")
    } else {
        Some("a device")
    }
}

pub(crate) fn metadata(path: &Path, file: &File) -> Result<Metadata> {
    file.metadata().map_err(|error| Error::io("look at the log", path, error))
}

/// Whether `path` still names the file of this identity. An error where the system does not let the caller look.
pub(crate) fn names(path: &Path, identity: Identity) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Identity::of(&metadata) == identity),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads until `bytes` is full or the file ends; returns how many bytes were read.
pub(crate) fn read_at(file: &File, bytes: &mut [u8], position: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], position + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Where the memory of a file that others grow and cut can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystem {
    /// Reserved blocks stay reserved, and mappings show what descriptors write.
    Reserves,
    /// Writes may need new blocks even where some were reserved (copy on write), or nothing is known of it.
    Other,
}

pub(crate) fn file_system(file: &File) -> FileSystem {
    fstatfs(file).map_or(FileSystem::Other, |stat| of_type(stat.filesystem_type()))
}

/// As [`file_system`], of a file that need not be readable.
pub(crate) fn file_system_at(path: &Path) -> io::Result<FileSystem> {
    Ok(of_type(statfs::statfs(path)?.filesystem_type()))
}

/// The devices of the mounted file systems, as the kernel knows them.
pub(crate) fn mounted_devices() -> HashSet<u64> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    // "36 35 98:0 /root /mount options …"
    let device = |line: &str| {
        let (major, minor) = line.split_whitespace().nth(2)?.split_once(':')?;
        Some(libc::makedev(major.parse().ok()?, minor.parse().ok()?))
    };
    mounts.lines().filter_map(device).collect()
}

fn of_type(kind: FsType) -> FileSystem {
    const F2FS: FsType = FsType(0xF2F5_2010);
    const XFS: FsType = FsType(0x5846_5342);
    match kind {
        statfs::EXT4_SUPER_MAGIC | statfs::TMPFS_MAGIC | XFS | F2FS => FileSystem::Reserves,
        _ => FileSystem::Other,
    }
}

/// Whether the file is kept in memory alone, page by page: on tmpfs without large pages.
pub(crate) fn is_in_pages(file: &File) -> bool {
    fstatfs(file).is_ok_and(|stat| stat.filesystem_type() == statfs::TMPFS_MAGIC)
        && file.metadata().is_ok_and(|metadata| metadata.blksize() == PAGE)
}

/// The bytes that are free where the file is, for a user without privileges.
pub(crate) fn free_bytes(file: &File) -> io::Result<u64> {
    let stat = fstatvfs(file)?;
    // A tmpfs without a limit says that it has none at all.
    let is_limited = stat.blocks() > 0;
    Ok(if is_limited { stat.blocks_available().saturating_mul(stat.fragment_size()) } else { u64::MAX })
}

/// Whether space that is reserved for this file stays its own until it is written to.
pub(crate) fn keeps_reserved_space(file: &File) -> bool {
    // ext2 and ext3 have the magic number of ext4, and a file without extents on ext4 is like one of theirs. This changes no size; it
    // may take the first block, which a log needs. Any other error comes again where space is reserved in earnest.
    file_system(file) == FileSystem::Reserves
        && fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, 1) != Err(nix::errno::Errno::EOPNOTSUPP)
}

/// Gives `file` blocks for `from..to` and fills them with zeros through the descriptor, in aligned pieces: the kernel takes
/// a folio of that size for each. Where that fails the file is cut back to `from`.
pub(crate) fn grow(file: &File, from: u64, to: u64, piece: u64) -> io::Result<()> {
    reserve(file, from, to)?;
    write_zeros(file, from, to, piece).inspect_err(|_| cut_back(file, from))
}

/// Gives `file`, which ends at `from`, blocks up to `to`. Where that fails the file is cut back to `from`: a failed
/// fallocate keeps what it got.
pub(crate) fn reserve(file: &File, from: u64, to: u64) -> io::Result<()> {
    if to > size_limit() {
        // Without this check the write would raise SIGXFSZ, which ends the process.
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    loop {
        match fallocate(file, FallocateFlags::empty(), from as i64, (to - from) as i64) {
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => {
                cut_back(file, from);
                return Err(error.into());
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// Gives the pages around `from..to` blocks that no reflinked copy of the file shares: a store into a shared one needs
/// a new block, and is a SIGBUS where there is none.
pub(crate) fn unshare(file: &File, from: u64, to: u64) -> io::Result<()> {
    let from = round_down(from, PAGE);
    loop {
        match fallocate(file, FallocateFlags::FALLOC_FL_UNSHARE_RANGE, from as i64, (to - from) as i64) {
            Err(nix::errno::Errno::EINTR) => {}
            // File systems that share no blocks do not know the call.
            Ok(()) | Err(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::EINVAL) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

fn cut_back(file: &File, end: u64) {
    // Best effort: what stays lies behind the last record, and the first error is told in any case.
    let _ = file.set_len(end);
}

/// The largest size that this process may give a file, in bytes.
pub(crate) fn size_limit() -> u64 {
    getrlimit(Resource::RLIMIT_FSIZE).map_or(u64::MAX, |(soft, _)| soft).min(i64::MAX as u64)
}

fn write_zeros(file: &File, from: u64, to: u64, piece: u64) -> io::Result<()> {
    // calloc gives untouched memory, which reads as the kernel's one page of zeros.
    static ZEROS: OnceLock<Vec<u8>> = OnceLock::new();
    let zeros = ZEROS.get_or_init(|| vec![0; LARGE_PAGE as usize]);
    let mut at = from;
    while at < to {
        // Up to the next multiple of the piece, so that the folios are aligned. The first page, with the count, by itself: it is
        // written most often.
        let next = if at < PAGE { PAGE } else { (at / piece + 1) * piece };
        let len = next.min(to) - at;
        file.write_all_at(&zeros[..len as usize], at)?;
        at += len;
    }
    Ok(())
}

/// Returns when the file's bytes are on the disk.
pub(crate) fn flush(file: &File) -> io::Result<()> {
    loop {
        match nix::unistd::fdatasync(file) {
            Err(nix::errno::Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

/// The same file by another description, for reading: with a position and locks of its own.
pub(crate) fn reopen(file: &File) -> io::Result<File> {
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Gives a side file the owner and the rights of its log.
pub(crate) fn own_like(file: &File, log: &Metadata) -> io::Result<()> {
    let own = file.metadata()?;
    let mut mode = log.mode() & 0o777;
    if (own.uid(), own.gid()) != (log.uid(), log.gid()) {
        match std::os::unix::fs::fchown(file, Some(log.uid()), Some(log.gid())) {
            Ok(()) => {}
            // A group that this user is not in: what it may do, another one may not.
            Err(_) if own.uid() == log.uid() => mode &= !0o070,
            Err(error) => return Err(error),
        }
    }
    file.set_permissions(PermissionsExt::from_mode(mode))
}

/// Numbers that nobody else has.
pub(crate) fn random_words<const N: usize>() -> io::Result<[u64; N]> {
    let mut words = [[0; 8]; N];
    io::Read::read_exact(&mut File::open("/dev/urandom")?, words.as_flattened_mut())?;
    Ok(words.map(u64::from_le_bytes))
}

/// Forgets what is cached of a file and not dirty, so that the next read asks the disk. After a failed flush the cache tells nothing.
pub(crate) fn forget_cached(file: &File) -> io::Result<()> {
    Ok(posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

/// The directory that a file is in, to be flushed; `None` where it may be written to and not be read: then there is no
/// flush of it to be had.
pub(crate) fn directory_of(path: &Path) -> Result<Option<File>> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    match File::open(directory) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(Error::io("open, to flush it, the directory", directory, error)),
        Ok(directory) => Ok(Some(directory)),
    }
}

/// Returns when the file's name is on the disk.
pub(crate) fn flush_directory_of(path: &Path) -> io::Result<()> {
    match directory_of(path) {
        Ok(directory) => directory.map_or(Ok(()), |directory| directory.sync_all()),
        Err(error) => Err(io::Error::other(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_grows_in_zeros_and_is_told_from_its_successor() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (file, metadata, created) = open_to_write(&path, Some(0o640)).unwrap();
        assert!(created);
        assert_eq!(metadata.mode() & 0o777, 0o640);
        file.write_all_at(b"abc", 0).unwrap();
        grow(&file, 3, LARGE_PAGE + 4096, LARGE_PAGE).unwrap();
        assert_eq!(file.metadata().unwrap().len(), LARGE_PAGE + 4096);
        let mut bytes = vec![1; 4];
        assert_eq!(read_at(&file, &mut bytes, 1).unwrap(), 4);
        assert_eq!(bytes, [b'b', b'c', 0, 0]);
        let identity = Identity::of(&metadata);
        assert_eq!(file_system_at(&path).unwrap(), file_system(&file));
        assert!(names(&path, identity).unwrap());
        std::fs::remove_file(&path).unwrap();
        drop(file);
        let (_, metadata, _) = open_to_write(&path, None).unwrap();
        assert_ne!(Identity::of(&metadata), identity);
        assert!(!names(&path, identity).unwrap());
        assert!(!names(&path.join("below a file"), identity).unwrap());
        assert!(names(&dir.path().join("n".repeat(300)), identity).is_err());
    }

    #[test]
    fn a_new_log_is_never_open_to_more_than_it_should_be() {
        let dir = tempfile::tempdir().unwrap();
        let (path, done) = (dir.path().join("log"), std::sync::atomic::AtomicBool::new(false));
        let seen = std::thread::scope(|scope| {
            let looks = scope.spawn(|| {
                let mut seen = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    seen |= std::fs::metadata(&path).map_or(0, |metadata| metadata.mode() & 0o777);
                }
                seen
            });
            for _ in 0..3000 {
                open_to_write(&path, Some(0o600)).unwrap();
                std::fs::remove_file(&path).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            looks.join().unwrap()
        });
        assert_eq!(seen, 0o600, "{seen:o}");
    }

    #[test]
    fn what_is_not_a_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("p"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for (path, kind) in [
            (dir.path().to_owned(), "a directory"),
            (dir.path().join("s"), "a socket"),
            (dir.path().join("p"), "a named pipe"),
            ("/dev/null".into(), "a device"),
        ] {
            assert!(matches!(open_to_read(&path), Err(Error::NotALog { kind: k, .. }) if k == kind), "{path:?}");
            assert!(matches!(open_to_write(&path, None), Err(Error::NotALog { kind: k, .. }) if k == kind), "{path:?}");
        }
        assert!(matches!(open_to_read(&dir.path().join("none")), Err(Error::NotFound { .. })));
    }
}
