//! `immuta bench append`: what an append costs the process that makes it.

use std::hint::black_box;
use std::time::Instant;

use immuta::{Durability, WriterOptions};
use serde_json::{Value, json};

use super::figures::{Passes, Stopwatch, Times};
use super::part::{Done, Plan, Role, Scene};
use super::report::{Delays, Rates, Report};
use super::stage::{Stage, misunderstood, pass_of, times_of};
use super::{Common, ROUNDS_LEAST};
use crate::append::{durability_name, parse_durability};
use crate::clock::{now_ns, wait_until};
use crate::failure::Failure;
use crate::payload::FILLER;
use crate::units;

/// Measure appends: time and processor's time of each, and the percentiles of single ones
#[derive(Debug, clap::Args)]
#[command(after_help = "\
growing: a new log, which the writer's helper thread grows meanwhile. prepared ahead: the space was made ready when the log \
was opened. The floors store the same bytes, sizes and counts into a mapped file and do nothing else: one that grows by 8 MiB \
at a time, and one that is there, every page of it mapped. With --durability sync they flush twice for each record. The \
process's time of the processor has the helper thread's in it. A log that is full before the interval of --durability has \
passed is never flushed: take a shorter one, or larger --max-bytes, where that matters. Single appends are timed in runs of \
their own, so that the clock is not in the rates.

Examples: immuta bench append --size 1KiB
          immuta bench append --rate 100k --seconds 60 --max-bytes 2GiB --json")]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
    /// Appends a second, such as 100k: only single ones are timed then, and nothing is measured flat out
    #[arg(long, value_parser = units::parse_rate)]
    rate: Option<f64>,
    /// When records are made durable, as for `immuta append`
    #[arg(long, value_name = "buffered|interval=TIME|sync", default_value = "interval=1s", value_parser = parse_durability)]
    durability: Durability,
}

pub fn run(args: &Args, stage: &mut Stage, report: &mut Report) -> Result<(), Failure> {
    let durability = durability_name(args.durability);
    report.title(&format!("append: records of {} bytes, durability {durability}", args.common.size))?;
    report.every_row("durability", json!(durability));
    let plan = Plan { rate: args.rate, durability: args.durability, ..stage.plan(&args.common) };
    if args.rate.is_none() {
        rates(args, &plan, stage, report)?;
    }
    singles(args, &plan, stage, report)
}

fn rates(args: &Args, plan: &Plan, stage: &mut Stage, report: &mut Report) -> Result<(), Failure> {
    let roles = [Role::StoreGrowing, Role::AppendGrowing, Role::StorePrepared, Role::AppendPrepared];
    let mut passes: [Passes; 4] = Default::default();
    let plan = Plan { seconds: args.common.seconds / f64::from(ROUNDS_LEAST), ..plan.clone() };
    let begin = Instant::now();
    // By turns, so that all meet the same weather.
    while begin.elapsed().as_secs_f64() < args.common.seconds * roles.len() as f64 {
        for (role, passes) in roles.into_iter().zip(&mut passes) {
            report.status("appending flat out")?;
            passes.add(pass_of(&stage.round(&[(role, &plan)])?[0])?);
        }
    }
    let [store_growing, growing, store_prepared, prepared] = &passes;
    let sync = args.durability == Durability::Sync;
    let bare = if sync { "  bare stores, two flushes" } else { "  bare stores" };
    let cpu = ["thread", "process"];
    report.rates_head(cpu)?;
    let mut row = |name, label, passes, floor| report.rates(&Rates { name, label, passes, cpu, floor, more: &[] });
    row("growing", "growing", growing, Some(store_growing))?;
    row("growing_floor", bare, store_growing, None)?;
    row("prepared", "prepared ahead", prepared, Some(store_prepared))?;
    row("prepared_floor", bare, store_prepared, None)?;
    let longest_ns = growing.longest_ns().max(prepared.longest_ns());
    if matches!(args.durability, Durability::Interval(interval) if u128::from(longest_ns) < interval.as_nanos()) {
        report.text("No log took as long to fill as the interval: the cost of a flush is not in these rates.")?;
    }
    Ok(())
}

