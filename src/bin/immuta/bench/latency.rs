//! `immuta bench latency`: how late records are, beside what a bare cache line and a bare futex take.

use std::time::Duration;

use immuta::{Error, ReaderOptions, Start, WaitStrategy, Writer};
use serde_json::{Value, json};

use super::figures::{Times, cpu_s_per_million};
use super::part::{Done, Plan, Role, Scene};
use super::report::{Delays, Report};
use super::stage::{Stage, misunderstood, times_of};
use super::{Common, ROUNDS_LEAST};
use crate::clock::{now_ns, process_cpu_ns, wait_until};
use crate::failure::Failure;
use crate::payload::FILLER;
use crate::units;

/// How long it goes before it counts, in seconds: the first records meet cold caches and sleepy processors.
const WARM_UP_SECONDS: f64 = 0.05;
/// How long a follower waits before it looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(50);

/// Measure how late records are at a given rate, for followers that spin and for followers that sleep
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Open loop: each time is taken from the moment at which the record was due, so that whoever is late does not hide that the next \
ones are, too. The sender spins until a record is due. The floors hand a word over from process to process at the same rate: \
to one that spins on its cache line, and to one that sleeps on a futex; a word has to be taken before the next one comes, so that \
on a busy machine they are later than a log, which needs no answer. Rows take turns; the first 50 ms of each turn are not \
counted. Processes that spin need a core each: with too few, the system's time slices are what is measured.

Example: immuta bench latency --rate 100k --readers 2")]
pub struct Args {
    #[command(flatten)]
    pub common: Common,
    /// Consumer processes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    readers: u64,
    /// Records a second, such as 500, 100k or 1M
    #[arg(long, default_value = "10k", value_parser = units::parse_rate)]
    rate: f64,
}

/// The figures of one row.
#[derive(Clone, Debug)]
struct Heard {
    times: Times,
    cpu_ns: u64,
}

impl Heard {
    fn new() -> Heard {
        Heard { times: Times::new(), cpu_ns: 0 }
    }

    fn add(&mut self, result: &Value) -> Result<(), Failure> {
        self.times.merge(&times_of(&result["times"])?);
        self.cpu_ns += result["cpu_ns"].as_u64().ok_or_else(|| misunderstood(result))?;
        Ok(())
    }

    fn cpu_s_per_million(&self) -> Option<f64> {
        Some(cpu_s_per_million(self.cpu_ns, self.times.samples()))
    }
}

/// A way of waiting: what it is called, and what of it was heard.
#[derive(Debug)]
struct Way {
    spin: bool,
    name: &'static str,
    label: &'static str,
    floor_name: &'static str,
    floor_label: &'static str,
    floor: Heard,
    followers: Vec<Heard>,
}

pub fn run(args: &Args, stage: &mut Stage, report: &mut Report) -> Result<(), Failure> {
    if args.common.size < 8 {
        let message = "--size: a record needs 8 bytes to carry the time at which it is due".to_owned();
        return Err(Failure::Usage(message));
    }
    let rate = units::rate(args.rate);
    report.title(&format!("latency: records of {} bytes at {rate}/s, one way between processes", args.common.size))?;
    report.every_row("readers", json!(args.readers));
    report.every_row("rate_per_second", json!(args.rate));
    let mut plan = Plan { rate: Some(args.rate), ..stage.plan(&args.common) };
    let room = plan.room();
    plan.warm_up = ((args.rate * WARM_UP_SECONDS) as u64).min(room / 4);
    let wanted = (args.rate * args.common.seconds / f64::from(ROUNDS_LEAST)).ceil() as u64;
    plan.records = wanted.min(room - plan.warm_up);
    let followers = vec![Heard::new(); args.readers as usize];
    let mut ways = [
        Way {
            spin: true,
            name: "spin",
            label: "spinning reader",
            floor_name: "spin_floor",
            floor_label: "  bare cache line",
            floor: Heard::new(),
            followers: followers.clone(),
        },
        Way {
            spin: false,
            name: "sleep",
            label: "sleeping reader",
            floor_name: "sleep_floor",
            floor_label: "  bare futex",
            floor: Heard::new(),
            followers,
        },
    ];
    for _ in 0..ROUNDS_LEAST {
        for way in &mut ways {
            measure(way, &Plan { spin: way.spin, ..plan.clone() }, stage, report)?;
        }
    }
    report.delays_head("lateness", true)?;
    ways.iter().try_for_each(|way| show(way, report))?;
    let count = units::grouped(plan.records * u64::from(ROUNDS_LEAST));
    let room = if wanted > plan.records { ", as many as the log had room for" } else { "" };
    report.text(&format!("{count} records in each row{room}."))
}

