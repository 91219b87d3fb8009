//! `immuta get`: one record.

use std::path::PathBuf;

use immuta::{Reader, Start};

use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::signals::Signals;

/// Print one record
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: immuta get events.log 4711")]
pub struct Args {
    /// The log
    log: PathBuf,
    /// The record's sequence, counted from 0
    sequence: u64,
    /// How the record is printed
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    let reader = Reader::open(&args.log)?;
    let no_record = |records| Failure::NoRecord { path: args.log.clone(), sequence: args.sequence, records };
    let records = reader.stat()?.records;
    if args.sequence >= records {
        return Err(no_record(records));
    }
    // A tailer's record needs no copy, so that it may be larger than the memory.
    let mut tailer = reader.tail(Start::Sequence(args.sequence))?;
    let record = tailer.next()?.ok_or_else(|| no_record(records))?;
    let mut output = Output::new(args.output, &signals)?;
    output.write(&record)?;
    output.flush()?;
    signals.check()
}
