//! `immuta bench ipc`: what passes from one process to others.

use std::io;
use std::time::{Duration, Instant};

use immuta::{Error, ReaderOptions, Record, Start, Writer};
use serde_json::{Value, json};

use super::Common;
use super::figures::{Pass, Passes};
use super::part::{Done, Plan, Role, Scene};
use super::report::{Rates, Report};
use super::stage::{Stage, misunderstood, pass_of};
use crate::clock::{now_ns, process_cpu_ns, wait_until};
use crate::failure::Failure;
use crate::payload::{FILLER, sum_of_rest};
use crate::units;

/// Records of one round at most, where they are so small that the file's size does not end it.
const RECORDS_MOST: u64 = 10_000_000;
/// How long a consumer waits before it looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(50);
/// So often, before it gives up what did not come.
const PATIENCE_TIMES: u32 = 200;

/// Measure one producer process and some consumer processes, from the first send to the last receive
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A round is a new log of --max-bytes, or with --rate of --seconds. Consumers look at every byte and every sequence number; what \
is lost is reported, and there must be none. They spin for some microseconds before they sleep, as followers do by default. \
The floor is bare stores of the same bytes into a mapped file that grows, which nobody reads.

Examples: immuta bench ipc --readers 4
          immuta bench ipc --rate 100k --size 1KiB")]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
    /// Consumer processes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    readers: u64,
    /// Records a second, such as 100k (default: as fast as it goes)
    #[arg(long, value_parser = units::parse_rate)]
    rate: Option<f64>,
}

pub fn run(args: &Args, stage: &mut Stage, report: &mut Report) -> Result<(), Failure> {
    let seconds = args.common.seconds;
    let pace = args.rate.map_or_else(|| "flat out".to_owned(), |rate| format!("at {}/s", units::rate(rate)));
    let plural = if args.readers == 1 { "" } else { "es" };
    report.title(&format!(
        "ipc: records of {} bytes, 1 producer and {} consumer process{plural}, {pace}",
        args.common.size, args.readers
    ))?;
    report.every_row("readers", json!(args.readers));
    report.every_row("rate_per_second", json!(args.rate));
    let mut plan = Plan { rate: args.rate, ..stage.plan(&args.common) };
    plan.records = plan.room().min(args.rate.map_or(RECORDS_MOST, |rate| (rate * seconds).ceil() as u64));
    let mut cast = vec![(Role::Produce, &plan)];
    cast.extend((0..args.readers).map(|_| (Role::Consume, &plan)));
    let (mut passes, mut floor, mut lost) = (Passes::default(), Passes::default(), 0);
    let begin = Instant::now();
    loop {
        if args.rate.is_none() {
            report.status("storing into a bare file")?;
            floor.add(pass_of(&stage.round(&[(Role::StoreGrowing, &plan)])?[0])?);
        }
        report.status("producing and consuming")?;
        let results = stage.round(&cast)?;
        let number = |part: usize, key: &str| results[part][key].as_u64().ok_or_else(|| misunderstood(&results[part]));
        let (mut last_ns, mut consumers_cpu_ns) = (0, 0);
        for consumer in 1..results.len() {
            last_ns = last_ns.max(number(consumer, "last_ns")?);
            consumers_cpu_ns += number(consumer, "cpu_ns")?;
            lost += number(consumer, "lost")?;
        }
        let elapsed_ns = last_ns.saturating_sub(number(0, "first_ns")?);
        let cpu_ns = [number(0, "cpu_ns")?, consumers_cpu_ns / args.readers];
        passes.add(Pass { records: plan.records, elapsed_ns, cpu_ns });
        if args.rate.is_some() || begin.elapsed().as_secs_f64() >= 2.0 * seconds {
            break;
        }
    }
    let cpu = ["producer", "consumer"];
    report.rates_head(cpu)?;
    let label = format!("1 to {}", args.readers);
    let (floors, more) = (args.rate.is_none().then_some(&floor), [("lost_records", json!(lost))]);
    report.rates(&Rates { name: "ipc", label: &label, passes: &passes, cpu, floor: floors, more: &more })?;
    if let Some(passes) = floors {
        let cpu = ["thread", "process"];
        report.rates(&Rates { name: "ipc_floor", label: "  bare stores", passes, cpu, floor: None, more: &[] })?;
    }
    if lost > 0 {
        return Err(Failure::system("deliver every record", io::Error::other(format!("{lost} were lost"))));
    }
    let rounds = if passes.rounds() == 1 { "1 round".to_owned() } else { format!("{} rounds", passes.rounds()) };
    report.text(&format!("No record was lost in {rounds} of {}.", units::grouped(plan.records)))?;
    if args.rate.is_some() {
        report.text("The producer spins before each record is due, which is in its time of the processor.")?;
    }
    if args.readers > 1 {
        report.text("The consumers' time of the processor is the mean of one.")?;
    }
    Ok(())
}

