//! Printing records as they come, flushed after each batch; what `cat` and `tail` share.

use std::time::{Duration, Instant};

use immuta::{Error, Tailer};

use crate::failure::Failure;
use crate::output::Output;
use crate::signals::Signals;

/// How often a follower that gets nothing looks whether anybody reads what it prints.
const OUTPUT_INTERVAL: Duration = Duration::from_secs(1);

/// When to end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Follow {
    /// Before the record of this sequence.
    pub until: Option<u64>,
    /// After so many records.
    pub count: Option<u64>,
    /// Once no record came for so long.
    pub timeout: Option<Duration>,
    /// Whether to wait for records at all.
    pub waits: bool,
}

/// Prints records until `what` says to end, or a signal or an error comes. All that was delivered has been written then.
pub fn follow(tailer: &mut Tailer, output: &mut Output<'_>, signals: &Signals, what: &Follow) -> Result<(), Failure> {
    if what.waits {
        signals.stop(tailer.stopper())?;
    }
    let result = print(tailer, output, signals, what);
    output.flush()?;
    result
}

fn print(tailer: &mut Tailer, output: &mut Output<'_>, signals: &Signals, what: &Follow) -> Result<(), Failure> {
    let mut left = what.count.unwrap_or(u64::MAX);
    let mut last = Instant::now();
    let is_over = |sequence: u64, left: u64| left == 0 || what.until.is_some_and(|until| sequence >= until);
    loop {
        let mut came = false;
        while !is_over(tailer.sequence(), left) {
            let Some(record) = tailer.try_next()? else { break };
            output.write(&record)?;
            (left, came) = (left - 1, true);
            signals.check()?;
        }
        if is_over(tailer.sequence(), left) || (!what.waits && what.until.is_none()) {
            return Ok(());
        }
        if came {
            last = Instant::now();
        }
        output.flush()?;
        output.check()?;
        signals.check()?;
        let limit = what.timeout.map_or(OUTPUT_INTERVAL, |timeout| timeout.saturating_sub(last.elapsed()));
        match tailer.next_timeout(limit.min(OUTPUT_INTERVAL)) {
            Ok(Some(record)) => {
                output.write(&record)?;
                left -= 1;
                last = Instant::now();
            }
            Ok(None) => signals.check()?,
            Err(Error::TimedOut { path, .. }) => match what.timeout {
                Some(after) if last.elapsed() >= after => return Err(Error::TimedOut { path, after }.into()),
                _ => {}
            },
            Err(error) => return Err(error.into()),
        }
    }
}
