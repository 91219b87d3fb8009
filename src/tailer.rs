//! Follows a log.
use crate::{Result, Stopper, WriterState};
use std::io::Read;
use std::marker::PhantomData;
use std::time::Duration;

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
}

impl From<i64> for Start {
    /// The meaning of the original Go package: 0 the beginning, negative only what comes after now, positive skip that many.
    fn from(n: i64) -> Start {
        match n {
            0 => Start::Beginning,
            n if n < 0 => Start::End,
            n => Start::SkipAtMost(n.unsigned_abs()),
        }
    }
}

/// How a tailer's waits ended, counted by cause since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitCounts {
    /// Times that it slept on the control page (the causes below add up to it).
    pub sleeps: u64,
    /// Sleeps ended by a wake-up.
    pub woken: u64,
    /// Sleeps that did not begin, because the commit word had moved on.
    pub moved_on: u64,
    /// Sleeps ended by their bound.
    pub bound: u64,
    /// Sleeps ended by a signal.
    pub interrupted: u64,
    /// Sleeps ended by their bound although a record was waiting: lost wake-ups.
    pub lost: u64,
    /// Looks at intervals, where there is no doorbell or no control page.
    pub polls: u64,
}

/// Follows a log from one record to the next. `Send`.
#[derive(Debug)]
pub struct Tailer {}

impl Tailer {
    /// The next record if it is published, without waiting.
    pub fn try_next(&mut self) -> Result<Option<Record<'_>>> {
        todo!()
    }
    /// The next record; waits for it, also across a writer's close and restart. `None` only once stopped.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Record<'_>>> {
        todo!()
    }
    /// The next record; waits at most `limit`, then fails with [`Error::TimedOut`](crate::Error::TimedOut). `None` only once stopped.
    pub fn next_timeout(&mut self, limit: Duration) -> Result<Option<Record<'_>>> {
        let _ = limit;
        todo!()
    }
    /// What ends the waits of this tailer from another thread or a signal handler.
    pub fn stopper(&self) -> Stopper {
        todo!()
    }
    /// Who is writing.
    pub fn writer(&self) -> Result<WriterState> {
        todo!()
    }
    /// The sequence of the next record.
    pub fn sequence(&self) -> u64 {
        todo!()
    }
    /// The position of the next record.
    pub fn position(&self) -> u64 {
        todo!()
    }
    /// How its waits ended so far.
    pub fn wait_counts(&self) -> WaitCounts {
        todo!()
    }
}

/// A record; borrows its tailer until the next call.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    payload: PhantomData<&'a [u8]>,
}

impl<'a> Record<'a> {
    /// How many records come before it.
    pub fn sequence(&self) -> u64 {
        todo!()
    }
    /// The offset of its size field in the log, in bytes.
    pub fn position(&self) -> u64 {
        todo!()
    }
    /// What was appended.
    pub fn payload(&self) -> &'a [u8] {
        todo!()
    }
    /// The payload as a source.
    pub fn reader(&self) -> impl Read + 'a {
        std::io::Cursor::new(self.payload())
    }
}
