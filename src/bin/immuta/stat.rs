//! `immuta stat`: the log at this instant.

use std::io::Write;
use std::path::PathBuf;

use immuta::{Reader, WriterState};
use serde_json::json;

use crate::failure::Failure;
use crate::output::stdout;

/// Say how many records a log has, how large it is, and who is writing
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: immuta stat --json events.log | jq .writer.state")]
pub struct Args {
    /// The log
    log: PathBuf,
    /// Print an object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let stat = Reader::open(&args.log)?.stat()?;
    let state = match stat.writer {
        WriterState::Alive => "alive",
        WriterState::Closed => "closed",
        WriterState::Failed => "failed",
        _ => "gone",
    };
    let pid = stat.pid.filter(|_| stat.writer == WriterState::Alive);
    let text = if args.json {
        let object = json!({
            "path": stat.path.to_string_lossy(),
            "records": stat.records,
            "end": stat.end,
            "file_bytes": stat.file_bytes,
            "durable_records": stat.durable_records,
            "writer": { "state": state, "pid": pid },
        });
        format!("{object}\n")
    } else {
        let writer = pid.map_or_else(|| state.to_owned(), |pid| format!("{state}, process {pid}"));
        let durable = stat.durable_records.map_or_else(|| "unknown".to_owned(), |records| records.to_string());
        format!(
            "path             {}\nrecords          {}\nend              {}\nfile bytes       {}\ndurable records  {durable}\nwriter           {writer}\n",
            stat.path.display(),
            stat.records,
            stat.end,
            stat.file_bytes,
        )
    };
    let mut out = stdout(None)?;
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}
