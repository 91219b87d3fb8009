//! An opened log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::control::Subject;
use crate::error::{Error, Result};
use crate::format::log::HEADER_BYTES;
use crate::opened::Opened;
use crate::protocol::Pair;
use crate::scan::{self, Walk};
use crate::settings::{ReadMode, Settings, WaitStrategy};
use crate::stat::{Stat, WriterState};
use crate::sys::file::{self, FileSystem, Identity};
use crate::sys::pool::Pool;
use crate::tailer::{Start, Tailer};
use crate::units::WINDOW;

/// How often a reader looks for a log that is not there yet.
const LOG_INTERVAL: Duration = Duration::from_millis(10);

/// How to open a log for reading.
#[derive(Clone, Debug)]
pub struct ReaderOptions {
    descriptors: usize,
    wait_for_log: Duration,
    control_dir: Option<PathBuf>,
    settings: Settings,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl ReaderOptions {
    /// The defaults.
    pub fn new() -> Self {
        let settings = Settings {
            read_mode: ReadMode::default(),
            wait_strategy: WaitStrategy::default(),
            max_record: None,
            durable: false,
            window: WINDOW,
        };
        ReaderOptions { descriptors: 10, wait_for_log: Duration::ZERO, control_dir: None, settings }
    }

    /// The most descriptors that the reader holds (default 10, at least 1); its tailers share them, and hold none while they wait.
    /// A [`verify`](Reader::verify) takes one more.
    pub fn descriptors(&mut self, n: usize) -> &mut Self {
        self.descriptors = n;
        self
    }

    /// How bytes are taken from the file (default [`ReadMode::Auto`]).
    pub fn read_mode(&mut self, mode: ReadMode) -> &mut Self {
        self.settings.read_mode = mode;
        self
    }

    /// What tailers do while there is nothing to read (default [`WaitStrategy::SpinThenPark`]).
    pub fn wait_strategy(&mut self, strategy: WaitStrategy) -> &mut Self {
        self.settings.wait_strategy = strategy;
        self
    }

    /// Waits this long for the log to appear (default: not at all).
    pub fn wait_for_log(&mut self, limit: Duration) -> &mut Self {
        self.wait_for_log = limit;
        self
    }

    /// The largest payload that is taken, in bytes (default: 1 GiB where it is copied as a whole, which is by
    /// [`get`](Reader::get) and in [`ReadMode::Pread`]; no limit otherwise).
    pub fn max_record(&mut self, bytes: u64) -> &mut Self {
        self.settings.max_record = Some(bytes);
        self
    }

    /// Takes a record only once it is durable (default: once it is published). That is told by the control page alone, so
    /// [`tail`](Reader::tail) fails where no writer has one; a tailer waits while a later writer has none.
    pub fn durable(&mut self, durable: bool) -> &mut Self {
        self.settings.durable = durable;
        self
    }

    /// Address space for the mapping, in bytes (default 64 GiB; halved when refused). A log may outgrow it.
    pub fn window(&mut self, bytes: u64) -> &mut Self {
        self.settings.window = bytes;
        self
    }

    /// The directory of the control page (default: `IMMUTA_CONTROL_DIR`, else `/dev/shm`).
    pub fn control_dir(&mut self, dir: impl Into<PathBuf>) -> &mut Self {
        self.control_dir = Some(dir.into());
        self
    }

    /// Opens the log.
    ///
    /// # Errors
    /// [`Error::NotFound`] where there is none (in the time given by [`wait_for_log`](ReaderOptions::wait_for_log)),
    /// [`Error::NotALog`] for a directory or the like, [`Error::Damaged`] where its count cannot be true, [`Error::Io`] for
    /// what the system refuses.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Reader> {
        let path = path.as_ref();
        let begin = Instant::now();
        let (file, metadata) = loop {
            match file::open_to_read(path) {
                Err(Error::NotFound { .. }) if begin.elapsed() < self.wait_for_log => {
                    // A name that is not there yet can be watched only where its directory is there.
                    std::thread::sleep(LOG_INTERVAL.min(self.wait_for_log - begin.elapsed().min(self.wait_for_log)));
                }
                result => break result?,
            }
        };
        scan::count(path, &file)?;
        let mut settings = self.settings;
        if settings.read_mode == ReadMode::Auto && file::file_system(&file) == FileSystem::Other {
            // Nothing is known of its mappings; descriptors always show what was written.
            settings.read_mode = ReadMode::Pread;
        }
        let subject = Subject::new(&metadata, self.control_dir.as_deref());
        let pool = Pool::new(path, file, Identity::of(&metadata), self.descriptors);
        Ok(Reader { opened: Arc::new(Opened::new(path.to_owned(), settings, subject, pool)) })
    }
}

/// An opened log, from which any number of tailers may be taken. `Send` and `Sync`.
#[derive(Debug)]
pub struct Reader {
    pub(crate) opened: Arc<Opened>,
}

