//! Bare memory and the bare futex, which the machine's floors are made of. The one room of the command line with unsafe code:
//! neither std nor nix's safe part maps a file or sleeps on a word of one.

use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// What is written at once where a file grows.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
/// A page of words.
const WORDS_BYTES: u64 = 4096;
/// Between two words, so that they share no cache line, nor a pair of lines that is fetched together.
const WORD_DISTANCE: usize = 256;

/// A mapped range of a file; unmapped when dropped. Bytes beyond the end of the file must not be touched (SIGBUS).
#[derive(Debug)]
struct Mapped {
    base: NonNull<u8>,
    len: usize,
}

impl Mapped {
    fn new(file: &File, len: u64) -> io::Result<Mapped> {
        Mapped::with(file, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
    }

    fn with(file: &File, len: u64, access: ProtFlags) -> io::Result<Mapped> {
        let size = usize::try_from(len).ok().and_then(NonZeroUsize::new).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: without a hint address and without MAP_FIXED the kernel takes unused address space.
        let base = unsafe { mmap(None, size, access, flags, file, 0) }?;
        Ok(Mapped { base: base.cast(), len: size.get() })
    }

    /// The word at an offset, which the file must reach beyond.
    #[inline(always)]
    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.len, "a word lies within its mapping");
        // SAFETY: mapped (a mapping begins at a page) and aligned; any bytes are a number. Nothing else makes plain accesses to
        // it: `BareFile` stores bytes behind its one word only, and `Words` has nothing but words.
        unsafe { self.base.add(at).cast::<AtomicU64>().as_ref() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `with`, unmapped only here, and no borrow of `self` is left.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}

/// A new file that is mapped as far as it may grow: a count, and bytes behind it, as in a log.
#[derive(Debug)]
pub struct BareFile {
    file: File,
    map: Mapped,
    /// So far the file has blocks.
    ready: u64,
}

impl BareFile {
    /// Where its bytes begin.
    pub const BEGIN: u64 = 8;

    /// Creates the file, which nobody else may know of, and maps `len` bytes of it. It is empty: [`grow`](BareFile::grow) it first.
    pub fn create(path: &Path, len: u64) -> io::Result<BareFile> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(BareFile { map: Mapped::new(&file, len)?, file, ready: 0 })
    }

