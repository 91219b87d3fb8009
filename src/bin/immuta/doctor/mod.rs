//! `immuta doctor`: what on this machine, or about a log, would keep immuta from working, or from working well.

mod control;
mod finding;
mod limits;
mod log;
mod logrotate;
mod mounts;
mod rights;
mod space;
mod writer;

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::json;

use crate::failure::Failure;
use finding::Findings;

/// Look for what would keep this machine, or a log, from working, and say what to do about it; nothing is changed
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A line for each finding: ok; warning, where something is slower or less safe than it could be; problem, where something \
would not work. Remedies stand below.

Without LOG: the control directory (IMMUTA_CONTROL_DIR, or /dev/shm), what dead writers left in it, limits, the kernel. \
With LOG also: its file system, free space, rights, writer, control page, and whether logrotate truncates it. A log that \
does not exist yet is judged by its directory. No lock is taken.

Exit codes: 0 without problems, whatever the warnings; 1 with problems.

Examples: immuta doctor
          immuta doctor events.log
          immuta doctor --json events.log | jq '.findings[] | select(.level != \"ok\")'")]
pub struct Args {
    /// The log
    log: Option<PathBuf>,
    /// Print an object
    #[arg(long)]
    json: bool,
    /// Where logrotate and systemd are configured
    #[arg(long, value_name = "DIR", default_value = "/etc", hide = true)]
    etc: PathBuf,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let mut findings = Findings::default();
    let metadata = args.log.as_ref().and_then(|log| log.metadata().ok());
    control::examine(&mut findings, metadata.as_ref(), &args.etc);
    limits::examine(&mut findings, metadata.as_ref().map_or(0, |log| log.len()));
    if let Some(log) = &args.log {
        log::examine(&mut findings, log, &args.etc);
    }
    let text = if args.json {
        let log = args.log.as_ref().map(|log| log.to_string_lossy());
        format!("{}\n", json!({ "ok": !findings.has_problem(), "log": log, "findings": findings.json() }))
    } else {
        findings.text()
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)?;
    if findings.has_problem() { Err(Failure::Unsound) } else { Ok(()) }
}