impl Reader {
    /// Opens a log with the default options.
    ///
    /// # Errors
    /// As for [`ReaderOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Reader> {
        ReaderOptions::new().open(path)
    }

    /// A tailer that begins at `start`, which is fixed now.
    ///
    /// # Errors
    /// [`Error::Damaged`] where the walk to the start meets something that cannot be true, [`Error::NoTimes`] for a time
    /// where there is no index, [`Error::DurableUnknown`] for [`durable`](ReaderOptions::durable) without a control page, [`Error::Io`].
    pub fn tail(&self, start: impl Into<Start>) -> Result<Tailer> {
        let beginning = Pair { count: 0, end: HEADER_BYTES };
        let (at, first) = match start.into() {
            Start::Beginning => (beginning, 0),
            Start::End => {
                let end = self.opened.extent()?;
                (end, end.count)
            }
            Start::Skip(n) | Start::Sequence(n) => (self.walk_towards(n)?, n),
            Start::SkipAtMost(n) => (self.walk_towards(n)?, 0),
            Start::Time(time) => (self.walk_towards_time(time)?, 0),
            Start::Last(n) => {
                let end = self.opened.extent()?;
                let first = end.count.saturating_sub(n);
                (self.walk(first, end)?, first)
            }
        };
        Tailer::new(self.opened.clone(), at, first)
    }

    /// The place of record `sequence`, or the end where there are fewer.
    fn walk_towards(&self, sequence: u64) -> Result<Pair> {
        match self.place_of(sequence)? {
            Some(place) => Ok(place),
            None => {
                let end = self.opened.extent()?;
                // It may have come meanwhile.
                if sequence < end.count { self.walk(sequence, end) } else { Ok(end) }
            }
        }
    }

    /// The place of record `sequence`, if it may be read.
    fn place_of(&self, sequence: u64) -> Result<Option<Pair>> {
        if self.opened.settings.durable {
            let end = self.opened.extent()?;
            return if sequence < end.count { self.walk(sequence, end).map(Some) } else { Ok(None) };
        }
        let count = self.opened.count()?;
        if sequence >= count {
            return Ok(None);
        }
        // The exact end is not needed: the file is never shorter than the count that was read before its size.
        let end = file::metadata(&self.opened.path, &*self.opened.lend()?)?.len();
        self.walk(sequence, Pair { count, end }).map(Some)
    }

    fn walk(&self, sequence: u64, end: Pair) -> Result<Pair> {
        if sequence == end.count {
            return Ok(end);
        }
        let file = self.opened.lend()?;
        let from = Some(self.opened.seek(&file, sequence)).filter(|from| from.end <= end.end);
        let from = from.unwrap_or(Pair { count: 0, end: HEADER_BYTES });
        let mut walk = Walk::new(&self.opened.path, &file, from, end.end);
        walk.go_to(sequence)?;
        Ok(walk.pair())
    }

    fn walk_towards_time(&self, time: SystemTime) -> Result<Pair> {
        let end = self.opened.extent()?;
        let file = self.opened.lend()?;
        let time_ns = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        let found = self.opened.index().and_then(|index| index.seek_time(&file, time_ns).ok().flatten());
        // What the index does not cover yet has just come.
        match found {
            Some(found) if found.count <= end.count && found.end <= end.end => Ok(found),
            Some(_) => Ok(end),
            None if end.count == 0 => Ok(end),
            None => Err(Error::NoTimes { path: self.opened.path.clone() }),
        }
    }

    /// The payload of one record, or `None` at or beyond the count.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond [`max_record`](ReaderOptions::max_record), [`Error::Damaged`], [`Error::Io`].
    pub fn get(&self, sequence: u64) -> Result<Option<Vec<u8>>> {
        let opened = &self.opened;
        let Some(at) = self.place_of(sequence)? else { return Ok(None) };
        let file = opened.lend()?;
        let file_bytes = file::metadata(&opened.path, &file)?.len();
        let mut walk = Walk::new(&opened.path, &file, at, file_bytes);
        let size = walk.step()?;
        let position = at.end;
        let max = opened.settings.max_record.unwrap_or(scan::COPIED_MOST);
        scan::copy(&opened.path, &file, Pair { count: sequence, end: position }, size, max).map(Some)
    }

    /// The log as it is now.
    ///
    /// # Errors
    /// [`Error::Damaged`], [`Error::Io`].
    pub fn stat(&self) -> Result<Stat> {
        let Pair { count: records, end } = self.opened.extent()?;
        let writer = self.opened.writer(None, Pair { count: records, end })?;
        let pid = if writer == WriterState::Alive { self.opened.writer_pid() } else { None };
        let file_bytes = file::metadata(&self.opened.path, &*self.opened.lend()?)?.len();
        let (durable_records, history_id) = self.opened.durable_records(records);
        let (path, recovery) = (self.opened.path.clone(), None);
        Ok(Stat { path, records, end, file_bytes, durable_records, writer, pid, history_id, recovery })
    }

    /// Who is writing.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Damaged`] where only the file can tell and it is damaged.
    pub fn writer(&self) -> Result<WriterState> {
        self.opened.writer(None, Pair { count: 0, end: HEADER_BYTES })
    }
}
