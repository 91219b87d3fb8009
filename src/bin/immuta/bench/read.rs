//! `immuta bench read`: how fast a log is read that is in the page cache.

use std::hint::black_box;
use std::io;
use std::path::Path;
use std::time::Duration;

use immuta::{Durability, Reader, Start, WriterOptions};
use serde_json::{Value, json};

use super::Common;
use super::bare::BareView;
use super::figures::{Pass, Passes, Stopwatch};
use super::part::{Done, Role, Scene, bare_failure};
use super::report::{Rates, Report};
use super::stage::{Stage, misunderstood, pass_of};
use crate::clock::now_ns;
use crate::failure::Failure;
use crate::payload::{FILLER, sum};

/// How long the log is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Measure reading a log that is in the page cache, every byte of it touched
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The log is made for it, as large as --max-bytes allows; its writer has it open meanwhile, as for a follower that is behind. \
The floor maps the same file anew for each pass, and touches every byte, too.

Example: immuta bench read --size 1KiB --seconds 1")]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
}

pub fn run(args: &Args, stage: &mut Stage, report: &mut Report) -> Result<(), Failure> {
    report.title(&format!("read: records of {} bytes, from the page cache", args.common.size))?;
    report.status("making a log, and reading it")?;
    let plan = stage.plan(&args.common);
    let results = stage.round(&[(Role::MakeLog, &plan), (Role::ReadLog, &plan)])?;
    let passes = |key: &str| -> Result<Passes, Failure> {
        let mut passes = Passes::default();
        let told = results[1][key].as_array().ok_or_else(|| misunderstood(&results[1]))?;
        told.iter().try_for_each(|pass| pass_of(pass).map(|pass| passes.add(pass)))?;
        Ok(passes)
    };
    let (read, floor) = (passes("read")?, passes("floor")?);
    let cpu = ["thread", "process"];
    report.rates_head(cpu)?;
    let mut row = |name, label, passes, floor| report.rates(&Rates { name, label, passes, cpu, floor, more: &[] });
    row("read", "reading", &read, Some(&floor))?;
    row("read_floor", "  bare mapping", &floor, None)
}

/// The part that makes the log, and has it open.
pub fn make(scene: &Scene) -> Result<Done, Failure> {
    let plan = scene.plan;
    let mut writer = WriterOptions::new().durability(Durability::Buffered).open(scene.log())?;
    scene.note(&writer)?;
    let bytes = vec![FILLER; plan.size as usize];
    for record in 0..plan.records.min(plan.room()) {
        if record % 1024 == 0 && scene.parent.is_stopped() {
            break;
        }
        writer.append(&bytes)?;
    }
    scene.is_to_begin()?;
    Ok((json!({}), Some(writer)))
}

/// The part that reads it, once by the library and once bare, by turns.
pub fn read(scene: &Scene) -> Result<Done, Failure> {
    let plan = scene.plan;
    let (path, records) = (scene.log(), plan.records.min(plan.room()));
    let reader = immuta::ReaderOptions::new().wait_for_log(PATIENCE).open(&path)?;
    let end = reader.stat()?.end;
    scene.parent.tell("ready")?;
    let (mut floor, mut read): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    let until = now_ns() + 2 * plan.time_ns();
    while (read.is_empty() || now_ns() < until) && !scene.parent.is_stopped() {
        floor.push(read_bare(&path, end, records)?.to_json());
        read.push(read_log(scene, &reader, records)?.to_json());
    }
    Ok((json!({ "read": read, "floor": floor }), None))
}

fn read_log(scene: &Scene, reader: &Reader, records: u64) -> Result<Pass, Failure> {
    let expected = sum(&vec![FILLER; scene.plan.size as usize]).wrapping_mul(records);
    let mut tailer = reader.tail(Start::Beginning)?;
    let watch = Stopwatch::start();
    let (mut total, mut read) = (0u64, 0);
    while let Some(record) = tailer.try_next()? {
        total = total.wrapping_add(sum(record.payload()));
        read += 1;
    }
    let pass = watch.stop(read);
    if (read, total) == (records, expected) {
        return Ok(pass);
    }
    let message = format!("{read} records were read where {records} were appended, or they differ");
    Err(Failure::system("go on", io::Error::other(message)))
}

fn read_bare(path: &Path, end: u64, records: u64) -> Result<Pass, Failure> {
    let watch = Stopwatch::start();
    let view = BareView::open(path, end).map_err(bare_failure)?;
    let total = sum(view.bytes());
    black_box(total);
    Ok(watch.stop(records))
}
