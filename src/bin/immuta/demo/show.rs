//! What the demo shows: the table while it runs, and the summary.

use std::fmt::Write;

use super::figures::Figures;
use super::part::Role;
use super::{Args, Part, has_room_for_time};
use crate::units;

/// A line for each process, and what it has done so far.
pub fn table(parts: &[Part]) -> String {
    let mut text = format!("{:<13}{:>14}{:>12}{:>11}{:>11}\n", "", "records", "records/s", "p50", "p99");
    for (part, name) in parts.iter().zip(names(parts)) {
        let latency = if part.paced.latency.samples > 0 { part.paced.latency } else { part.flat_out.latency };
        let records = units::grouped(part.flat_out.records + part.paced.records);
        let rate = units::rate(part.flat_out.records_per_second());
        let time = |ns| if latency.samples > 0 { units::time(ns) } else { "–".to_owned() };
        let (p50, p99) = (time(latency.p50_ns), time(latency.p99_ns));
        line(&mut text, &format!("{name:<13}{records:>14}{rate:>12}{p50:>11}{p99:>11}"));
    }
    text
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn names(parts: &[Part]) -> Vec<String> {
    let mut consumers = 0;
    parts
        .iter()
        .map(|part| match part.role {
            Role::Producer => "producer".to_owned(),
            Role::Consumer => {
                consumers += 1;
                format!("consumer {consumers}")
            }
        })
        .collect()
}

/// All that was measured, and what the figures mean.
pub fn summary(args: &Args, limit: u64, parts: &[Part]) -> String {
    let mut text = String::new();
    let Some((producer, consumers)) = parts.split_first() else { return text };
    let count = consumers.len();
    let plural = if count == 1 { "" } else { "es" };
    line(&mut text, &format!("1 producer and {count} consumer process{plural}, records of {} bytes", args.size));
    line(&mut text, "");
    line(&mut text, "Flat out: as fast as it goes, every byte of every record read and compared.");
    line(&mut text, &format!("{:<13}{:>14}{:>12}{:>12}", "", "records", "records/s", "GB/s"));
    for (part, name) in parts.iter().zip(names(parts)) {
        let Figures { records, .. } = part.flat_out;
        let rate = part.flat_out.records_per_second();
        let gigabytes = rate * args.size as f64 / 1e9;
        let (records, rate) = (units::grouped(records), units::rate(rate));
        line(&mut text, &format!("{name:<13}{records:>14}{rate:>12}{gigabytes:>12.2}"));
    }
    if parts.iter().any(|part| part.paced.latency.samples > 0) {
        let rate = units::rate(producer.paced.records_per_second());
        line(&mut text, "");
        line(
            &mut text,
            &format!(
                "At {rate} records/s: from just before the append to the consumer's look at the record, which slept in between."
            ),
        );
        line(&mut text, &format!("{:<13}{:>14}{:>12}{:>12}{:>12}{:>12}", "", "records", "p50", "p99", "p99.9", "max"));
        for (part, name) in parts.iter().zip(names(parts)).skip(1) {
            let latency = part.paced.latency;
            let mut row = format!("{name:<13}{:>14}", units::grouped(latency.samples));
            for ns in [latency.p50_ns, latency.p99_ns, latency.p999_ns, latency.max_ns] {
                // Writing to a string does not fail.
                let _ = write!(row, "{:>12}", units::time(ns));
            }
            line(&mut text, &row);
        }
    } else if !has_room_for_time(args.size) {
        line(&mut text, "");
        line(&mut text, "No latencies: a record needs 8 bytes to carry the time of its append.");
    }
    let bytes = (producer.flat_out.records + producer.paced.records) * (args.size + 8) + 8;
    line(&mut text, "");
    let full = producer.flat_out.elapsed_ns > 0 && (producer.flat_out.elapsed_ns as f64) < args.seconds * 0.49e9;
    let why = if full { ", which ended the flat-out phase early" } else { "" };
    line(
        &mut text,
        &format!("The log had {} of at most {}{why}; it is removed.", units::bytes(bytes), units::bytes(limit)),
    );
    text
}
