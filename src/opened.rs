//! What a reader and its tailers share: descriptors, the mapping, the control page, buffers.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::control::{ControlView, Subject};
use crate::error::{Error, Result};
use crate::format::control::state;
use crate::format::log::HEADER_BYTES;
use crate::index::{self, Found, Index};
use crate::protocol::{self, Pair};
use crate::scan::{self, Walk};
use crate::settings::{ReadMode, Settings};
use crate::stat::WriterState;
use crate::sys::file::{self, Identity};
use crate::sys::locks;
use crate::sys::pool::{Lent, Pool};
use crate::units::HEARTBEAT_OLD;
use crate::window::Window;

/// Buffers that are kept for tailers that come to read in large steps again.
const BUFFERS_KEPT: usize = 4;

/// Up to this record a walk from the first is as fast as a look into the index.
const WALK_MOST: u64 = 200;

/// An opened log.
#[derive(Debug)]
pub(crate) struct Opened {
    /// As it was given, for messages.
    pub(crate) path: PathBuf,
    /// The same wherever the process goes.
    absolute: PathBuf,
    pub(crate) settings: Settings,
    subject: Subject,
    pool: Pool,
    index_path: PathBuf,
    view: Mutex<Option<Arc<ControlView>>>,
    pulse: Mutex<Option<Pulse>>,
    window: Mutex<Option<Arc<Window>>>,
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// A control page, and when it was last seen to move.
#[derive(Debug)]
struct Pulse {
    page: Identity,
    /// The heartbeat, and the end: a writer without a helper thread moves both only when it appends.
    beat: (u64, u64),
    /// Since when it stands still; `None` where its writer is known to have ended.
    since: Option<Instant>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is under these locks is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pulse {
    /// Of this page, as it is now.
    fn of(view: &ControlView) -> Pulse {
        let beat = (view.heartbeat(), protocol::end(&view.page().published));
        Pulse { page: view.identity(), beat, since: Some(Instant::now()) }
    }
}

impl Opened {
    pub(crate) fn new(path: PathBuf, settings: Settings, subject: Subject, pool: Pool) -> Opened {
        let (view, pulse, window, buffers) = Default::default();
        let absolute = file::absolute(&path);
        let index_path = index::path_of(&absolute);
        Opened { path, absolute, settings, subject, pool, index_path, view, pulse, window, buffers }
    }

    /// A descriptor; waits while all are lent, so nobody may ask for a second one.
    pub(crate) fn lend(&self) -> Result<Lent<'_>> {
        Ok(self.pool.lend())
    }

    /// The number of records that the file says it has.
    pub(crate) fn count(&self) -> Result<u64> {
        self.count_of(&*self.lend()?)
    }

    /// The same for whoever has a descriptor already.
    pub(crate) fn count_of(&self, file: &File) -> Result<u64> {
        scan::count_in(&self.path, file, self.settings.read_mode != ReadMode::Pread)
    }

    /// The control page that has the name now, if there is one that can be believed. It may be a dead writer's.
    pub(crate) fn view(&self) -> Option<Arc<ControlView>> {
        let mut slot = locked(&self.view);
        if slot.as_ref().is_none_or(|view| !view.is_named(&self.subject)) {
            *slot = ControlView::open(&self.subject).filter(|view| self.agrees(view)).map(Arc::new);
        }
        slot.clone()
    }

    /// The control page that may be followed now; without one the count in the file tells. Only a writer that holds its lock moves its
    /// page; and that page need not be the one that has the name, so one that stands still is not taken up. Who has `followed` it
    /// already stays with it, as long as the file is not ahead of it.
    pub(crate) fn page_to_follow(&self, followed: Option<&ControlView>) -> Option<Arc<ControlView>> {
        // The page before the lock: if that is free then, the page's writer has ended, whatever another may begin meanwhile.
        let view = self.view().filter(|view| view.is_followed())?;
        if !self.is_written().unwrap_or(false) {
            *locked(&self.pulse) = Some(Pulse { since: None, ..Pulse::of(&view) });
            return None;
        }
        let is_followed = followed.is_some_and(|followed| followed.identity() == view.identity());
        (is_followed || !self.is_still(&view)).then_some(view)
    }

