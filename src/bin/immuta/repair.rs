//! `immuta repair`: the explicit way on where a log is refused.

use std::io::Write;
use std::path::PathBuf;

use immuta::{Repair, WriterOptions};
use serde_json::json;

use crate::failure::Failure;
use crate::output::stdout;

/// Keep what can be kept of a damaged log, and set the rest aside in LOG.lost-TIME; cut what a dead writer had reserved
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: immuta repair --dry-run events.log && immuta repair --yes events.log")]
#[command(group = clap::ArgGroup::new("consent").required(true).args(["dry_run", "yes"]))]
pub struct Args {
    /// The log; nobody may be writing to it
    log: PathBuf,
    /// Say what would be done, and change nothing; exit code 5 if the log is damaged
    #[arg(long)]
    dry_run: bool,
    /// Do it
    #[arg(long)]
    yes: bool,
    /// Print an object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let repair = WriterOptions::new().repair(&args.log, args.dry_run)?;
    let text = if args.json { object(&repair) } else { sentence(args, &repair) };
    let mut out = stdout(None)?;
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::Output)?;
    if args.dry_run && repair.problem.is_some() { Err(Failure::Damaged) } else { Ok(()) }
}

fn object(repair: &Repair) -> String {
    json!({
        "problem": repair.problem,
        "records": repair.records,
        "end": repair.end,
        "discarded_records": repair.discarded_records,
        "discarded_bytes": repair.discarded_bytes,
        "side_file": repair.side_file.as_ref().map(|path| path.to_string_lossy()),
    })
    .to_string()
}

fn sentence(args: &Args, repair: &Repair) -> String {
    let path = args.log.display();
    let (records, end, bytes) = (repair.records, repair.end, repair.discarded_bytes);
    let will = if args.dry_run { "would be " } else { "" };
    match (&repair.problem, &repair.side_file) {
        (None, _) if bytes == 0 => format!("{path}: sound, {records} records, {end} bytes; nothing to do"),
        (None, _) => {
            format!("{path}: sound, {records} records, {end} bytes; {bytes} bytes behind them {will}cut")
        }
        (Some(problem), side) => {
            let into = side.as_ref().map(|side| format!(" in {}", side.display())).unwrap_or_default();
            format!(
                "{problem}\n{path}: {records} records, {end} bytes, {will}kept; {} counted records {will}set aside{into}",
                repair.discarded_records
            )
        }
    }
}
