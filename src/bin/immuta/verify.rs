//! `immuta verify`: walks a whole log and says what is wrong with it.

use std::io::Write;
use std::path::PathBuf;

use immuta::{Error, Reader};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::stdout;
use crate::signals::Signals;

/// Walk a whole log and say what is wrong with it; nothing is changed
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: immuta verify events.log && cp events.log /backup/")]
pub struct Args {
    /// The log
    log: PathBuf,
    /// Print an object
    #[arg(long)]
    json: bool,
}

/// What is wrong: the record, where it lies in one; the position; the matter.
type Problem = (Option<u64>, u64, String);

pub fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    let (records, end, problem) = walk(args, &signals)?;
    signals.check()?;
    report(args, records, end, problem.as_ref())?;
    if problem.is_some() { Err(Failure::Damaged) } else { Ok(()) }
}

fn walk(args: &Args, signals: &Signals) -> Result<(u64, u64, Option<Problem>), Failure> {
    let reader = match Reader::open(&args.log) {
        // A file that cannot be opened as a log is damage as well, found early.
        Err(Error::Damaged { sequence, position, message, .. }) => {
            return Ok((0, position, Some((sequence, position, message))));
        }
        reader => reader?,
    };
    // Drawn on a terminal only.
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} to go");
    bar.set_style(style.expect("the template is well-formed"));
    let verification = reader.verify(|progress| {
        bar.set_length(progress.file_bytes);
        bar.set_position(progress.position);
        signals.last().is_none()
    })?;
    bar.finish_and_clear();
    let problem = verification.problem.map(|problem| (problem.sequence, problem.position, problem.message));
    Ok((verification.records, verification.end, problem))
}

fn report(args: &Args, records: u64, end: u64, problem: Option<&Problem>) -> Result<(), Failure> {
    let path = args.log.display();
    let text = match problem {
        _ if args.json => {
            let problem = problem.map_or(Value::Null, |(sequence, position, message)| {
                json!({ "sequence": sequence, "position": position, "message": message })
            });
            json!({ "ok": problem.is_null(), "records": records, "end": end, "problem": problem }).to_string()
        }
        None => format!("{path}: ok, {records} records, {end} bytes"),
        Some((sequence, position, message)) => {
            let record = sequence.map(|sequence| format!(" (record {sequence})")).unwrap_or_default();
            format!("{path}: damaged at position {position}{record}: {message}; {records} records before it are whole")
        }
    };
    let mut out = stdout(None)?;
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::Output)
}
