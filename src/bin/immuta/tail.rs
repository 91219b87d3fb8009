//! `immuta tail`: the last records of a log, and those that follow.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use immuta::{Error, Reader, ReaderOptions, Start};

use crate::failure::Failure;
use crate::follow::{Follow, follow};
use crate::output::{Format, Output};
use crate::signals::Signals;

/// How often a follower that waits for its log looks for signals.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);

/// Print the last records of a log, and follow it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples: immuta tail -f events.log
          immuta tail -f --retry -n +0 -o json events.log
          immuta tail -f -n 0 --count 1 --timeout 2s events.log")]
pub struct Args {
    /// The log
    log: PathBuf,
    /// Begin with the last N records, or with sequence K (counted from 0) as +K
    #[arg(short = 'n', value_name = "N|+K", default_value = "10", value_parser = parse_start)]
    start: From,
    /// Print records as they come
    #[arg(short, long)]
    follow: bool,
    /// Wait for the log to appear
    #[arg(long)]
    retry: bool,
    /// End after this many records
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// End with exit code 6 once no record came for so long: 2s, 500ms, 1.5m
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// How records are printed
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Where to begin.
#[derive(Clone, Copy, Debug)]
enum From {
    Last(u64),
    Sequence(u64),
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    let reader = open(args, &signals)?;
    let until = if args.follow { None } else { Some(reader.stat()?.records) };
    let mut tailer = reader.tail(match (args.start, until) {
        (From::Sequence(n), _) => Start::Sequence(n),
        (From::Last(n), Some(records)) => Start::Sequence(records.saturating_sub(n)),
        (From::Last(n), None) => Start::Last(n),
    })?;
    let what = Follow { until, count: args.count, timeout: args.timeout, waits: args.follow };
    follow(&mut tailer, &mut Output::new(args.output, &signals)?, &signals, &what)
}

fn open(args: &Args, signals: &Signals) -> Result<Reader, Failure> {
    let begin = Instant::now();
    loop {
        let mut options = ReaderOptions::new();
        if args.retry {
            let left = args.timeout.map_or(SIGNAL_INTERVAL, |timeout| timeout.saturating_sub(begin.elapsed()));
            options.wait_for_log(left.min(SIGNAL_INTERVAL));
        }
        match (options.open(&args.log), args.timeout) {
            (Err(Error::NotFound { path }), Some(after)) if args.retry && begin.elapsed() >= after => {
                return Err(Error::TimedOut { path, after }.into());
            }
            (Err(Error::NotFound { .. }), _) if args.retry => signals.check()?,
            (result, _) => return Ok(result?),
        }
    }
}

fn parse_start(text: &str) -> Result<From, String> {
    let number = |digits: &str| digits.parse().map_err(|_| "a number of records, or +K for sequence K".to_owned());
    match text.strip_prefix('+') {
        Some(digits) => number(digits).map(From::Sequence),
        None => number(text).map(From::Last),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let expected = || "a time such as 2s, 500ms or 1.5m".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(expected()),
    };
    let number: f64 = digits.parse().map_err(|_| expected())?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(parse_duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5m"), Ok(Duration::from_secs(90)));
        for wrong in ["", "s", "-1s", "2 parsecs", "nan", "inf", "1e400s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }
}