fn measure(way: &mut Way, plan: &Plan, stage: &mut Stage, report: &mut Report) -> Result<(), Failure> {
    report.status(way.floor_label.trim())?;
    way.floor.add(&stage.round(&[(Role::HandOver, plan), (Role::TakeOver, plan)])?[1])?;
    report.status(way.label)?;
    let mut cast = vec![(Role::Send, plan)];
    cast.extend(way.followers.iter().map(|_| (Role::Receive, plan)));
    let results = stage.round(&cast)?;
    way.followers.iter_mut().zip(&results[1..]).try_for_each(|(follower, result)| follower.add(result))
}

fn show(way: &Way, report: &mut Report) -> Result<(), Failure> {
    for (follower, number) in way.followers.iter().zip(1..) {
        let label = if way.followers.len() == 1 { way.label.to_owned() } else { format!("{} {number}", way.label) };
        report.delays(&Delays {
            name: way.name,
            label: &label,
            times: &follower.times,
            cpu_s_per_million: follower.cpu_s_per_million(),
            floor: Some(&way.floor.times),
            more: &[("reader", json!(number))],
        })?;
    }
    report.delays(&Delays {
        name: way.floor_name,
        label: way.floor_label,
        times: &way.floor.times,
        cpu_s_per_million: way.floor.cpu_s_per_million(),
        floor: None,
        more: &[],
    })
}

/// The part that appends each record when it is due.
pub fn send(scene: &Scene) -> Result<Done, Failure> {
    let (plan, parent) = (scene.plan, scene.parent);
    let mut writer = Writer::open(scene.log())?;
    scene.note(&writer)?;
    let mut payload = vec![FILLER; plan.size as usize];
    if !scene.is_to_begin()? {
        return Ok((Value::Null, Some(writer)));
    }
    let begin = now_ns();
    for record in 1..=plan.warm_up + plan.records {
        let due = plan.due_ns(begin, record);
        if !wait_until(due, || parent.is_stopped()) {
            break;
        }
        if let Some(time) = payload.first_chunk_mut() {
            *time = due.to_le_bytes();
        }
        writer.append(&payload)?;
    }
    Ok((json!({}), Some(writer)))
}

/// The part that follows, and says how late each record was.
pub fn receive(scene: &Scene) -> Result<Done, Failure> {
    let (plan, parent) = (scene.plan, scene.parent);
    let strategy = if plan.spin { WaitStrategy::Spin } else { WaitStrategy::Park };
    let reader = ReaderOptions::new().wait_strategy(strategy).open(scene.log())?;
    let mut tailer = reader.tail(Start::Beginning)?;
    parent.tell("ready")?;
    let (mut times, mut cpu_ns, mut next) = (Times::new(), process_cpu_ns(), 0);
    while next < plan.warm_up + plan.records {
        match tailer.next_timeout(PATIENCE) {
            Ok(Some(record)) => {
                let due = record.payload().first_chunk().map_or(0, |time| u64::from_le_bytes(*time));
                let late_ns = now_ns().saturating_sub(due);
                if next >= plan.warm_up {
                    times.add(late_ns);
                } else if next + 1 == plan.warm_up {
                    cpu_ns = process_cpu_ns();
                }
                next += 1;
            }
            Err(Error::TimedOut { .. }) if !parent.is_stopped() => {}
            Ok(None) | Err(Error::TimedOut { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok((json!({ "times": times.to_json(), "cpu_ns": process_cpu_ns() - cpu_ns }), None))
}