    /// Whether nothing on the page has moved for a while: its writer is stopped, or dead.
    pub(crate) fn is_still(&self, view: &ControlView) -> bool {
        let now = Pulse::of(view);
        let mut slot = locked(&self.pulse);
        let last = slot.take();
        let same = last.as_ref().is_some_and(|last| last.page == now.page);
        let pulse = match last {
            Some(last) if same && last.beat == now.beat => last,
            Some(_) if same => now,
            // Met for the first time: its age is told by the clock, which is the writer's too. Where a time namespace lies between the
            // two it may look old, until it moves.
            _ => Pulse { since: Instant::now().checked_sub(view.age()), ..now },
        };
        slot.insert(pulse).since.is_none_or(|since| since.elapsed() >= HEARTBEAT_OLD)
    }

    /// A page that says more than the file belongs to another history of it. The page is looked at first: the file is
    /// never behind it.
    fn agrees(&self, view: &ControlView) -> bool {
        // Followers go by the end alone, and touch what lies below it.
        let end = [false, true].map(|durable| protocol::end(view.extent(durable))).into_iter().max().unwrap_or(0);
        let pair = view.pair().unwrap_or(Pair { count: 0, end });
        let file_bytes = self.lend().and_then(|file| Ok(file::metadata(&self.path, &file)?.len()));
        self.count().is_ok_and(|count| pair.count <= count)
            && file_bytes.is_ok_and(|bytes| pair.end.max(end) <= bytes.max(HEADER_BYTES))
    }

    /// Whether a writer holds its lock.
    pub(crate) fn is_written(&self) -> Result<bool> {
        locks::is_locked(&*self.lend()?).map_err(|error| Error::io("ask for the writer's lock of", &self.path, error))
    }

    /// Who is writing. `view` is the control page followed so far, `at` a place at or before the end.
    pub(crate) fn writer(&self, view: Option<&ControlView>, at: Pair) -> Result<WriterState> {
        // A writer may begin and end between the steps of one look, which then seems to find what a dead one left; not in each of three.
        let mut state = self.look_who_writes(view, at)?;
        for _ in 0..2 {
            if state == WriterState::Gone {
                state = self.look_who_writes(view, at)?;
            }
        }
        Ok(state)
    }

    fn look_who_writes(&self, view: Option<&ControlView>, at: Pair) -> Result<WriterState> {
        // The page before the lock, as in `page_to_follow`; its state after it: a writer says how it ended before it gives the lock back.
        let newest = self.view();
        // One that has lost its name tells of a failure, and of nothing else, as long as there is no newer one.
        let page = newest.as_deref().or(view.filter(|view| view.state() == state::FAILED));
        if self.is_written()? {
            let failed = page.is_some_and(|page| page.state() == state::FAILED && !self.is_still(page));
            return Ok(if failed { WriterState::Failed } else { WriterState::Alive });
        }
        let ended = match page.map(ControlView::state) {
            Some(state::FAILED) => WriterState::Failed,
            Some(state::CLOSED) => WriterState::Closed,
            Some(state::OPEN) => WriterState::Gone,
            _ => self.ending(view, at)?,
        };
        // Before it says so: one that began meanwhile has made the file longer than its records.
        Ok(if ended == WriterState::Gone && self.is_written()? { WriterState::Alive } else { ended })
    }

    /// How the last writer ended, by the file alone: a clean close cuts it to its exact end.
    fn ending(&self, view: Option<&ControlView>, at: Pair) -> Result<WriterState> {
        let file = self.lend()?;
        // The count first: a writer that begins now makes the file longer before it counts more.
        let count = self.count_of(&file)?;
        let file_bytes = file::metadata(&self.path, &file)?.len();
        // The page that was followed may know a place nearer to the end.
        let known = view.and_then(ControlView::pair).filter(|known| (at.count..=count).contains(&known.count));
        let at = known.unwrap_or(at);
        let at = if at.count < count { self.seek(&file, count).later(at) } else { at };
        let mut walk = Walk::new(&self.path, &file, at, file_bytes);
        walk.go_to(count)?;
        let exact = walk.position == file_bytes || file_bytes == 0;
        Ok(if exact { WriterState::Closed } else { WriterState::Gone })
    }

