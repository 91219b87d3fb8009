//! `immuta cat`: every record that is published, then the end.

use std::path::PathBuf;

use immuta::{Reader, Start};

use crate::failure::Failure;
use crate::follow::{Follow, follow};
use crate::output::{Format, Output};
use crate::signals::Signals;

/// Print every record of a log
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: immuta cat -o json events.log | jq .payload")]
pub struct Args {
    /// The log
    log: PathBuf,
    /// How records are printed
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    let reader = Reader::open(&args.log)?;
    let mut tailer = reader.tail(Start::Beginning)?;
    let what = reader.stat().map_or_else(
        // Damage: what lies before it is still printed, and then the error.
        |_| Follow { until: None, waits: false, ..Follow::default() },
        |stat| Follow { until: Some(stat.records), waits: false, ..Follow::default() },
    );
    follow(&mut tailer, &mut Output::new(args.output, &signals)?, &signals, &what)
}
