//! The producer of the demo: appends flat out, then at intervals, within its share of the disk.

use std::time::Duration;

use immuta::Writer;

use super::figures::{Meter, Phase, REPORT_INTERVAL_NS, stamp, stamp_every};
use super::part::{PartArgs, report};
use super::{PREFIX, flat_out_bytes, has_room_for_time};
use crate::clock::now_ns;
use crate::crew::Parent;
use crate::failure::Failure;
use crate::payload::FILLER;
use crate::place::{self, usable_bytes};

/// Of the time, how much the flat-out phase takes at most.
const FLAT_OUT_SHARE: f64 = 0.5;
/// Records a second in the paced phase, where the disk has room for them.
const PACE: f64 = 10_000.0;

pub fn run(args: &PartArgs, parent: &Parent) -> Result<(), Failure> {
    place::limit_files(args.limit)?;
    let result = produce(args, parent);
    if parent.is_gone() {
        // Nobody else is there to do it.
        place::remove_abandoned(PREFIX, &args.directory);
    }
    result
}

fn produce(args: &PartArgs, parent: &Parent) -> Result<(), Failure> {
    let mut writer = Writer::open(args.log())?;
    for notice in writer.notices() {
        eprintln!("immuta: warning: {notice}");
    }
    parent.tell("ready")?;
    let result = append(args, parent, &mut writer);
    writer.close()?;
    result?;
    parent.tell("done")
}

fn append(args: &PartArgs, parent: &Parent, writer: &mut Writer) -> Result<(), Failure> {
    let mut payload = vec![FILLER; args.size as usize];
    if parent.wait_for_go() {
        flat_out(args, parent, writer, &mut payload)?;
    }
    if has_room_for_time(args.size) && parent.wait_for_go() {
        paced(args, parent, writer, &mut payload)?;
    }
    Ok(())
}

fn flat_out(args: &PartArgs, parent: &Parent, writer: &mut Writer, payload: &mut [u8]) -> Result<(), Failure> {
    let every = stamp_every(args.size);
    let step_bytes = every * (args.size + 8);
    let limit = flat_out_bytes(args.limit);
    let mut meter = Meter::new();
    let begin = now_ns();
    let until = begin + (args.seconds * FLAT_OUT_SHARE * 1e9) as u64;
    let (mut end, mut next_report) = (8, begin);
    loop {
        let now = now_ns();
        meter.look(now);
        if now >= until || end + step_bytes > limit || parent.is_stopped() {
            break;
        }
        if now >= next_report {
            report(parent, Phase::FlatOut, &meter)?;
            next_report = now + REPORT_INTERVAL_NS;
        }
        if let Some(time) = payload.first_chunk_mut() {
            *time = stamp(Phase::FlatOut, now);
        }
        writer.append(payload)?;
        if let Some(time) = payload.first_chunk_mut() {
            *time = [0; 8];
        }
        for _ in 1..every {
            writer.append(payload)?;
        }
        meter.count(every);
        end += step_bytes;
    }
    report(parent, Phase::FlatOut, &meter)?;
    parent.tell("over")
}

fn paced(args: &PartArgs, parent: &Parent, writer: &mut Writer, payload: &mut [u8]) -> Result<(), Failure> {
    let seconds = args.seconds * (1.0 - FLAT_OUT_SHARE);
    let room = usable_bytes(args.limit).saturating_sub(writer.stat()?.end) / (args.size + 8);
    let records = room.min((PACE * seconds) as u64);
    let mut meter = Meter::new();
    let begin = now_ns();
    let mut next_report = begin;
    for record in 0..records {
        let due = begin + (seconds * 1e9 * record as f64 / records as f64) as u64;
        loop {
            let now = now_ns();
            if now >= next_report {
                report(parent, Phase::Paced, &meter)?;
                next_report = now + REPORT_INTERVAL_NS;
            }
            if now >= due || parent.is_stopped() {
                break;
            }
            std::thread::sleep(Duration::from_nanos((due - now).min(REPORT_INTERVAL_NS / 2)));
        }
        if parent.is_stopped() {
            break;
        }
        let now = now_ns();
        meter.look(now);
        if let Some(time) = payload.first_chunk_mut() {
            *time = stamp(Phase::Paced, now);
        }
        writer.append(payload)?;
        meter.count(1);
    }
    meter.look(now_ns());
    report(parent, Phase::Paced, &meter)
}
