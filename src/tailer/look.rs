//! How far a tailer may read: by the control page, or by the count in the log.

use std::time::{Duration, Instant};

use super::Tailer;
use crate::chunk::CHUNK_BYTES;
use crate::error::{Error, Result};
use crate::format::log::{COUNT_OFFSET, next_position};
use crate::protocol::{self, Pair};
use crate::scan::past_the_end;
use crate::sys::file;
use crate::units::KIB;

/// A look that gave at least this much was worth the cache lines that it took from the writer: the next one may follow at once.
const WORTH: u64 = 64 * KIB;
/// Other looks follow each other at least this far apart.
const PACE: Duration = Duration::from_nanos(700);
/// So far at most, behind a writer that goes on and on at [`FLAT_OUT`].
const PACE_MOST: Duration = Duration::from_micros(16);
/// Bytes a nanosecond from which on it is how much comes that counts, and not when.
const FLAT_OUT: u128 = 1;

/// When to look at the control page again. A look takes cache lines from the writer, the page's and those behind the end, which the processor
/// fetches in advance; looks without a pause cost a factor of five in throughput (FACTS). None is put off after an empty one, so that a record
/// that comes then is never late; and none by more than an eighth of the time for which the writer has been flat out, so that a burst is
/// late by no more than that.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Instant>,
    pause: Duration,
    flat_out_since: Option<Instant>,
}

impl Pace {
    /// Whether the writer was flat out when it was last looked at, as far as one can see who has kept up with it.
    pub(super) fn is_flat_out(&self) -> bool {
        self.flat_out_since.is_some()
    }

    /// Returns when the next look is due.
    #[inline]
    fn keep(&self) {
        let Some(last) = self.last else { return };
        while last.elapsed() < self.pause {
            std::hint::spin_loop();
        }
    }

    /// After a look that gave `gain` bytes.
    #[inline]
    fn note(&mut self, gain: u64) {
        if gain == 0 {
            *self = Pace::default();
        } else {
            self.note_at(gain, Instant::now());
        }
    }

    #[inline]
    fn note_at(&mut self, gain: u64, now: Instant) {
        let last = self.last.replace(now).filter(|last| u128::from(gain) >= FLAT_OUT * (now - *last).as_nanos());
        self.flat_out_since = last.map(|last| self.flat_out_since.unwrap_or(last));
        let most = self.flat_out_since.map_or(PACE, |since| (now - since) / 8);
        self.pause = if gain < WORTH { most.clamp(PACE, PACE_MOST) } else { Duration::ZERO };
    }
}

impl Tailer {
    /// Looks how far the log has come; `true` where there is more than was known.
    #[inline]
    pub(super) fn look(&mut self) -> Result<bool> {
        let Some(view) = &self.view else { return self.look_at_count() };
        self.pace.keep();
        let end = protocol::end(view.extent(self.durable));
        let gain = end.saturating_sub(self.known);
        self.pace.note(gain);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The pause after each of these looks: so long after the one before, with so many bytes.
    fn pauses(looks: &[(Duration, u64)]) -> (Vec<Duration>, bool) {
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let pauses = looks.iter().map(|(after, gain)| {
            now += *after;
            match gain {
                0 => pace.note(0),
                gain => pace.note_at(*gain, now),
            }
            if pace.last.is_some() { pace.pause } else { Duration::ZERO }
        });
        (pauses.collect(), pace.is_flat_out())
    }

    #[test]
    fn a_look_is_put_off_by_how_long_the_writer_was_flat_out() {
        let micros = Duration::from_micros;
        let fast = (micros(8), 8 * 1200);
        // Not yet known; 8 of 8, and 8 more each time.
        let (paused, flat_out) = pauses(&[fast; 20]);
        assert_eq!(paused[..4], [PACE, micros(1), micros(2), micros(3)]);
        assert_eq!((paused[19], flat_out), (PACE_MOST, true));
        // A slow one, and one that found nothing, end it.
        assert_eq!(pauses(&[fast, fast, fast, (micros(8), 72)]), (vec![PACE, micros(1), micros(2), PACE], false));
        assert_eq!(pauses(&[fast, fast, fast, (micros(8), 0), fast]).0[3..], [Duration::ZERO, PACE]);
        // What was worth it does not end it.
        let (paused, _) = pauses(&[fast, fast, fast, (micros(8), WORTH), fast]);
        assert_eq!(paused[3..], [Duration::ZERO, micros(4)]);
    }

    #[test]
    fn a_look_behind_a_writer_that_is_not_flat_out_is_put_off_by_less_than_a_microsecond() {
        for (after, gain) in [(700, 600), (5_000, 4_999), (1_000_000, 800_000)] {
            let (paused, flat_out) = pauses(&[(Duration::from_nanos(after), gain); 50]);
            assert!(!flat_out && paused.iter().all(|pause| *pause <= PACE), "{after} ns, {gain} bytes: {paused:?}");
        }
    }
}