/// The part that appends.
pub fn produce(scene: &Scene) -> Result<Done, Failure> {
    let (plan, parent) = (scene.plan, scene.parent);
    let mut writer = Writer::open(scene.log())?;
    scene.note(&writer)?;
    let mut payload = vec![FILLER; plan.size as usize];
    if !scene.is_to_begin()? {
        return Ok((Value::Null, Some(writer)));
    }
    let (cpu_ns, first_ns) = (process_cpu_ns(), now_ns());
    for record in 0..plan.records {
        if plan.rate.is_some() {
            if !wait_until(plan.due_ns(first_ns, record), || parent.is_stopped()) {
                break;
            }
        } else if record % 1024 == 0 && parent.is_stopped() {
            break;
        }
        if let Some(number) = payload.first_chunk_mut() {
            *number = record.to_le_bytes();
        }
        writer.append(&payload)?;
    }
    let result = json!({ "first_ns": first_ns, "cpu_ns": process_cpu_ns() - cpu_ns });
    Ok((result, Some(writer)))
}

/// The part that follows.
pub fn consume(scene: &Scene) -> Result<Done, Failure> {
    let (plan, parent) = (scene.plan, scene.parent);
    let mut tailer = ReaderOptions::new().open(scene.log())?.tail(Start::Beginning)?;
    parent.tell("ready")?;
    let cpu_ns = process_cpu_ns();
    let mut seen = Seen { next: 0, received: 0, size: plan.size, sum: sum_of_rest(&vec![FILLER; plan.size as usize]) };
    let mut timeouts = 0;
    while seen.next < plan.records {
        match tailer.next_timeout(PATIENCE) {
            Ok(Some(record)) => {
                seen.take(&record)?;
                timeouts = 0;
            }
            Err(Error::TimedOut { .. }) if timeouts < PATIENCE_TIMES && !parent.is_stopped() => timeouts += 1,
            Ok(None) | Err(Error::TimedOut { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let (last_ns, cpu_ns) = (now_ns(), process_cpu_ns() - cpu_ns);
    let lost = plan.records.saturating_sub(seen.received);
    Ok((json!({ "last_ns": last_ns, "cpu_ns": cpu_ns, "lost": lost }), None))
}

/// What came.
#[derive(Debug)]
struct Seen {
    next: u64,
    received: u64,
    size: u64,
    /// What the bytes behind the number add up to in each record.
    sum: u64,
}

impl Seen {
    #[inline]
    fn take(&mut self, record: &Record<'_>) -> Result<(), Failure> {
        let (payload, sequence) = (record.payload(), record.sequence());
        let number = payload.first_chunk().map_or(sequence, |number| u64::from_le_bytes(*number));
        // A gap is a loss, and counted; anything else is worse.
        let is_sound = sequence >= self.next && number == sequence && payload.len() as u64 == self.size;
        if !is_sound || sum_of_rest(payload) != self.sum {
            let message = format!("record {sequence} is not what the producer appended");
            return Err(Failure::system("go on", io::Error::other(message)));
        }
        self.next = sequence + 1;
        self.received += 1;
        Ok(())
    }
}
