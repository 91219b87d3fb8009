//! Appends to a log.

mod batch;
mod claim;
mod from;
mod options;
mod repair;

use std::cell::Cell;
use std::fs::File;
use std::io::ErrorKind;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use batch::Batch;
pub use claim::Claim;
pub use options::{Notice, WriterOptions};
pub use repair::Repair;

use crate::control::ControlWriter;
use crate::cover::Cover;
use crate::durable::Durable;
use crate::error::{Error, Result};
use crate::format::control::state;
use crate::format::log::{SIZE_BYTES, next_position};
use crate::growth::Growth;
use crate::helper::Employed;
use crate::protocol::Pair;
use crate::space::Space;
use crate::stat::{Recovery, Stat, WriterState};
use crate::stop::Stopper;
use crate::sys::fork::{self, Owner};
use crate::sys::{file, locks};
use crate::upkeep::Upkeep;

/// How many sleepers the writer wakes itself; the helper thread goes on where there are more.
const WAKE_MOST: u32 = 2;
/// Where the helper woke more than this the last time, and has nothing else to do, it wakes all: the writer's own wake-ups would be nearly
/// all of its append. The first sleeper is later by the helper's own wake-up, the last one is not.
const CROWD: u32 = 16;

/// Where a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// How many records come before it.
    pub sequence: u64,
    /// The offset of its size field in the log, in bytes.
    pub position: u64,
    /// The payload's size, in bytes.
    pub size: u64,
}

/// The one that appends. `Send`, not `Sync`. Dropping it closes the log, with errors unseen.
///
/// In a forked child every method fails with [`Error::Forked`], and dropping it there does nothing to the log.
#[derive(Debug)]
pub struct Writer {
    space: Space,
    control: ControlWriter,
    published: Pair,
    owner: Owner,
    /// `None` once closed.
    work: Option<Work>,
    durable: Arc<Durable>,
    cover: Arc<Cover>,
    /// Each record is made durable before it is published.
    ordered: bool,
    /// The index should have a block end at the first record that ends here or beyond.
    mark_at: u64,
    path: PathBuf,
    file: Arc<File>,
    /// A failed flush has been told to the followers.
    failed: bool,
    stopper: Stopper,
    notices: Vec<Notice>,
    history_id: [u64; 2],
    recovery: Recovery,
    not_sync: PhantomData<Cell<()>>,
}

/// What the helper thread shares.
#[derive(Debug)]
struct Work {
    employed: Employed,
    upkeep: Arc<Upkeep>,
    growth: Arc<Growth>,
}