    /// What may be read now: what is published, or where only that is wanted, what is durable.
    pub(crate) fn extent(&self) -> Result<Pair> {
        if self.settings.durable {
            let page = self.durable_page()?;
            return page
                .durable_pair()
                .ok_or_else(|| self.no_durable("its writer is too fast for the page to be read"));
        }
        let known = self.view().and_then(|view| view.pair());
        // The page alone does not tell: a writer that was killed may have stored the count and not yet its page, and one
        // that uses another directory leaves the page of an earlier one standing. Walking from there is short.
        let file = self.lend()?;
        let count = self.count_of(&file)?;
        let from = match known.filter(|known| known.count <= count) {
            Some(known) => known,
            None => self.seek(&file, count),
        };
        let mut walk = Walk::new(&self.path, &file, from, file::metadata(&self.path, &file)?.len());
        walk.go_to(count)?;
        Ok(walk.pair())
    }

    /// A place at or before record `sequence`, near it where the index tells; there are more than `sequence` records, or as many.
    pub(crate) fn seek(&self, file: &File, sequence: u64) -> Pair {
        let beginning = Pair { count: 0, end: HEADER_BYTES };
        let found = || self.index()?.seek(file, sequence).ok()?.filter(|place| place.count <= sequence);
        // What is near the beginning is walked sooner than an index is opened.
        if sequence <= WALK_MOST { beginning } else { found().unwrap_or(beginning) }
    }

    /// The index, where there is one that can be used.
    pub(crate) fn index(&self) -> Option<Index> {
        match self.find_index() {
            Ok(Found::Ours(index)) => Some(index),
            _ => None,
        }
    }

    /// What lies under the name of the index.
    pub(crate) fn find_index(&self) -> io::Result<Found> {
        Index::find(&self.index_path, self.subject.identity, self.subject.owner)
    }

    /// The control page, for followers that take only what is durable.
    pub(crate) fn durable_page(&self) -> Result<Arc<ControlView>> {
        self.view().ok_or_else(|| self.no_durable("there is no control page of a running writer, which alone tells"))
    }

    fn no_durable(&self, reason: &str) -> Error {
        Error::DurableUnknown { path: self.path.clone(), reason: reason.to_owned() }
    }

    /// How many records are known to survive a power cut, and the history they are of.
    pub(crate) fn durable_records(&self, count: u64) -> (Option<u64>, Option<u128>) {
        let id = |[high, low]: [u64; 2]| u128::from(high) << 64 | u128::from(low);
        if let Some(view) = self.view() {
            return (view.durable_pair().map(|pair| pair.count.min(count)), Some(id(view.history_id())));
        }
        let Some(index) = self.index() else { return (None, None) };
        (index.durable().ok().flatten().map(|pair| pair.count.min(count)), Some(id(index.header.history_id)))
    }

    /// The process that writes, where the page or the system tells. For messages only.
    pub(crate) fn writer_pid(&self) -> Option<u32> {
        let page = self.page_to_follow(None).and_then(|view| u32::try_from(view.pid()).ok());
        page.or_else(|| locks::holder(self.subject.identity))
    }

    /// Whether the name leads to another file now, or to none. Not to be let look, any more, is no proof of it.
    pub(crate) fn is_replaced(&self) -> bool {
        matches!(file::names(&self.absolute, self.subject.identity), Ok(false))
    }

    /// A window that covers `from..to`.
    pub(crate) fn window(&self, from: u64, to: u64) -> Result<Arc<Window>> {
        let mut slot = locked(&self.window);
        if let Some(window) = slot.as_ref().filter(|window| window.covers(from, to)) {
            return Ok(window.clone());
        }
        let window = Window::new(&*self.lend()?, from, to, self.settings.window);
        let window = window.map_err(|error| Error::io_at("map the log", &self.path, from, error))?;
        Ok(slot.insert(Arc::new(window)).clone())
    }

