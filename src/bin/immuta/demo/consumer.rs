//! A consumer of the demo: reads every byte of every record and compares it with what it must be.

use std::io;
use std::time::Duration;

use immuta::{Error, ReaderOptions, Record, Start, WriterState};

use super::figures::{Meter, Phase, REPORT_INTERVAL_NS, stamp_every, stamped};
use super::part::{PartArgs, report};
use crate::clock::now_ns;
use crate::crew::Parent;
use crate::failure::Failure;
use crate::payload::{FILLER, sum_of_rest};

/// How long it waits before it looks whether the producer has ended.
const PATIENCE: Duration = Duration::from_millis(50);

pub fn run(args: &PartArgs, parent: &Parent) -> Result<(), Failure> {
    let reader = ReaderOptions::new().wait_for_log(Duration::from_secs(5)).open(args.log())?;
    let mut tailer = reader.tail(Start::Beginning)?;
    parent.tell("ready")?;
    let mut seen = Seen::new(args.size);
    let mut is_over = false;
    while !parent.is_stopped() {
        if let Some(record) = tailer.try_next()? {
            if seen.take(&record)? {
                seen.report(parent)?;
            }
            continue;
        }
        if is_over {
            break;
        }
        match tailer.next_timeout(PATIENCE) {
            Ok(Some(record)) => {
                if seen.take(&record)? {
                    seen.report(parent)?;
                }
            }
            Ok(None) => break,
            Err(Error::TimedOut { .. }) => {
                seen.report(parent)?;
                // Nothing is published once it has ended; one more look shows what was until then.
                is_over = tailer.writer()? != WriterState::Alive;
            }
            Err(error) => return Err(error.into()),
        }
    }
    seen.report(parent)?;
    parent.tell("done")
}

/// What came.
#[derive(Debug)]
struct Seen {
    size: u64,
    every: u64,
    /// What the words behind the time add up to in each record.
    sum: u64,
    next: u64,
    phase: Phase,
    flat_out: Meter,
    paced: Meter,
    reported: (u64, u64),
}

impl Seen {
    fn new(size: u64) -> Seen {
        let sum = sum_of_rest(&vec![FILLER; size as usize]);
        let (flat_out, paced) = (Meter::new(), Meter::new());
        Seen { size, every: stamp_every(size), sum, next: 0, phase: Phase::FlatOut, flat_out, paced, reported: (0, 0) }
    }

    /// Checks a record and counts it; `true` where a report is due.
    #[inline]
    fn take(&mut self, record: &Record<'_>) -> Result<bool, Failure> {
        let payload = record.payload();
        if record.sequence() != self.next || payload.len() as u64 != self.size || sum_of_rest(payload) != self.sum {
            let message = format!("record {} is not what the producer appended", record.sequence());
            return Err(Failure::system("go on", io::Error::other(message)));
        }
        self.next += 1;
        let (mut now, mut latency) = (0, None);
        if let Some((phase, then)) = stamped(payload) {
            now = now_ns();
            (self.phase, latency) = (phase, Some(now.saturating_sub(then)));
        } else if record.sequence() % self.every == 0 {
            now = now_ns();
        }
        let meter = if self.phase == Phase::FlatOut { &mut self.flat_out } else { &mut self.paced };
        meter.count(1);
        if now == 0 {
            return Ok(false);
        }
        meter.look(now);
        latency.into_iter().for_each(|latency| meter.sample(latency));
        Ok(now >= self.reported.0 + REPORT_INTERVAL_NS)
    }

    /// Tells the parent, if there is anything new.
    fn report(&mut self, parent: &Parent) -> Result<(), Failure> {
        if self.reported.1 != self.next {
            self.reported = (now_ns(), self.next);
            report(parent, Phase::FlatOut, &self.flat_out)?;
            report(parent, Phase::Paced, &self.paced)?;
        }
        Ok(())
    }
}
