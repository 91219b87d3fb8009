//! How far a log survives a power cut, and the flushes that say so. Whoever flushes, the writer or the helper thread, goes
//! through one lock, so that the control page's durable words have one storing thread at a time.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crate::cover::Cover;
use crate::format::control::{ControlPage, state};
use crate::format::index::Block;
use crate::protocol::{self, Pair};
use crate::sys::map::View;
use crate::sys::{fault, file, futex};

/// The durable part of a log that is being written.
#[derive(Debug)]
pub(crate) struct Durable {
    file: Arc<File>,
    page: Arc<View<ControlPage>>,
    cover: Arc<Cover>,
    progress: Mutex<Progress>,
    has_failed: AtomicBool,
    reason: OnceLock<String>,
}

#[derive(Debug)]
struct Progress {
    pair: Pair,
    event: u64,
    /// The directory, as long as it may not be on the disk that the log is in it.
    directory: Option<File>,
    ended: bool,
}

impl Durable {
    /// For a log that is known to be durable up to `pair`; `directory` is the one it was created in.
    pub(crate) fn new(
        file: Arc<File>,
        page: Arc<View<ControlPage>>,
        cover: Arc<Cover>,
        pair: Pair,
        directory: Option<File>,
    ) -> Durable {
        let progress = Mutex::new(Progress { pair, event: 0, directory, ended: false });
        let (has_failed, reason) = Default::default();
        Durable { file, page, cover, progress, has_failed, reason }
    }

    /// What is known to be durable. Waits for no flush.
    pub(crate) fn pair(&self) -> Pair {
        // Whoever stores it does so seldom, so that one of a few tries meets a pair that stands.
        let found = (0..1000).find_map(|_| protocol::try_pair(&self.page.durable));
        found.unwrap_or(Pair { count: 0, end: 0 })
    }

    /// Whether a flush has failed; then nothing more may be published.
    #[inline(always)]
    pub(crate) fn has_failed(&self) -> bool {
        // Acquire: pairs with the release in `fail`; the reason is there before.
        self.has_failed.load(Ordering::Acquire)
    }

    /// Why.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }

    /// Flushes the bytes of the log alone: one half of what `Sync` does.
    pub(crate) fn flush_bytes(&self) -> io::Result<()> {
        let mut progress = self.progress();
        // The helper's may have failed just now: then this one would find clean pages.
        self.check()?;
        self.named(&mut progress).and_then(|()| file::flush(&self.file)).inspect_err(|error| self.fail(error))
    }

    fn check(&self) -> io::Result<()> {
        if self.has_failed() { Err(io::Error::other("a flush failed earlier")) } else { Ok(()) }
    }

    /// Says that all up to `pair` is durable. `true` where more followers may be asleep.
    pub(crate) fn publish(&self, pair: Pair) -> bool {
        self.store(&mut self.progress(), pair)
    }

    /// Makes all that is published durable, and says so on the control page and in the index. `true` where more followers may be asleep.
    pub(crate) fn flush(&self, published: Pair) -> io::Result<bool> {
        let mut progress = self.progress();
        if progress.ended || (progress.pair.count >= published.count && progress.directory.is_none()) {
            return Ok(false);
        }
        self.flush_up_to(&mut progress, published, Block { durable: true, ..Block::default() })?;
        Ok(self.store(&mut progress, published))
    }

    /// The last flush, of a log that was cut to its exact end.
    pub(crate) fn close(&self, published: Pair) -> io::Result<()> {
        let mut progress = self.progress();
        self.flush_up_to(&mut progress, published, Block { durable: true, closed: true, ..Block::default() })?;
        self.store(&mut progress, published);
        Ok(())
    }

    fn flush_up_to(&self, progress: &mut Progress, published: Pair, mark: Block) -> io::Result<()> {
        self.check()?;
        // The checksums before the flush, so that the index is a moment behind the log, and not a flush.
        self.cover.complete(published);
        let flushed = self.named(progress).and_then(|()| file::flush(&self.file));
        flushed.inspect_err(|error| self.fail(error))?;
        self.cover.checkpoint(published, mark, true).map_err(io::Error::other).inspect_err(|error| self.fail(error))
    }

    /// In `Sync` mode what is published is durable: says so in the index, for a recovery that then has less to do.
    pub(crate) fn note(&self) {
        let progress = self.progress();
        if !progress.ended && !self.has_failed() {
            // Where the index cannot be written it is taken away; where that fails too, the count still tells the truth.
            let _ = self.cover.checkpoint(progress.pair, Block { durable: true, ..Block::default() }, false);
        }
    }

    fn named(&self, progress: &mut Progress) -> io::Result<()> {
        if let Some(directory) = &progress.directory {
            directory.sync_all()?;
            progress.directory = None;
        }
        Ok(())
    }

    fn store(&self, progress: &mut Progress, pair: Pair) -> bool {
        /// Followers of what is durable that are woken at once. They do not announce themselves: a flush takes longer than a wake-up.
        const WAKE_MOST: u32 = 2;
        progress.pair = pair;
        progress.event += 1;
        protocol::publish(&self.page.durable, progress.event, pair);
        futex::wake(&self.page.durable.commit, WAKE_MOST) >= WAKE_MOST
    }

    /// Wakes the followers of what is durable, all of them: the state has changed.
    pub(crate) fn tell(&self) {
        let mut progress = self.progress();
        let pair = progress.pair;
        self.store(&mut progress, pair);
        self.wake_all();
    }

    /// Wakes all followers of what is durable.
    pub(crate) fn wake_all(&self) {
        futex::wake(&self.page.durable.commit, i32::MAX as u32);
    }

    fn fail(&self, error: &io::Error) {
        let _ = self.reason.set(error.to_string()); // The first failure is the one that counts.
        // The writer's thread owns the state, and stores it again with an event. Until it comes round, this tells.
        fault::at("failed");
        self.page.state.store(state::FAILED, Ordering::Release);
        self.has_failed.store(true, Ordering::Release);
        self.cover.note_failure();
        futex::wake(&self.page.published.commit, i32::MAX as u32);
        self.wake_all();
    }

    /// When this returns, nobody flushes any more but [`close`](Durable::close).
    pub(crate) fn end(&self) {
        self.progress().ended = true;
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        // What is under this lock is whole between any two statements.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
