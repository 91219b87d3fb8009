//! A record, and where a tailer begins.

use std::fmt;
use std::io::{Cursor, Read};
use std::time::SystemTime;

/// Where a tailer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Start {
    /// With the first record.
    Beginning,
    /// With the first record that is published after the tailer was made.
    End,
    /// Behind the first `n` records; waits for record `n` where there are fewer.
    Skip(u64),
    /// Behind the first `n` records, or behind as many as there are.
    SkipAtMost(u64),
    /// With the last `n` records, or with all where there are fewer.
    Last(u64),
    /// With the record of this sequence; waits for it where it is not there yet.
    Sequence(u64),
    /// With the first record that was published at this time or later, as the index tells: with a record that came up to two
    /// seconds earlier, but never a later one. [`Error::NoTimes`](crate::Error::NoTimes) without an index.
    Time(SystemTime),
}

impl From<i64> for Start {
    /// The meaning of the original Go package: 0 the beginning, negative only what comes after now, positive skip that
    /// many, or as many as there are.
    fn from(n: i64) -> Start {
        match n {
            0 => Start::Beginning,
            n if n < 0 => Start::End,
            n => Start::SkipAtMost(n.unsigned_abs()),
        }
    }
}

/// A record; borrows its tailer until the next call.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    sequence: u64,
    position: u64,
    payload: &'a [u8],
}

impl<'a> Record<'a> {
    #[inline(always)]
    pub(super) fn new(sequence: u64, position: u64, payload: &'a [u8]) -> Record<'a> {
        Record { sequence, position, payload }
    }

    /// How many records come before it.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The offset of its size field in the log, in bytes.
    #[inline]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What was appended.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The payload as a source.
    pub fn reader(&self) -> impl Read + 'a {
        Cursor::new(self.payload)
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("sequence", &self.sequence)
            .field("position", &self.position)
            .field("size", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// Where a tailer has found a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) sequence: u64,
    pub(super) position: u64,
    pub(super) size: u64,
    pub(super) place: Place,
}

/// What holds its payload.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    Chunk,
    Large,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_means_what_it_means_in_go() {
        assert_eq!(Start::from(0), Start::Beginning);
        assert_eq!(Start::from(-1), Start::End);
        assert_eq!(Start::from(i64::MIN), Start::End);
        assert_eq!(Start::from(7), Start::SkipAtMost(7));
    }
}
