//! One process of the demo besides the first: what it tells its parent, and that it does not outlive it.

use std::path::PathBuf;

use super::figures::{Meter, Phase};
use super::{PREFIX, consumer, producer};
use crate::crew::Parent;
use crate::failure::Failure;

/// A part of the demo, started by it.
#[derive(Debug, clap::Args)]
pub struct PartArgs {
    /// What it does.
    pub role: Role,
    /// The process that started it.
    pub parent: u32,
    /// The demo's own directory.
    pub directory: PathBuf,
    /// Payload of each record, in bytes.
    pub size: u64,
    /// How long the producer takes, in seconds.
    pub seconds: f64,
    /// The largest file, in bytes.
    pub limit: u64,
}

/// What a part does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    Producer,
    Consumer,
}

impl PartArgs {
    pub fn log(&self) -> PathBuf {
        super::log_in(&self.directory)
    }
}

pub fn run(args: &PartArgs) -> Result<(), Failure> {
    // The consumers have nothing to put in order.
    let abandoned = (args.role == Role::Producer).then_some((PREFIX, &*args.directory));
    let Some(parent) = Parent::listen(args.parent, abandoned)? else { return Ok(()) };
    match args.role {
        Role::Producer => producer::run(args, &parent),
        Role::Consumer => consumer::run(args, &parent),
    }
}

/// Tells the parent what was measured.
pub fn report(parent: &Parent, phase: Phase, meter: &Meter) -> Result<(), Failure> {
    match (meter.figures(), phase) {
        (None, _) => Ok(()),
        (Some(figures), Phase::FlatOut) => parent.tell(&format!("flat-out {figures}")),
        (Some(figures), Phase::Paced) => parent.tell(&format!("paced {figures}")),
    }
}
