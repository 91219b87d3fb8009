//! The command line of immuta. Data goes to stdout, everything else to stderr; `failure` has the exit codes.

mod append;
mod bench;
mod cat;
mod clock;
mod completions;
mod crew;
mod demo;
mod doctor;
mod failure;
mod follow;
mod get;
mod output;
mod payload;
mod place;
mod repair;
mod signals;
mod stat;
mod tail;
mod times;
mod units;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A local message bus that is a file: one process appends records to a log, many follow it at memory speed.
#[derive(Debug, Parser)]
#[command(
    name = "immuta",
    version,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 ok; 1 I/O, permission, wrong kind of file, a problem that doctor found; 2 usage; 3 no such log or record, or the log went away;
4 another writer holds the lock; 5 damaged; 6 timed out; 130 on SIGINT, 143 on SIGTERM.

Example: seq 10 | immuta append numbers.log && immuta tail numbers.log -n 3"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Append(append::Args),
    Cat(cat::Args),
    Tail(tail::Args),
    Get(get::Args),
    Stat(stat::Args),
    Verify(verify::Args),
    Repair(repair::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
    Demo(demo::Args),
    Bench(bench::Args),
    #[command(name = "demo-part", hide = true)]
    DemoPart(demo::PartArgs),
    #[command(name = "bench-part", hide = true)]
    BenchPart(bench::PartArgs),
}

fn main() -> ExitCode {
    // Clap prints its message and exits with 2; with 0 for --help and --version.
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Append(args) => append::run(&args),
        Command::Cat(args) => cat::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Get(args) => get::run(&args),
        Command::Stat(args) => stat::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Repair(args) => repair::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::DemoPart(args) => demo::run_part(&args),
        Command::Bench(args) => bench::run(&args),
        Command::BenchPart(args) => bench::run_part(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
