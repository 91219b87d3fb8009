//! What a reader and its tailers share: descriptors, the mapping, the control page, buffers.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::control::{ControlView, Subject};
use crate::error::{Error, Result};
use crate::format::control::state;
use crate::format::log::HEADER_BYTES;
use crate::index::{self, Found, Index};
use crate::protocol::{self, Pair};
use crate::scan::{self, Walk};
use crate::settings::Settings;
use crate::stat::WriterState;
use crate::sys::file::{self, Identity};
use crate::sys::locks;
use crate::sys::pool::{Lent, Pool};
use crate::window::Window;

/// Buffers that are kept for tailers that come to read in large steps again.
const BUFFERS_KEPT: usize = 4;

/// Up to this record a walk from the first is as fast as a look into the index.
const WALK_MOST: u64 = 200;

/// An opened log.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) path: PathBuf,
    pub(crate) settings: Settings,
    subject: Subject,
    pool: Pool,
    index_path: PathBuf,
    view: Mutex<Option<Arc<ControlView>>>,
    /// A page that was found behind the file, and its heartbeat then.
    dead: Mutex<Option<(Identity, u64)>>,
    window: Mutex<Option<Arc<Window>>>,
    buffers: Mutex<Vec<Vec<u8>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is under these locks is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Opened {
    pub(crate) fn new(path: PathBuf, settings: Settings, subject: Subject, pool: Pool) -> Opened {
        let (view, dead, window, buffers) = Default::default();
        let index_path = index::path_of(&path);
        Opened { path, settings, subject, pool, index_path, view, dead, window, buffers }
    }

    /// A descriptor; waits while all are lent.
    pub(crate) fn lend(&self) -> Result<Lent<'_>> {
        self.pool.lend().map_err(|error| Error::io("open another descriptor of the log", &self.path, error))
    }

    /// The number of records that the file says it has.
    pub(crate) fn count(&self) -> Result<u64> {
        scan::count(&self.path, &*self.lend()?)
    }

    /// The control page that has the name now, if there is one that can be believed and followed.
    pub(crate) fn view(&self) -> Option<Arc<ControlView>> {
        let mut slot = locked(&self.view);
        let followed = |view: &ControlView| view.is_followed() && !self.is_dead(view);
        if let Some(view) = slot.as_ref().filter(|view| followed(view) && view.is_named(&self.subject)) {
            return Some(view.clone());
        }
        *slot = ControlView::open(&self.subject).filter(|view| followed(view) && self.agrees(view)).map(Arc::new);
        slot.clone()
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

    /// Does not follow this page any more, unless its writer comes back to life: the file is ahead of it.
    pub(crate) fn bury(&self, view: &ControlView) {
        *locked(&self.dead) = Some((view.identity(), view.heartbeat()));
    }

    fn is_dead(&self, view: &ControlView) -> bool {
        *locked(&self.dead) == Some((view.identity(), view.heartbeat()))
    }

    /// Whether a writer holds its lock.
    pub(crate) fn is_written(&self) -> Result<bool> {
        locks::is_locked(&*self.lend()?).map_err(|error| Error::io("ask for the writer's lock of", &self.path, error))
    }

    /// Who is writing. `view` is the control page followed so far, `at` a place at or before the end.
    pub(crate) fn writer(&self, view: Option<&ControlView>, at: Pair) -> Result<WriterState> {
        let newest;
        let view = match view.filter(|view| view.state() != state::SUPERSEDED) {
            Some(view) => Some(view),
            None => {
                newest = self.view();
                newest.as_deref()
            }
        };
        // The lock first: a writer says how it ended before it gives the lock back.
        let alive = self.is_written()?;
        match (alive, view.map(ControlView::state)) {
            (_, Some(state::FAILED)) => Ok(WriterState::Failed),
            (true, _) => Ok(WriterState::Alive),
            (false, Some(state::CLOSED)) => Ok(WriterState::Closed),
            (false, Some(_)) => Ok(WriterState::Gone),
            // Without a page the file tells: a clean close cuts it to its exact end.
            (false, None) => {
                let file = self.lend()?;
                // The count first: a writer that begins now makes the file longer before it counts more.
                let count = scan::count(&self.path, &file)?;
                let file_bytes = file::metadata(&self.path, &file)?.len();
                let at = if at.count < count { self.seek(&file, count).later(at) } else { at };
                let mut walk = Walk::new(&self.path, &file, at, file_bytes);
                walk.go_to(count)?;
                let exact = walk.position == file_bytes || file_bytes == 0;
                Ok(if exact { WriterState::Closed } else { WriterState::Gone })
            }
        }
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
        let count = scan::count(&self.path, &file)?;
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
        let page = self.view().and_then(|view| u32::try_from(view.pid()).ok());
        page.or_else(|| locks::holder(self.subject.identity))
    }

    /// Whether the name leads to another file now, or to none.
    pub(crate) fn is_replaced(&self) -> bool {
        !file::names(&self.path, self.subject.identity)
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
