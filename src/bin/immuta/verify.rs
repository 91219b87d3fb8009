//! `immuta verify`: walks a whole log and says what is wrong with it.

use std::io::Write;
use std::path::PathBuf;

use immuta::{Error, IndexState, Reader, Verification};
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

pub fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    let report = walk(args, &signals)?;
    signals.check()?;
    tell(args, &report)?;
    if report.problem.is_some() { Err(Failure::Damaged) } else { Ok(()) }
}

/// What is to be told.
struct Report {
    records: u64,
    end: u64,
    /// The record in which it lies, where it lies in one; the position; the matter.
    problem: Option<(Option<u64>, u64, String)>,
    index: IndexState,
    checked: u64,
}

fn walk(args: &Args, signals: &Signals) -> Result<Report, Failure> {
    let reader = match Reader::open(&args.log) {
        // A file that cannot be opened as a log is damage as well, found early.
        Err(Error::Damaged { sequence, position, message, .. }) => {
            let problem = Some((sequence, position, message));
            return Ok(Report { records: 0, end: position, problem, index: IndexState::Missing, checked: 0 });
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
    let Verification { records, end, problem, index, checked, .. } = verification;
    let problem = problem.map(|problem| (problem.sequence, problem.position, problem.message));
    Ok(Report { records, end, problem, index, checked })
}

fn tell(args: &Args, report: &Report) -> Result<(), Failure> {
    let path = args.log.display();
    let Report { records, end, problem, index, checked } = report;
    let index = match index {
        IndexState::Ok => "ok",
        IndexState::Damaged => "damaged",
        _ => "missing",
    };
    let text = match problem {
        _ if args.json => {
            let problem = problem.as_ref().map_or(Value::Null, |(sequence, position, message)| {
                json!({ "sequence": sequence, "position": position, "message": message })
            });
            let ok = problem.is_null();
            json!({ "ok": ok, "records": records, "end": end, "problem": problem, "index": index }).to_string()
        }
        None => {
            let checked = match index {
                "missing" => "no index, so no checksums".to_owned(),
                "damaged" => format!("checksums of {checked}, index damaged (the next writer makes it anew)"),
                _ if checked == records => "all checksums right".to_owned(),
                _ => format!("checksums of {checked} right"),
            };
            format!("{path}: ok, {records} records, {end} bytes, {checked}")
        }
        Some((sequence, position, message)) => {
            let record = sequence.map(|sequence| format!(" (record {sequence})")).unwrap_or_default();
            format!("{path}: damaged at position {position}{record}: {message}; {records} records before it are whole")
        }
    };
    let mut out = stdout(None)?;
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::Output)
}