    /// Grows it by the way that is fastest where it was measured: blocks first, then zeros through the descriptor.
    pub fn grow(&mut self, to: u64) -> io::Result<()> {
        let to = to.min(self.map.len as u64);
        if to <= self.ready {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::empty(), self.ready as i64, (to - self.ready) as i64) {
            // Zeros alone reserve blocks, too, where there is no such call.
            Ok(()) | Err(Errno::EOPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        let mut at = self.ready;
        while at < to {
            let len = (ZEROS.len() as u64).min(to - at);
            self.file.write_all_at(&ZEROS[..len as usize], at)?;
            at += len;
        }
        self.ready = to;
        Ok(())
    }

    /// How far it has grown.
    #[inline(always)]
    pub fn ready(&self) -> u64 {
        self.ready
    }

    /// Stores bytes behind the count, below [`ready`](BareFile::ready).
    #[inline(always)]
    pub fn store(&mut self, at: u64, bytes: &[u8]) {
        assert!(at >= BareFile::BEGIN && at + bytes.len() as u64 <= self.ready, "stores stay within the file");
        // SAFETY: the range is mapped (`ready` never exceeds the mapping) and the file reaches beyond it (`grow`, and nobody else
        // knows the file). `&mut self`: no other access of this process to it; `bytes` cannot overlap what nobody else has.
        unsafe { self.map.base.as_ptr().add(at as usize).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    /// Stores the count, with release, as whoever has readers must.
    #[inline(always)]
    pub fn publish(&self, count: u64) {
        debug_assert!(self.ready >= BareFile::BEGIN, "the file reaches beyond the count");
        self.map.word(0).store(count, Ordering::Release);
    }

    /// Has the disk take what was stored.
    pub fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// A file that is only read, mapped.
#[derive(Debug)]
pub struct BareView {
    map: Mapped,
}

impl BareView {
    /// Maps the first `len` bytes of a file that has them, and keeps them as they are for as long as this lives.
    pub fn open(path: &Path, len: u64) -> io::Result<BareView> {
        Ok(BareView { map: Mapped::with(&File::open(path)?, len, ProtFlags::PROT_READ)? })
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped, and by the word of whoever made this within the file and not written to.
        unsafe { std::slice::from_raw_parts(self.map.base.as_ptr(), self.map.len) }
    }
}

/// A few words that two processes share, each on a cache line of its own.
#[derive(Debug)]
pub struct Words {
    map: Mapped,
}

impl Words {
    /// Creates the file.
    pub fn create(path: &Path) -> io::Result<Words> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.write_all_at(&ZEROS[..WORDS_BYTES as usize], 0)?;
        Ok(Words { map: Mapped::new(&file, WORDS_BYTES)? })
    }

    /// Opens what another process has created.
    pub fn open(path: &Path) -> io::Result<Words> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if file.metadata()?.len() < WORDS_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Words { map: Mapped::new(&file, WORDS_BYTES)? })
    }

    pub fn word(&self, number: usize) -> &AtomicU64 {
        self.map.word(number * WORD_DISTANCE)
    }
}

/// Sleeps while the lower half of the word is that of `value`, but no longer than `bound`; may also wake for nothing.
pub fn wait_on(word: &AtomicU64, value: u64, bound: Duration) {
    let low: *const u32 = word.as_ptr().cast();
    let limit = libc::timespec { tv_sec: bound.as_secs() as i64, tv_nsec: i64::from(bound.subsec_nanos()) };
    // SAFETY: the address is of a live word whose lower half comes first (little-endian); the kernel only reads it, and reads
    // the time during the call alone.
    unsafe { libc::syscall(libc::SYS_futex, low, libc::FUTEX_WAIT, value as u32, &raw const limit) };
}

/// Wakes one that sleeps on the word, in whatever process.
pub fn wake_one(word: &AtomicU64) {
    // SAFETY: FUTEX_WAKE takes the address of a live word as a key and does not touch it.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_file_holds_what_was_stored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bare");
        let mut file = BareFile::create(&path, 3 << 20).unwrap();
        file.grow(4096).unwrap();
        file.store(8, b"abc");
        file.grow(u64::MAX).unwrap();
        assert_eq!(file.ready(), 3 << 20);
        file.store((3 << 20) - 3, b"end");
        file.publish(2);
        file.flush().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!((&bytes[..11], &bytes[bytes.len() - 3..]), (&b"\x02\0\0\0\0\0\0\0abc"[..], &b"end"[..]));
        assert!(BareFile::create(&path, 4096).is_err(), "it is there already");
    }

    #[test]
    #[should_panic(expected = "within the file")]
    fn a_store_beyond_the_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = BareFile::create(&dir.path().join("bare"), 1 << 20).unwrap();
        file.grow(4096).unwrap();
        file.store(4090, b"too long");
    }

    #[test]
    fn words_are_shared_and_wake_sleepers() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("words");
        let one = Words::create(&path).unwrap();
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| {
                let other = Words::open(&path).unwrap();
                while other.word(0).load(Ordering::Acquire) == 0 {
                    wait_on(other.word(0), 0, Duration::from_secs(10));
                }
                other.word(1).load(Ordering::Acquire)
            });
            one.word(1).store(7, Ordering::Release);
            one.word(0).store(1, Ordering::Release);
            wake_one(one.word(0));
            assert_eq!(sleeper.join().unwrap(), 7);
        });
        std::fs::write(&path, b"short").unwrap();
        assert!(Words::open(&path).is_err());
    }
}
