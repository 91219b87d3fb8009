//! Follows a log from one record to the next: this file goes on, `fetch` gets bytes to hand, `look` looks how far it may, `wait` waits.

mod fetch;
mod look;
mod record;
mod wait;

use std::sync::Arc;
use std::time::Duration;

pub use record::{Record, Start};
pub use wait::WaitCounts;

use crate::chunk::Chunk;
use crate::control::ControlView;
use crate::error::{Error, Result};
use crate::format::log::{SIZE_BYTES, next_position};
use crate::opened::Opened;
use crate::protocol::Pair;
use crate::scan::{self, past_the_end};
use crate::stat::WriterState;
use crate::stop::Stopper;
use look::Pace;
use record::{Found, Place};
use wait::Waiting;

/// Follows a log from one record to the next. `Send`.
#[derive(Debug)]
pub struct Tailer {
    opened: Arc<Opened>,
    /// The control page that is followed; without one, the count in the file.
    view: Option<Arc<ControlView>>,
    /// Where the next record lies.
    next: Pair,
    /// Bytes below this are published.
    known: u64,
    /// Records below this are passed over.
    first: u64,
    /// Without a control page: the count as of the last look.
    counted: u64,
    /// Bytes below `known`.
    chunk: Chunk,
    /// The last step of mapping ahead, and where it ended.
    step: (u64, u64),
    /// What the chunk's window has below this was given back.
    passed: u64,
    /// A payload that is too large for the chunk, where the mapping is not to be used.
    large: Vec<u8>,
    pace: Pace,
    /// The largest payload that is taken.
    max: u64,
    /// Takes only what is durable.
    durable: bool,
    stopper: Stopper,
    waiting: Waiting,
}

impl Tailer {
    /// Begins at `at`, passing over what comes before record `first`.
    pub(crate) fn new(opened: Arc<Opened>, at: Pair, first: u64) -> Result<Tailer> {
        let durable = opened.settings.durable;
        Ok(Tailer {
            view: if durable { Some(opened.durable_page()?) } else { opened.page_to_follow(None) },
            durable,
            max: opened.settings.max_record.unwrap_or(u64::MAX),
            opened,
            next: at,
            known: at.end,
            first,
            counted: 0,
            chunk: Chunk::default(),
            step: (0, 0),
            passed: at.end,
            large: Vec::new(),
            pace: Pace::default(),
            stopper: Stopper::default(),
            waiting: Waiting::default(),
        })
    }

