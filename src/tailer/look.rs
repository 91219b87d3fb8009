//! How far a tailer may read: by the control page, or by the count in the log.

use std::time::{Duration, Instant};

use super::Tailer;
use crate::error::{Error, Result};
use crate::format::log::{COUNT_OFFSET, next_position};
use crate::protocol::{self, Pair};
use crate::scan::{CHUNK_BYTES, past_the_end};
use crate::sys::file;
use crate::units::KIB;

/// A look at the control page that gave less than this was hardly worth the cache line that it took from the writer.
const TINY: u64 = 4 * KIB;
/// Looks that gave little follow each other at least this far apart.
const PACE: Duration = Duration::from_nanos(700);

impl Tailer {
    /// Looks how far the log has come; `true` where there is more than was known.
    #[inline]
    pub(super) fn look(&mut self) -> Result<bool> {
        let Some(view) = &self.view else { return self.look_at_count() };
        if let Some(last) = self.tiny_look {
            // The writer is at it: let it write some more before its cache line is taken again. This is worth a factor of
            // five in throughput (FACTS), and never delays a record that comes after an empty look.
            while last.elapsed() < PACE {
                std::hint::spin_loop();
            }
        }
        let end = protocol::end(view.extent(self.durable));
        let gain = end.saturating_sub(self.known);
        self.tiny_look = (gain > 0 && gain < TINY).then(Instant::now);
        self.known += gain;
        if gain > 0 { Ok(true) } else { self.look_elsewhere() }
    }

    /// After an empty look at the control page: once it is not followed any more, and at times in any case, looks for
    /// what it does not say.
    #[cold]
    fn look_elsewhere(&mut self) -> Result<bool> {
        if self.view.as_ref().is_some_and(|view| view.is_followed()) && !self.is_check_up_due() {
            return Ok(false);
        }
        if self.durable && self.gain() {
            // The last word of a page that is not followed any more: of what is durable nothing else tells.
            return Ok(true);
        }
        self.check_up()?;
        if self.view.is_some() { Ok(self.gain()) } else { self.look_at_count() }
    }

    /// Learns from the control page how far the log may be read; `true` where that is further than was known.
    fn gain(&mut self) -> bool {
        let end = self.view.as_ref().map_or(0, |view| protocol::end(view.extent(self.durable)));
        let gain = end.saturating_sub(self.known);
        self.known += gain;
        gain > 0
    }

    /// The same without a control page: reads what follows, as far as the count covers it.
    #[cold]
    fn look_at_count(&mut self) -> Result<bool> {
        let Pair { count: sequence, end: position } = self.next;
        if sequence >= self.counted {
            if self.is_check_up_due() {
                // Before the look, which so is the last where the log turns out to be gone. A page that it finds is
                // looked at next time.
                self.check_up()?;
            }
            if self.durable {
                return Ok(self.gain());
            }
            self.counted = self.opened.count()?;
            if sequence > self.counted {
                if self.opened.is_replaced() {
                    self.waiting.replaced = true;
                    return Ok(false);
                }
                let message = format!("the log counts {} records, and more were counted before", self.counted);
                return Err(Error::Damaged {
                    path: self.opened.path.clone(),
                    sequence: None,
                    position: COUNT_OFFSET,
                    message,
                });
            }
            if sequence == self.counted {
                return Ok(false);
            }
        }
        // Read only now: bytes that were read before the count that covers them was loaded may be older.
        self.fill(CHUNK_BYTES)?;
        let mut known = position;
        for _ in sequence..self.counted {
            let next = self.chunk.number(known).and_then(|size| next_position(known, size));
            match next.filter(|next| *next <= self.chunk.end()) {
                Some(next) => known = next,
                None => break,
            }
        }
        let size = self.chunk.number(position);
        // Before anything can fail: what lies above may change yet.
        self.chunk.cut(known);
        if known == position {
            // Larger than the chunk, or cut short.
            let file_bytes = file::metadata(&self.opened.path, &*self.opened.lend()?)?.len();
            let next = size.and_then(|size| next_position(position, size)).filter(|next| *next <= file_bytes);
            let cut_short = || past_the_end(&self.opened.path, sequence, position, size, file_bytes);
            known = next.ok_or_else(cut_short)?;
        }
        self.known = known;
        Ok(true)
    }
}