    pub(crate) fn take_buffer(&self) -> Vec<u8> {
        locked(&self.buffers).pop().unwrap_or_default()
    }

    pub(crate) fn give_buffer(&self, buffer: Vec<u8>) {
        let mut buffers = locked(&self.buffers);
        if buffers.len() < BUFFERS_KEPT {
            buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Beginning, ControlWriter};
    use crate::settings::WaitStrategy;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    /// A log with its control page, and a descriptor to take the writer's lock with. No helper thread moves the heartbeat.
    fn log() -> (tempfile::TempDir, File, Opened, ControlWriter) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (file, metadata, _) = file::open_to_write(&path, None).unwrap();
        let subject = Subject::new(&metadata, Some(dir.path()));
        let start = Pair { count: 0, end: HEADER_BYTES };
        let beginning = Beginning { published: start, durable: start, history_id: [0; 2], epoch: 1 };
        let (control, reason) = ControlWriter::create(&subject, beginning, 0o600).unwrap();
        assert_eq!(reason, None);
        let pool = Pool::new(&path, file::open_to_read(&path).unwrap().0, subject.identity, 2);
        let (read_mode, wait_strategy) = (ReadMode::default(), WaitStrategy::default());
        let settings = Settings { read_mode, wait_strategy, max_record: None, durable: false, window: 1 << 21 };
        (dir, file, Opened::new(path, settings, subject, pool), control)
    }

    fn set_age(control: &ControlWriter, age: Duration) {
        let heartbeat = crate::sys::futex::monotonic().saturating_sub(age).as_nanos() as u64;
        control.page().heartbeat.store(heartbeat, Relaxed);
    }

    #[test]
    fn only_a_page_that_its_writer_moves_is_taken_up() {
        let (_dir, file, opened, mut control) = log();
        assert!(opened.view().is_some());
        assert!(opened.page_to_follow(None).is_none(), "nobody writes");
        assert!(locks::lock(&file, Duration::ZERO).unwrap());
        assert!(opened.page_to_follow(None).is_none(), "somebody does, but the page was there before");
        set_age(&control, Duration::ZERO);
        assert!(opened.page_to_follow(None).is_some(), "its heartbeat has moved");
        locks::unlock(&file).unwrap();
        assert!(opened.page_to_follow(None).is_none(), "nobody writes any more");
        assert!(locks::lock(&file, Duration::ZERO).unwrap());
        control.publish(Pair { count: 0, end: HEADER_BYTES + 1 });
        assert!(opened.page_to_follow(None).is_some(), "it moves without a heartbeat");
    }

    #[test]
    fn a_page_with_an_old_heartbeat_is_not_taken_up_but_stayed_with() {
        let (_dir, file, opened, mut control) = log();
        assert!(locks::lock(&file, Duration::ZERO).unwrap());
        let view = opened.page_to_follow(None).expect("it is new");
        let Some(mut pulse) = locked(&opened.pulse).take() else { panic!("it was looked at") };
        assert!(!opened.is_still(&view));
        // Since two seconds ago.
        pulse.since = Instant::now().checked_sub(HEARTBEAT_OLD);
        *locked(&opened.pulse) = Some(pulse);
        assert!(opened.is_still(&view));
        assert!(opened.page_to_follow(None).is_none());
        assert!(opened.page_to_follow(Some(&view)).is_some());
        control.publish(Pair { count: 0, end: HEADER_BYTES + 1 });
        assert!(opened.page_to_follow(None).is_some(), "its writer lives, without a helper thread");
    }

    #[test]
    fn the_age_of_a_page_that_is_met_is_told_by_the_clock() {
        let (_dir, file, opened, control) = log();
        assert!(locks::lock(&file, Duration::ZERO).unwrap());
        set_age(&control, HEARTBEAT_OLD);
        assert!(opened.page_to_follow(None).is_none());
        set_age(&control, Duration::ZERO);
        assert!(opened.page_to_follow(None).is_some());
    }
}
