//! What the integration tests share: a log of one's own, a naive parser to compare with, helper processes, deadlines.
#![allow(dead_code, reason = "each test binary uses its part of this")]

pub mod cli;
pub mod content;
pub mod crew;
pub mod forge;
pub mod mount;
pub mod process;
pub mod scene;
pub mod stamp;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use immuta::{Reader, ReaderOptions, Record, Tailer, Writer, WriterOptions};
use tempfile::TempDir;

/// After this a test has failed. It bounds hangs; nothing is measured against it.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The name of a log that does not exist yet, with a directory for its control page, in a directory of their own.
pub struct Log {
    pub dir: TempDir,
    pub path: PathBuf,
    pub control: PathBuf,
}

impl Log {
    pub fn new() -> Log {
        Log::within(tempfile::tempdir().expect("a temporary directory"))
    }

    /// In `dir`, which goes away with the log.
    pub fn within(dir: TempDir) -> Log {
        let (path, control) = (dir.path().join("events.log"), dir.path().join("control"));
        std::fs::create_dir(&control).expect("a directory for the control page");
        Log { dir, path, control }
    }

    /// Where a flush costs nothing, for tests that are about something else.
    pub fn in_memory() -> Log {
        Log::within(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary directory"))
    }

    /// Under another name, such as one in a small file system.
    pub fn at(path: PathBuf) -> Log {
        Log { path, ..Log::new() }
    }

    pub fn writer_options(&self) -> WriterOptions {
        let mut options = WriterOptions::new();
        options.control_dir(&self.control);
        options
    }

    pub fn reader_options(&self) -> ReaderOptions {
        let mut options = ReaderOptions::new();
        options.control_dir(&self.control);
        options
    }

    pub fn writer(&self) -> Writer {
        self.writer_options().open(&self.path).expect("a writer")
    }

    pub fn reader(&self) -> Reader {
        self.reader_options().open(&self.path).expect("a reader")
    }

    pub fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).expect("the log's bytes")
    }

    /// What is in the log, by the naive parser.
    pub fn parse(&self) -> Vec<Vec<u8>> {
        parse(&self.bytes())
    }

    /// The name of the control page.
    pub fn page(&self) -> PathBuf {
        page_of(&self.path, &self.control)
    }

    /// The name of the doorbell.
    pub fn bell(&self) -> PathBuf {
        self.page().with_extension("bell")
    }
}

/// The name that the control page of the log at `path` has in `control`.
pub fn page_of(path: &Path, control: &Path) -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let log = std::fs::metadata(path).expect("the log's identity");
    control.join(format!("immuta-{}-{}", log.dev(), log.ino()))
}

/// The naive parser: obviously right, and what everything else is compared with.
pub fn parse(bytes: &[u8]) -> Vec<Vec<u8>> {
    if bytes.is_empty() {
        return Vec::new();
    }
    let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let mut records = Vec::new();
    let mut at = 8;
    for _ in 0..number(0) {
        let size = number(at) as usize;
        records.push(bytes[at + 8..at + 8 + size].to_vec());
        at += 8 + size;
    }
    records
}

/// What is in the file, and whether all that it counts is there. `None`: not even the count can be believed.
pub fn checked_parse(bytes: &[u8]) -> Option<(Vec<&[u8]>, bool)> {
    if bytes.is_empty() {
        return Some((Vec::new(), true));
    }
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().unwrap()));
    let count = number(0)?;
    if count > (bytes.len() as u64 - 8) / 8 {
        return None;
    }
    let (mut records, mut at) = (Vec::new(), 8);
    for _ in 0..count {
        let payload = number(at).and_then(|size| bytes.get(at + 8..(at + 8).checked_add(usize::try_from(size).ok()?)?));
        let Some(payload) = payload else { return Some((records, false)) };
        records.push(payload);
        at += 8 + payload.len();
    }
    Some((records, true))
}

/// The exact file that holds these records.
pub fn encode<T: AsRef<[u8]>>(records: &[T]) -> Vec<u8> {
    let mut bytes = (records.len() as u64).to_le_bytes().to_vec();
    for record in records {
        bytes.extend((record.as_ref().len() as u64).to_le_bytes());
        bytes.extend(record.as_ref());
    }
    bytes
}

/// The position of each record, and behind them the end.
pub fn positions<T: AsRef<[u8]>>(records: &[T]) -> Vec<u64> {
    let sizes = records.iter().map(|record| 8 + record.as_ref().len() as u64);
    std::iter::once(8)
        .chain(sizes.scan(8, |at, size| {
            *at += size;
            Some(*at)
        }))
        .collect()
}

/// Looks until `holds` does; fails after [`LIMIT`].
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LIMIT, "still not so after {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns once this thread of the process sleeps, or has spun for a while.
pub fn until_asleep(thread: nix::unistd::Pid) {
    let mut looks = 0;
    until("a thread waits", || {
        looks += 1;
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S')) || looks > 50
    });
}

/// What `work` returns; fails if that takes longer than [`LIMIT`], which is what a test of something that might hang needs.
pub fn bounded<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    let worker = std::thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(LIMIT) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("not done after {LIMIT:?}: {what}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(_) => unreachable!("it ended without a result"),
        },
    }
}

/// The next record, which must come.
pub fn next(tailer: &mut Tailer) -> Record<'_> {
    tailer.next_timeout(LIMIT).expect("a record in time").expect("nobody stops this tailer")
}

/// The payloads of the next `n` records, which must come.
pub fn take(tailer: &mut Tailer, n: usize) -> Vec<Vec<u8>> {
    (0..n).map(|_| next(tailer).payload().to_vec()).collect()
}

/// The payloads of all records that are there now.
pub fn drain(tailer: &mut Tailer) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    while let Some(record) = tailer.try_next().expect("reading goes well") {
        payloads.push(record.payload().to_vec());
    }
    payloads
}

/// Ends a test that cannot be done here. With IMMUTA_REQUIRE_ALL=1, as in a place that has everything, it fails.
pub fn skip(reason: &str) {
    assert!(std::env::var_os("IMMUTA_REQUIRE_ALL").is_none(), "IMMUTA_REQUIRE_ALL is set, but: {reason}");
    // Not println: the harness keeps that of a test that passes to itself.
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

/// Whether the test runs as root; says SKIPPED if not.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("needs root: other user ids, mounts");
    }
    root
}

/// A number of rounds: `debug` without optimisation, `release` with it.
pub fn rounds(debug: u64, release: u64) -> u64 {
    if cfg!(debug_assertions) { debug } else { release }
}
