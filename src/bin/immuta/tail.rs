//! `immuta tail`: the last records of a log, and those that follow.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use immuta::{Error, Reader, ReaderOptions, Start};

use crate::failure::Failure;
use crate::follow::{Follow, follow};
use crate::output::{Format, Output};
use crate::signals::Signals;
use crate::times::{parse_duration, parse_since};

/// How often a follower that waits for its log looks for signals.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);

/// Print the last records of a log, and follow it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples: immuta tail -f events.log
          immuta tail -f --retry -n +0 -o json events.log
          immuta tail --since 10m events.log
          immuta tail -f -n 0 --count 1 --timeout 2s events.log")]
pub struct Args {
    /// The log
    log: PathBuf,
    /// Begin with the last N records, or with sequence K (counted from 0) as +K
    #[arg(short = 'n', value_name = "N|+K", default_value = "10", value_parser = parse_start)]
    start: From,
    /// Begin with what came since then (up to two seconds more), instead of -n: 10m ago, or 2026-11-25T19:30:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_since, conflicts_with = "start")]
    since: Option<SystemTime>,
    /// Take a record only once it would survive a power cut; only while a writer tells that by its control page
    #[arg(long)]
    durable: bool,
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
    let mut tailer = reader.tail(match (args.since, args.start, until) {
        (Some(time), ..) => Start::Time(time),
        (None, From::Sequence(n), _) => Start::Sequence(n),
        (None, From::Last(n), Some(records)) => Start::Sequence(records.saturating_sub(n)),
        (None, From::Last(n), None) => Start::Last(n),
    })?;
    let what = Follow { until, count: args.count, timeout: args.timeout, waits: args.follow };
    follow(&mut tailer, &mut Output::new(args.output, &signals)?, &signals, &what)
}

fn open(args: &Args, signals: &Signals) -> Result<Reader, Failure> {
    let begin = Instant::now();
    loop {
        let mut options = ReaderOptions::new();
        options.durable(args.durable);
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