    /// The next record if it is published, without waiting. (Behind a writer that is flat out the look for it may take up to 16 µs, so that
    /// the two do not fight for the cache lines that they share.)
    ///
    /// # Errors
    /// [`Error::Damaged`] where the log cannot be what it says, [`Error::TooLarge`] beyond
    /// [`max_record`](crate::ReaderOptions::max_record), [`Error::Replaced`] when the log was removed or another file has
    /// its name, after all that is readable was delivered, [`Error::Io`].
    #[inline(always)]
    pub fn try_next(&mut self) -> Result<Option<Record<'_>>> {
        match self.at_hand() {
            Some(found) => Ok(Some(self.record_at_hand(found))),
            None => self.try_elsewhere(),
        }
    }

    #[inline(never)]
    fn try_elsewhere(&mut self) -> Result<Option<Record<'_>>> {
        match self.advance()? {
            Some(found) => Ok(Some(self.record(found))),
            None if self.waiting.replaced => Err(Error::Replaced { path: self.opened.path.clone() }),
            None => Ok(None),
        }
    }

    /// The next record; waits for it, also across a writer's close and restart. `None` only once stopped.
    ///
    /// # Errors
    /// As for [`try_next`](Tailer::try_next).
    #[inline(always)]
    #[allow(clippy::should_implement_trait)] // An iterator cannot lend its items, and these wait and fail.
    pub fn next(&mut self) -> Result<Option<Record<'_>>> {
        self.next_within(None)
    }

    /// The next record; waits for it for at most `limit`. `None` only once stopped.
    ///
    /// # Errors
    /// [`Error::TimedOut`] when nothing came, and those of [`next`](Tailer::next).
    #[inline(always)]
    pub fn next_timeout(&mut self, limit: Duration) -> Result<Option<Record<'_>>> {
        self.next_within(Some(limit))
    }

    #[inline(always)]
    fn next_within(&mut self, limit: Option<Duration>) -> Result<Option<Record<'_>>> {
        if self.stopper.is_stopped() {
            return Ok(None);
        }
        match self.at_hand() {
            Some(found) => Ok(Some(self.record_at_hand(found))),
            None => self.next_elsewhere(limit),
        }
    }

    #[inline(never)]
    fn next_elsewhere(&mut self, limit: Option<Duration>) -> Result<Option<Record<'_>>> {
        let found = match self.advance()? {
            Some(found) => found,
            None => match self.wait_for_next(limit)? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        Ok(Some(self.record(found)))
    }

    /// What ends the waits of this tailer, from another thread or a signal handler; for good.
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Who is writing.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Damaged`] where only the file can tell and it is damaged.
    pub fn writer(&self) -> Result<WriterState> {
        self.opened.writer(self.view.as_deref(), self.next)
    }

    /// The sequence of the next record.
    pub fn sequence(&self) -> u64 {
        self.next.count.max(self.first)
    }

    /// The position of the next record, in bytes; of an earlier one while the tailer waits for a record beyond the end.
    pub fn position(&self) -> u64 {
        self.next.end
    }

    /// How its waits ended so far.
    pub fn wait_counts(&self) -> WaitCounts {
        self.waiting.counts
    }

    /// Goes behind the record at `next` if it lies in the chunk, as nearly all do where there is much to read: its sequence, its
    /// position, and where its payload is.
    #[inline(always)]
    fn at_hand(&mut self) -> Option<(Pair, (usize, usize))> {
        let next = self.next;
        let payload = self.chunk.payload_at(next.end)?;
        let size = payload.1 as u64;
        if next.end >= self.known || next.count < self.first || size > self.max {
            return None;
        }
        self.next = Pair { count: next.count + 1, end: next.end + SIZE_BYTES + size };
        Some((next, payload))
    }

    #[inline(always)]
    fn record_at_hand(&self, (Pair { count: sequence, end: position }, payload): (Pair, (usize, usize))) -> Record<'_> {
        Record::new(sequence, position, self.chunk.payload(payload))
    }

    #[inline(always)]
    fn record(&self, found: Found) -> Record<'_> {
        let Found { sequence, position, size, place } = found;
        let payload = position + SIZE_BYTES;
        let payload = match place {
            Place::Chunk => self.chunk.slice(payload, size),
            Place::Large => Some(&self.large[..]),
        };
        Record::new(sequence, position, payload.expect("a record lies where it was found"))
    }

    /// Goes behind the next published record.
    #[inline]
    fn advance(&mut self) -> Result<Option<Found>> {
        loop {
            if self.next.end >= self.known && !self.look()? {
                return Ok(None);
            }
            if self.next.count >= self.first {
                return self.take().map(Some);
            }
            self.pass_over()?;
        }
    }

    /// Goes behind the record at `next`, which nobody asked for, whatever its size.
    #[cold]
    fn pass_over(&mut self) -> Result<()> {
        let position = self.next.end;
        let read = self.chunk.number(position).and_then(|size| next_position(position, size));
        let end = match read.filter(|end| *end <= self.known) {
            Some(end) => end,
            None => self.measure()?.1,
        };
        self.next = Pair { count: self.next.count + 1, end };
        Ok(())
    }

    /// Takes the record at `next`, which begins below `known`.
    #[inline]
    fn take(&mut self) -> Result<Found> {
        let position = self.next.end;
        if let Some(size) = self.chunk.number(position)
            && size <= self.max
            && self.chunk.slice(position + SIZE_BYTES, size).is_some()
        {
            return Ok(self.found(size, position + SIZE_BYTES + size, Place::Chunk));
        }
        self.take_elsewhere()
    }

    #[inline(always)]
    fn found(&mut self, size: u64, end: u64, place: Place) -> Found {
        let Pair { count: sequence, end: position } = self.next;
        self.next = Pair { count: sequence + 1, end };
        Found { sequence, position, size, place }
    }

    /// The size of the record at `next` and the position behind it.
    fn measure(&mut self) -> Result<(u64, u64)> {
        let position = self.next.end;
        let ready = self.known - position;
        if !self.map_ahead(ready)? {
            self.fill(ready)?;
        }
        let size = self.chunk.number(position);
        let end = size.and_then(|size| next_position(position, size)).filter(|end| *end <= self.known);
        let (Some(size), Some(end)) = (size, end) else {
            return Err(past_the_end(&self.opened.path, self.next.count, position, size, self.known));
        };
        Ok((size, end))
    }

    fn take_elsewhere(&mut self) -> Result<Found> {
        let position = self.next.end;
        let (size, end) = self.measure()?;
        if size > self.max {
            let (path, sequence) = (self.opened.path.clone(), self.next.count);
            return Err(Error::TooLarge { path, sequence, position, size, max: self.max });
        }
        let is_here = self.chunk.slice(position + SIZE_BYTES, size).is_some();
        let place = if is_here || self.is_trusted() && self.map_large(size, end)? {
            Place::Chunk
        } else {
            let max = self.opened.settings.max_record.unwrap_or(scan::COPIED_MOST);
            self.large = scan::copy(&self.opened.path, &*self.opened.lend()?, self.next, size, max)?;
            Place::Large
        };
        Ok(self.found(size, end, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::Reader;

    /// Bytes above what is known may change yet: they are not kept, and so not parsed later, whatever fails.
    #[test]
    fn a_chunk_holds_nothing_above_what_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let number = |n: u64| n.to_le_bytes();
        // One record, which lacks most of its bytes.
        std::fs::write(&path, [number(1), number(100), number(7)].concat()).unwrap();
        let mut tailer = Reader::open(&path).unwrap().tail(0).unwrap();
        for _ in 0..2 {
            assert!(matches!(tailer.try_next(), Err(Error::Damaged { sequence: Some(0), .. })));
            assert!(tailer.chunk.end() <= tailer.known, "{} of {}", tailer.chunk.end(), tailer.known);
        }
    }
}
