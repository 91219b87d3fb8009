//! `immuta bench`: what immuta does on the user's own machine, beside the least that the machine asks of anybody.
//!
//! This process measures nothing. Each round of a benchmark is one or more processes (`part`), started by `stage`: they begin
//! with cold hands, all that they hold is gone with them, and whatever ends one of them, this one is there to clear up.

mod append;
mod bare;
mod figures;
mod floors;
mod ipc;
mod latency;
mod part;
mod read;
mod report;
mod stage;

use std::io::{self, Write};
use std::path::PathBuf;

use serde_json::json;

use crate::failure::Failure;
use crate::signals::Signals;
use crate::{times, units};
pub use part::{PartArgs, run as run_part};
use report::Report;
use stage::Stage;

/// How the names of a benchmark's directories begin.
const PREFIX: &str = "immuta-bench-";
/// The time of a measurement is divided into so many rounds, or into more.
const ROUNDS_LEAST: u32 = 3;

/// Measure appends, reads and latencies on this machine, beside the least that it asks of anybody
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each benchmark measures immuta and, by turns in the same run, the machine's floor: bare stores, bare reads, a bare cache line, a \
bare futex. Rates are those of the median round. A round is one or more processes of its own on a new log, which is removed \
without a flush, so that little of it reaches the disk. CPU s/million records: the processor's time, in seconds.

Examples: immuta bench append
          immuta bench ipc --readers 4 --size 1KiB
          immuta bench latency --rate 100k --json | jq .p99_ns")]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Append(append::Args),
    Read(read::Args),
    Ipc(ipc::Args),
    Latency(latency::Args),
}

/// What all benchmarks take.
#[derive(Debug, clap::Args)]
struct Common {
    /// Payload of each record, in bytes
    #[arg(long, default_value = "64", value_parser = units::parse_size)]
    size: u64,
    /// How long each row is measured; making and removing logs comes on top
    #[arg(long, default_value = "3", value_parser = times::parse_seconds)]
    seconds: f64,
    /// No log becomes larger, nor larger than half the free space or a quarter of the free memory: neither the disk nor the page
    /// cache is filled. There is one at a time
    #[arg(long, default_value = "256MiB", value_parser = units::parse_bytes)]
    max_bytes: u64,
    /// Logs are made in a temporary directory in this one (default: where temporary files belong)
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Print an object for each row
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let (name, common) = match &args.what {
        What::Append(args) => ("append", &args.common),
        What::Read(args) => ("read", &args.common),
        What::Ipc(args) => ("ipc", &args.common),
        What::Latency(args) => ("latency", &args.common),
    };
    let signals = Signals::catch()?;
    let mut stage = Stage::new(common, &signals)?;
    let mut report = Report::new(name, common.json, common.size, &signals)?;
    introduce(&stage, &mut report)?;
    let result = match &args.what {
        What::Append(args) => append::run(args, &mut stage, &mut report),
        What::Read(args) => read::run(args, &mut stage, &mut report),
        What::Ipc(args) => ipc::run(args, &mut stage, &mut report),
        What::Latency(args) => latency::run(args, &mut stage, &mut report),
    };
    report.erase();
    result
}

/// Says what is measured with, and where.
fn introduce(stage: &Stage, report: &mut Report) -> Result<(), Failure> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (cpuinfo, release) = (read("/proc/cpuinfo"), read("/proc/sys/kernel/osrelease"));
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or_else(|| "processor unknown".to_owned(), |(_, model)| model.trim().to_owned());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (directory, free) = stage.space();
    let (limit, free) = (units::bytes(stage.limit()), units::bytes(free));
    report.every_row("limit_bytes", json!(stage.limit()));
    report.every_row("cores", json!(cores));
    let version = env!("CARGO_PKG_VERSION");
    let plural = if cores == 1 { "" } else { "s" };
    report.text(&format!("immuta {version}, {cores} core{plural}, {model}, Linux {}", release.trim()))?;
    report.text(&format!(
        "Logs of at most {limit} in {}, where {free} are free; each is removed.",
        directory.display()
    ))?;
    // Where stderr is closed there is nobody to warn.
    if cfg!(debug_assertions) {
        let _ = writeln!(
            io::stderr(),
            "immuta: warning: this immuta was built without optimisation; its figures say nothing"
        );
    }
    let load = read("/proc/loadavg").split(' ').next().and_then(|load| load.parse::<f64>().ok());
    if let Some(load) = load.filter(|load| *load >= cores as f64) {
        let _ = writeln!(
            io::stderr(),
            "immuta: warning: others use this machine (load {load}), which will be in all figures"
        );
    }
    Ok(())
}