impl Writer {
    /// Opens a log with the default options, and creates it where there is none.
    ///
    /// # Errors
    /// As for [`WriterOptions::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Writer> {
        WriterOptions::new().open(path)
    }

    /// Appends a record and publishes it.
    ///
    /// # Errors
    /// [`Error::Io`] where there is no space (what was published stays, and appending goes on once there is room),
    /// [`Error::Failed`] after a failed [`sync`](Writer::sync), [`Error::Forked`] in a child.
    #[inline(always)]
    pub fn append(&mut self, payload: &[u8]) -> Result<Appended> {
        let (appended, next) = self.put(self.published, payload)?;
        self.publish(next)?;
        Ok(appended)
    }

    /// Writes a record behind `at`, which is at or beyond the published end, without publishing it.
    #[inline(always)]
    fn put(&mut self, at: Pair, payload: &[u8]) -> Result<(Appended, Pair)> {
        let size = payload.len() as u64;
        let next = at.end + SIZE_BYTES + size;
        if self.space.is_ready(at.end, next) && self.owner.is_current() && !self.durable.has_failed() {
            self.space.put(at.end, &size.to_le_bytes());
            self.space.put(at.end + SIZE_BYTES, payload);
        } else {
            self.put_slowly(at, payload)?;
        }
        let appended = Appended { sequence: at.count, position: at.end, size };
        Ok((appended, Pair { count: at.count + 1, end: next }))
    }

    #[cold]
    fn put_slowly(&mut self, at: Pair, payload: &[u8]) -> Result<()> {
        let size = payload.len() as u64;
        self.make_ready(at.end, size)?;
        self.space.write(at.end, &size.to_le_bytes())?;
        self.space.write(at.end + SIZE_BYTES, payload)
    }

    /// Makes space for a record of `size` bytes at `position`, if this writer may write at all.
    fn make_ready(&mut self, position: u64, size: u64) -> Result<()> {
        self.check()?;
        let next = next_position(position, size)
            .ok_or_else(|| Error::io_at("reserve space in the log", &self.path, position, ErrorKind::FileTooLarge))?;
        if self.space.is_mapped() && !self.space.is_ready(position, next) {
            if let Some(work) = &self.work {
                // Where the helper makes space all the time it has none for checksums, and the writer waits for half of it.
                while work.growth.is_awaited(next) && self.cover.assist(self.published) {}
            }
            if self.space.prepare(position, next)? {
                self.nudge();
            }
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        self.check_owner()?;
        if !self.durable.has_failed() {
            return Ok(());
        }
        self.end_failed();
        let message = self.durable.reason().unwrap_or("the reason is not known").to_owned();
        Err(Error::Failed { path: self.path.clone(), message })
    }

    fn check_owner(&self) -> Result<()> {
        if self.owner.is_current() { Ok(()) } else { Err(Error::Forked { path: self.path.clone() }) }
    }

    /// After a failed flush: nothing is published any more, and the followers are told, once.
    fn end_failed(&mut self) {
        if !self.failed {
            self.failed = true;
            self.space.retire();
            self.control.set_state(state::FAILED, self.published);
            self.durable.tell();
        }
    }

    /// The error of a flush that failed just now.
    fn flush_failed(&mut self, error: std::io::Error) -> Error {
        self.end_failed();
        Error::io("flush the log to the disk", &self.path, error)
    }

    #[inline(always)]
    fn publish(&mut self, pair: Pair) -> Result<()> {
        if self.ordered {
            return self.publish_in_order(pair);
        }
        self.space.publish(pair.count, pair.end)?;
        self.tell(pair);
        Ok(())
    }

    /// `Sync`: the bytes, a flush, the count, a flush; only then is it published. So the count on the disk never leads the data.
    fn publish_in_order(&mut self, pair: Pair) -> Result<()> {
        self.durable.flush_bytes().map_err(|error| self.flush_failed(error))?;
        self.space.publish(pair.count, pair.end)?;
        self.durable.flush_bytes().map_err(|error| self.flush_failed(error))?;
        if self.durable.publish(pair)
            && let Some(work) = &self.work
        {
            work.upkeep.ask_to_wake_durable();
            work.employed.nudge();
        }
        self.tell(pair);
        Ok(())
    }

    #[inline(always)]
    fn tell(&mut self, pair: Pair) {
        self.published = pair;
        if self.control.publish(pair) {
            self.wake();
        }
        if pair.end >= self.mark_at {
            self.mark();
        }
    }

    /// A block ends here. Where there is no helper thread, each append comes here, to do its work when that is due.
    #[cold]
    fn mark(&mut self) {
        self.mark_at = self.cover.mark(self.published);
        if let Some(work) = &self.work
            && !work.employed.is_helped()
        {
            self.mark_at = 0;
            work.upkeep.run_if_due();
        }
    }

    /// Wakes two sleepers, and has the helper wake the others: an append does not take longer for a thousand.
    #[cold]
    fn wake(&mut self) {
        let Some(work) = &self.work else { return };
        let most = match work.employed.is_helped() {
            true if work.upkeep.crowd() > CROWD && work.employed.is_at_hand() => 0,
            true => WAKE_MOST,
            false => i32::MAX as u32,
        };
        if !self.control.wake(work.upkeep.woken(), most) {
            work.upkeep.ask_to_wake();
            work.employed.nudge();
        }
    }

    fn nudge(&self) {
        if let Some(work) = &self.work {
            work.employed.nudge();
        }
    }

    /// Space for a record of `size` bytes, zeroed, to be written in place and then [committed](Claim::commit).
    ///
    /// # Errors
    /// As for [`append`](Writer::append).
    pub fn claim(&mut self, size: u64) -> Result<Claim<'_>> {
        self.make_ready(self.published.end, size)?;
        Claim::new(self, size)
    }

    /// Records that become visible together, when the batch is [committed](Batch::commit).
    pub fn batch(&mut self) -> Batch<'_> {
        Batch::new(self)
    }

    /// Returns when all that is published is durable.
    ///
    /// # Errors
    /// [`Error::Io`] where the flush fails: what is on the disk is unknown then, so the writer has failed for good, its
    /// followers are told, and every later call gives [`Error::Failed`].
    pub fn sync(&mut self) -> Result<()> {
        self.check()?;
        let more = self.durable.flush(self.published).map_err(|error| self.flush_failed(error))?;
        if more && let Some(work) = &self.work {
            work.upkeep.ask_to_wake_durable();
            work.employed.nudge();
        }
        self.space.populate();
        Ok(())
    }

    /// How many records are known to survive a power cut: all below this sequence.
    pub fn durable(&self) -> u64 {
        self.durable.pair().count
    }

    /// The log as it is now.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be looked at, [`Error::Forked`] in a child.
    pub fn stat(&self) -> Result<Stat> {
        self.check_owner()?;
        let writer = if self.durable.has_failed() { WriterState::Failed } else { WriterState::Alive };
        let [high, low] = self.history_id.map(u128::from);
        Ok(Stat {
            path: self.path.clone(),
            records: self.published.count,
            end: self.published.end,
            file_bytes: file::metadata(&self.path, &self.file)?.len(),
            durable_records: Some(self.durable()),
            writer,
            pid: (writer == WriterState::Alive).then(std::process::id),
            history_id: Some(high << 64 | low),
            recovery: Some(self.recovery.clone()),
        })
    }

    /// What ends an [`append_from`](Writer::append_from) midway, and every later one. Other appends are not affected.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// What this writer does without, to be said once.
    pub fn notices(&self) -> &[Notice] {
        &self.notices
    }

    /// Closes the log: cuts the file to its exact end, makes it durable, tells the followers.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be cut or flushed; it is closed all the same, and what was published is in it.
    /// [`Error::Failed`] where an earlier flush failed, [`Error::Forked`] in a child.
    pub fn close(mut self) -> Result<()> {
        self.check().and(self.finish())
    }

    fn finish(&mut self) -> Result<()> {
        let Some(work) = self.work.take() else { return Ok(()) };
        if !self.owner.is_current() {
            // Its helper thread runs in the parent, and the helper's locks may be held by it for ever here, so what it shares is
            // left alone; cutting, unlinking or unlocking would be done to the parent.
            std::mem::forget(work);
            self.space.leave_to_parent();
            fork::close_inherited(self.owner, self.file.clone());
            return Ok(());
        }
        // The helper's: from here on nobody else grows, flushes or indexes.
        work.growth.end();
        self.durable.end();
        drop(work);
        let mut result = Ok(());
        if !self.durable.has_failed() {
            let end = self.published.end;
            let cut =
                self.file.set_len(end).map_err(|error| Error::io_at("cut the log to its end", &self.path, end, error));
            // A flush that fails now says so on the control page, too. A log that was not cut is not closed.
            result = match cut {
                Ok(()) => self.durable.close(self.published).map_err(|error| self.flush_failed(error)),
                Err(error) => Err(error),
            };
        }
        self.cover.end();
        self.space.retire();
        if result.is_ok() && !self.durable.has_failed() {
            self.control.set_state(state::CLOSED, self.published);
            self.durable.tell();
        }
        if self.durable.has_failed() {
            // The page stays: it tells the next writer that the cache is not to be believed.
            self.end_failed();
        } else {
            self.control.unlink();
        }
        let unlocked = locks::unlock(&self.file).map_err(|error| Error::io("unlock the log", &self.path, error));
        result.and(unlocked)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Nobody is there to be told; the next writer repairs what was not done.
        let _ = self.finish();
    }
}
