//! Gets bytes of records to hand: through the mapping, in steps that are made ready where there is much to read, or as a copy.

use super::Tailer;
use crate::chunk::CHUNK_BYTES;
use crate::error::{Error, Result};
use crate::format::log::SIZE_BYTES;
use crate::scan::past_the_end;
use crate::settings::ReadMode;
use crate::sys::file;
use crate::units::{KIB, LARGE_PAGE, MIB, PAGE, round_down, round_up};

/// Less than this, in bytes, is touched at once: it has just been written. What is more is made ready first, in steps.
const BULK_LEAST: u64 = 16 * KIB;
/// The same right behind a writer that is flat out, where looks follow each other in microseconds and give more.
const BULK_LEAST_FLAT_OUT: u64 = MIB;
/// The first of these steps, and the last: each is four times the one before.
const STEPS: (u64, u64) = (64 * KIB, MIB);

impl Tailer {
    fn is_touched_at_once(&self) -> bool {
        self.opened.settings.read_mode == ReadMode::Mapped
    }

    /// Whether the log's mapping may be used.
    pub(super) fn is_trusted(&self) -> bool {
        self.opened.settings.read_mode != ReadMode::Pread
    }

    /// Takes published bytes from `next` on into the chunk through the mapping, if it may be used and they can be had so.
    pub(super) fn map_ahead(&mut self, ready: u64) -> Result<bool> {
        if !self.is_trusted() || self.view.is_none() {
            return Ok(false);
        }
        let position = self.next.end;
        let least = if self.pace.is_flat_out() { BULK_LEAST_FLAT_OUT } else { BULK_LEAST };
        if ready < least {
            self.have_window(self.known)?;
            self.chunk.map(position, self.known);
            return Ok(true);
        }
        let (step, ahead) = self.step;
        // Large steps pay where the records follow each other, small ones where they jump beyond what was made ready.
        let step = if position < ahead + SIZE_BYTES { (step * 4).min(STEPS.1) } else { STEPS.0 };
        let to = self.known.min(round_up(position + step, PAGE));
        self.step = (step, to);
        let is_there = (self.is_touched_at_once() || self.file_bytes()? >= to) && self.make_ready(to)?;
        if is_there {
            self.chunk.map(position, to);
        }
        Ok(is_there)
    }

    /// Takes a record into the chunk that is larger than a step, if it can be had through the mapping.
    pub(super) fn map_large(&mut self, size: u64, end: u64) -> Result<bool> {
        let position = self.next.end;
        let file_bytes = self.file_bytes()?;
        // Before it is touched: bytes that the file does not have end the process.
        if end > file_bytes {
            return Err(past_the_end(&self.opened.path, self.next.count, position, Some(size), file_bytes));
        }
        if end - position > STEPS.1 {
            // Whether all of it is wanted is not known.
            self.have_window(end)?;
        } else if self.make_ready(end)? {
            self.step.1 = end;
        } else {
            return Ok(false);
        }
        self.chunk.map(position, end);
        Ok(true)
    }

    /// Has what follows up to `to` mapped, and read from the disk where need be: what cannot be read is then an error of the descriptor, which
    /// is used where this gives `false`, and not the end of the process.
    fn make_ready(&mut self, to: u64) -> Result<bool> {
        let position = self.next.end;
        if self.is_touched_at_once() {
            return self.have_window(to).map(|()| true);
        }
        // A descriptor does, too, where there is no address space.
        Ok(self.have_window(to).is_ok() && self.chunk.window().is_some_and(|window| window.populate(position, to)))
    }

    /// What was read ahead and passed is no memory of a follower that has caught up.
    pub(super) fn give_back(&mut self) {
        let next = self.next.end;
        if self.step.0 > 0
            && let Some(window) = self.chunk.window()
        {
            window.give_back(self.passed, next);
            self.passed = round_down(next, PAGE);
        }
        self.step = (0, 0);
    }

    fn file_bytes(&self) -> Result<u64> {
        Ok(file::metadata(&self.opened.path, &*self.opened.lend()?)?.len())
    }

    /// Has a window that covers what follows up to `to`. What lies behind is not looked at again, and would count as memory of this process.
    fn have_window(&mut self, to: u64) -> Result<()> {
        let from = self.next.end;
        match self.chunk.window() {
            Some(window) if window.covers(from, to) => {
                let passed = round_down(from, LARGE_PAGE);
                if passed > self.passed {
                    window.give_back(self.passed, passed);
                    self.passed = passed;
                }
            }
            _ => {
                let window = self.opened.window(from, to)?;
                self.chunk.set_window(window);
                self.passed = from;
            }
        }
        Ok(())
    }

    /// Reads the next step of published bytes into the chunk.
    pub(super) fn fill(&mut self, ready: u64) -> Result<()> {
        if self.chunk.has_no_buffer() {
            self.chunk.set_buffer(self.opened.take_buffer());
        }
        let position = self.next.end;
        let file = self.opened.lend()?;
        self.chunk
            .fill(&file, position, ready.min(CHUNK_BYTES))
            .map_err(|error| Error::io_at("read the log", &self.opened.path, position, error))
    }
}
