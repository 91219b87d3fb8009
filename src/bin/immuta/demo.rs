//! `immuta demo`: a producer process and some consumer processes on a temporary log, with rates and latencies.

use crate::failure::Failure;

/// Show rates and latencies of a producer and some consumer processes on this machine
#[derive(Debug, clap::Args)]
pub struct Args {}

/// A part of the demo, started by it
#[derive(Debug, clap::Args)]
pub struct PartArgs {}

pub fn run(_args: &Args) -> Result<(), Failure> {
    Ok(())
}

pub fn run_part(_args: &PartArgs) -> Result<(), Failure> {
    Ok(())
}