fn singles(args: &Args, plan: &Plan, stage: &mut Stage, report: &mut Report) -> Result<(), Failure> {
    let (mut times, mut clock, mut records, mut elapsed_ns) = (Times::new(), Times::new(), 0, 0);
    // In as many logs as it takes.
    loop {
        let left = args.common.seconds - elapsed_ns as f64 / 1e9;
        if elapsed_ns > 0 && left < 0.001 {
            break;
        }
        report.status("timing single appends")?;
        let plan = Plan { seconds: left.max(0.001), ..plan.clone() };
        let result = &stage.round(&[(Role::AppendTimed, &plan)])?[0];
        times.merge(&times_of(&result["times"])?);
        clock.add(result["clock_ns"].as_u64().ok_or_else(|| misunderstood(result))?);
        let pass = pass_of(&result["pass"])?;
        (records, elapsed_ns) = (records + pass.records, elapsed_ns + pass.elapsed_ns);
    }
    let clock_ns = clock.quantile_ns(0.5);
    let per_second = records as f64 * 1e9 / elapsed_ns as f64;
    let paced = args.rate.map_or_else(String::new, |rate| format!(", {}/s asked for", units::rate(rate)));
    report.text("")?;
    report.delays_head(&format!("single appends, at {}/s{paced}", units::rate(per_second)), false)?;
    let more = [
        ("clock_ns", json!(clock_ns)),
        ("rate_per_second", json!(args.rate)),
        ("records_per_second", json!(per_second)),
    ];
    let (name, label) = ("single", "one append, growing");
    report.delays(&Delays { name, label, times: &times, cpu_s_per_million: None, floor: None, more: &more })?;
    report.text(&format!("The clock itself costs about {clock_ns} ns, which is in each of these."))
}

/// The part that appends as fast as it can.
pub fn flat_out(scene: &Scene, prepared: bool) -> Result<Done, Failure> {
    let plan = scene.plan;
    let mut options = WriterOptions::new();
    options.durability(plan.durability);
    let mut most = plan.room();
    if prepared {
        let (bytes, records) = plan.prepared();
        options.reserve(bytes);
        most = records;
    }
    let mut writer = options.open(scene.log())?;
    scene.note(&writer)?;
    let bytes = vec![FILLER; plan.size as usize];
    let mut result = Value::Null;
    if scene.is_to_begin()? {
        let pass = scene.measure(most.min(plan.records), |_| Ok(writer.append(black_box(&bytes)).map(drop)?))?;
        result = pass.to_json();
    }
    Ok((result, Some(writer)))
}

/// The part that looks at the clock before and after each append.
pub fn timed(scene: &Scene) -> Result<Done, Failure> {
    let (plan, parent) = (scene.plan, scene.parent);
    let mut writer = WriterOptions::new().durability(plan.durability).open(scene.log())?;
    scene.note(&writer)?;
    let bytes = vec![FILLER; plan.size as usize];
    let mut times = Times::new();
    let mut done = 0;
    let clock_ns = clock_ns();
    if !scene.is_to_begin()? {
        return Ok((Value::Null, Some(writer)));
    }
    let watch = Stopwatch::start();
    let until = watch.begin_ns() + plan.time_ns();
    while done < plan.records.min(plan.room()) {
        if plan.rate.is_some() && !wait_until(plan.due_ns(watch.begin_ns(), done), || parent.is_stopped()) {
            break;
        }
        let before = now_ns();
        if before >= until || parent.is_stopped() {
            break;
        }
        writer.append(black_box(&bytes))?;
        times.add(now_ns() - before);
        done += 1;
    }
    let pass = watch.stop(done);
    let result = json!({ "times": times.to_json(), "pass": pass.to_json(), "clock_ns": clock_ns });
    Ok((result, Some(writer)))
}

/// What two looks at the clock with nothing between them are apart, in the median.
fn clock_ns() -> u64 {
    let mut times = Times::new();
    for _ in 0..100_000 {
        let before = now_ns();
        times.add(now_ns() - before);
    }
    times.quantile_ns(0.5)
}
