//! What the benches share: where their files go, how much they do, and the bare loops that are the machine's floor.

#![allow(dead_code)] // Each bench uses a part of it.

pub mod process;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use criterion::Throughput;
use immuta::Writer;
use tempfile::TempDir;

/// The sizes of payloads that are measured, in bytes.
pub const SIZES: [usize; 2] = [64, 1024];
pub const MIB: u64 = 1 << 20;
/// The number at offset 0.
pub const HEADER_BYTES: u64 = 8;
/// The size in front of each payload.
pub const SIZE_BYTES: u64 = 8;

/// A directory for logs, removed when dropped; also when a bench panics.
pub fn scratch() -> TempDir {
    let parent = std::env::var_os("IMMUTA_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    tempfile::Builder::new().prefix("immuta-bench-").tempdir_in(parent).expect("a directory for the logs")
}

/// Whether this is a round to see that everything works (`cargo test --benches`, or `--test`), as criterion decides it.
pub fn is_test() -> bool {
    let has = |name: &str| std::env::args().any(|arg| arg == name);
    !has("--bench") || has("--test")
}

/// `full`, or in a test round `tiny`.
pub fn scaled(full: u64, tiny: u64) -> u64 {
    if is_test() { tiny } else { full }
}

/// Whether the tables that are not criterion's are wanted: `name` contains the filter on the command line, if there is one.
pub fn is_wanted(name: &str) -> bool {
    // Of criterion's options these take no value; what follows another one is its value and no filter.
    let flags = ["--bench", "--test", "--exact", "--noplot", "--quick", "--quiet", "--verbose", "--discard-baseline"];
    let args: Vec<String> = std::env::args().collect();
    let is_filter = |i: &usize| !args[*i].starts_with('-') && (*i == 1 || !is_option(&args[*i - 1], &flags));
    !args.iter().any(|arg| arg == "--list") && (1..args.len()).find(is_filter).is_none_or(|i| name.contains(&args[i]))
}

fn is_option(arg: &str, flags: &[&str]) -> bool {
    arg.starts_with('-') && !flags.contains(&arg) && !arg.contains('=')
}

/// Records, and the bytes of their payloads, in one iteration.
pub fn throughput(records: u64, size: usize) -> Throughput {
    Throughput::ElementsAndBytes { elements: records, bytes: records * size as u64 }
}

/// A payload in which no byte is like its neighbour.
pub fn payload(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 131 + 17) as u8).collect()
}

/// The sum of all bytes, taken as numbers of 8 bytes: touches each of them.
#[inline(always)]
pub fn sum(bytes: &[u8]) -> u64 {
    let (numbers, rest) = bytes.as_chunks::<8>();
    let sum = numbers.iter().fold(0u64, |sum, number| sum.wrapping_add(u64::from_le_bytes(*number)));
    rest.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)))
}

/// Ends a writer and removes its log and its index.
pub fn discard(writer: Writer, path: &Path) {
    drop(writer);
    std::fs::remove_file(path).expect("the log can be removed");
    match std::fs::remove_file(format!("{}.idx", path.display())) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => panic!("the index can be removed: {error}"),
        _ => {}
    }
}

/// The quartiles of some figures.
pub fn quartiles(mut times: Vec<f64>) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| times[(times.len() - 1) * quarter / 4])
}

/// A median, and the quartiles around it.
pub fn shown([low, median, high]: [f64; 3]) -> String {
    format!("{median:8.2} ({low:.2} to {high:.2})")
}

/// CLOCK_MONOTONIC, which all processes of the machine share, in nanoseconds.
#[inline(always)]
pub fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Linux, and the result is written to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32).as_nanos() as u64
}

/// A file that is mapped whole, writable and shared: for the bare loops.
pub struct Mapped {
    base: NonNull<u8>,
    len: usize,
}

impl Mapped {
    /// Maps `len` bytes, also beyond the end of the file.
    pub fn new(file: &File, len: u64) -> Mapped {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_NORESERVE);
        let (fd, len) = (file.as_raw_fd(), len as usize);
        // SAFETY: without a hint address the kernel takes unused address space.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, fd, 0) };
        assert!(base != libc::MAP_FAILED, "{}", io::Error::last_os_error());
        Mapped { base: NonNull::new(base.cast()).expect("not at address 0"), len }
    }

    /// The first bytes of a file that has them, and that nobody writes to for as long as the slice lives.
    pub fn bytes(&self, len: u64) -> &[u8] {
        assert!(len as usize <= self.len);
        // SAFETY: mapped, and by the caller's word within the file and not written to.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), len as usize) }
    }

    /// Stores bytes; the file must reach beyond them.
    #[inline(always)]
    pub fn store(&self, at: u64, bytes: &[u8]) {
        assert!(at as usize + bytes.len() <= self.len);
        // SAFETY: the range is mapped, the file reaches beyond it by the caller's word, and nobody else touches the file.
        unsafe { self.base.as_ptr().add(at as usize).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    /// A word of the file, which must reach beyond it.
    pub fn word(&self, at: u64) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at as usize + 8 <= self.len);
        // SAFETY: mapped and aligned; any bytes are a number, and it is accessed by atomic operations alone.
        unsafe { self.base.add(at as usize).cast::<AtomicU64>().as_ref() }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no borrow is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Grows a file by the best way that FACTS has: blocks first, then zeros through the descriptor in aligned pieces.
pub fn grow(file: &File, from: u64, to: u64) {
    static ZEROS: [u8; 2 * MIB as usize] = [0; 2 * MIB as usize];
    // SAFETY: a call on an open descriptor, which touches no memory.
    let reserved = unsafe { libc::fallocate(file.as_raw_fd(), 0, from as i64, (to - from) as i64) };
    assert_eq!(reserved, 0, "{}", io::Error::last_os_error());
    let mut at = from;
    while at < to {
        let len = (2 * MIB).min(to - at);
        file.write_all_at(&ZEROS[..len as usize], at).expect("blocks are reserved");
        at += len;
    }
}

/// A new file of `bytes` zeros, with blocks.
pub fn new_file(path: &Path, bytes: u64) -> File {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).expect("a new file");
    if bytes > 0 {
        grow(&file, 0, bytes);
    }
    file
}
