//! One process of a benchmark: does what its role says, tells its parent, and ends without a flush of what nobody keeps.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use immuta::{Durability, Writer};
use serde_json::Value;

use super::figures::{Pass, Stopwatch};
use super::{PREFIX, append, floors, ipc, latency, read};
use crate::append::{durability_name, parse_durability};
use crate::clock::now_ns;
use crate::crew::Parent;
use crate::failure::Failure;
use crate::place;

/// Of the largest file, what is not made ready beforehand: the writer rounds up.
const UNPREPARED: u64 = 4 << 20;
/// What is ready and not used, so that the writer sees no need for more: it wants up to 32 MiB ahead.
const AHEAD: u64 = 64 << 20;

/// How long the directories of a parent that has died are looked at, in nanoseconds, and how often.
const KEEP_NS: u64 = 3_000_000_000;
const KEEP_INTERVAL: Duration = Duration::from_millis(20);

/// A part of a benchmark, started by it.
#[derive(Debug, clap::Args)]
pub struct PartArgs {
    /// What it does.
    pub role: Role,
    /// The process that started it.
    pub parent: u32,
    /// The benchmark's own directory.
    pub directory: PathBuf,
    #[command(flatten)]
    pub plan: Plan,
}

/// What a part does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    Keep,
    AppendGrowing,
    AppendPrepared,
    AppendTimed,
    StoreGrowing,
    StorePrepared,
    MakeLog,
    ReadLog,
    Produce,
    Consume,
    Send,
    Receive,
    HandOver,
    TakeOver,
}

impl Role {
    fn name(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self).expect("no role is skipped");
        value.get_name().to_owned()
    }
}

/// How much of it.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Plan {
    /// Payload of each record, in bytes.
    #[arg(long)]
    pub size: u64,
    /// How long it goes on at most, in seconds.
    #[arg(long)]
    pub seconds: f64,
    /// The largest file, in bytes.
    #[arg(long)]
    pub limit: u64,
    /// Records at most.
    #[arg(long)]
    pub records: u64,
    /// Of these, so many come first and are not counted.
    #[arg(long)]
    pub warm_up: u64,
    /// Records a second, or as fast as it goes.
    #[arg(long)]
    pub rate: Option<f64>,
    #[arg(long, value_parser = parse_durability)]
    pub durability: Durability,
    /// Whoever waits spins.
    #[arg(long)]
    pub spin: bool,
}

impl Plan {
    /// The arguments that start a part in this role.
    pub fn arguments(&self, role: Role, directory: &Path) -> Vec<std::ffi::OsString> {
        let Plan { size, seconds, limit, records, warm_up, rate, durability, spin } = self;
        let mut arguments = vec!["bench-part".into(), role.name().into(), std::process::id().to_string().into()];
        arguments.push(directory.into());
        let mut option = |name: &str, value: String| arguments.push(format!("--{name}={value}").into());
        option("size", size.to_string());
        option("seconds", seconds.to_string());
        option("limit", limit.to_string());
        option("records", records.to_string());
        option("warm-up", warm_up.to_string());
        option("durability", durability_name(*durability));
        rate.iter().for_each(|rate| option("rate", rate.to_string()));
        if *spin {
            arguments.push("--spin".into());
        }
        arguments
    }

    pub fn time_ns(&self) -> u64 {
        (self.seconds * 1e9) as u64
    }

    /// When the n-th record is due, counted from `begin_ns`.
    pub fn due_ns(&self, begin_ns: u64, n: u64) -> u64 {
        self.rate.map_or(begin_ns, |rate| begin_ns + (n as f64 * 1e9 / rate) as u64)
    }

    /// Records that have room in a file which grows.
    pub fn room(&self) -> u64 {
        self.records_in(place::usable_bytes(self.limit))
    }

    /// Bytes to be made ready beforehand, and the records that have room in them without a need for more.
    pub fn prepared(&self) -> (u64, u64) {
        let bytes = self.limit.saturating_sub(UNPREPARED).max(self.limit / 2);
        (bytes, self.records_in(bytes.saturating_sub(AHEAD).max(bytes / 4)))
    }

    fn records_in(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(16) / (self.size + 8)
    }
}

/// What a part has in hand.
#[derive(Debug)]
pub struct Scene<'a> {
    pub plan: &'a Plan,
    pub parent: &'a Parent,
    directory: &'a Path,
}

/// What a part tells, and its writer, which is not closed before the process ends: a close flushes what nobody keeps, on a disk
/// that somebody else may need.
pub type Done = (Value, Option<Writer>);

impl Scene<'_> {
    pub fn log(&self) -> PathBuf {
        self.directory.join("bench.log")
    }

    /// A file for a floor.
    pub fn bare(&self) -> PathBuf {
        self.directory.join("bench.bare")
    }

    /// Warns of what a writer does without.
    pub fn note(&self, writer: &Writer) -> Result<(), Failure> {
        writer.notices().iter().try_for_each(|notice| self.parent.tell(&format!("note {notice}")))
    }

    /// Says that all is ready, and waits until it begins; `false` where it does not.
    pub fn is_to_begin(&self) -> Result<bool, Failure> {
        self.parent.tell("ready")?;
        Ok(self.parent.wait_for_go())
    }
}

pub fn run(args: &PartArgs) -> Result<(), Failure> {
    // The keeper is there from the beginning to the end, and puts in order what the others leave.
    let abandoned = (args.role == Role::Keep).then_some((PREFIX, &*args.directory));
    let Some(parent) = Parent::listen(args.parent, abandoned)? else { return Ok(()) };
    let scene = Scene { plan: &args.plan, parent: &parent, directory: &args.directory };
    if args.role == Role::Keep {
        keep(&scene);
        return Ok(());
    }
    let done = place::limit_files(args.plan.limit).and_then(|()| play(args.role, &scene));
    // The parent says what there is to say; where it is gone nobody is left to be told.
    let _ = match &done {
        Ok((result, _)) => parent.tell(&format!("result {result}")),
        Err(failure) => parent.tell(&format!("failed {}", failure.to_string().replace('\n', " "))),
    };
    while parent.wait_for_go() {}
    // Without an end to what `done` holds.
    std::process::exit(i32::from(done.is_err()))
}

/// Waits for the parent's end, and removes the directories where it could not.
fn keep(scene: &Scene) {
    while scene.parent.wait_for_go() {}
    let until = now_ns() + KEEP_NS;
    while scene.parent.is_gone() {
        place::remove_abandoned(PREFIX, scene.directory);
        // The kernel is ending the others; until it has, they may make files.
        if !scene.directory.exists() || now_ns() > until {
            break;
        }
        std::thread::sleep(KEEP_INTERVAL);
    }
}

fn play(role: Role, scene: &Scene) -> Result<Done, Failure> {
    match role {
        Role::Keep => unreachable!("it plays no part"),
        Role::AppendGrowing => append::flat_out(scene, false),
        Role::AppendPrepared => append::flat_out(scene, true),
        Role::AppendTimed => append::timed(scene),
        Role::StoreGrowing => floors::store(scene, false),
        Role::StorePrepared => floors::store(scene, true),
        Role::MakeLog => read::make(scene),
        Role::ReadLog => read::read(scene),
        Role::Produce => ipc::produce(scene),
        Role::Consume => ipc::consume(scene),
        Role::Send => latency::send(scene),
        Role::Receive => latency::receive(scene),
        Role::HandOver => floors::hand_over(scene),
        Role::TakeOver => floors::take_over(scene),
    }
}

impl Scene<'_> {
    /// Does `one` for each record: until there are `most` of them, or the time is over, or a stop comes.
    #[inline(always)]
    pub fn measure(&self, most: u64, mut one: impl FnMut(u64) -> Result<(), Failure>) -> Result<Pass, Failure> {
        // Between two looks at the clock: enough that these cost nothing, and few where each takes a flush.
        let step = match self.plan.durability {
            Durability::Sync => 1,
            _ => ((64 << 10) / (self.plan.size + 8)).clamp(1, 1024),
        };
        let watch = Stopwatch::start();
        let until = watch.begin_ns() + self.plan.time_ns();
        let mut done = 0;
        while done < most && now_ns() < until && !self.parent.is_stopped() {
            let next = most.min(done + step);
            (done..next).try_for_each(&mut one)?;
            done = next;
        }
        Ok(watch.stop(done))
    }
}

/// An error of a file that is not a log.
pub fn bare_failure(error: io::Error) -> Failure {
    Failure::system("measure the floor", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn a_plan_survives_the_command_line() {
        let plan = Plan {
            size: 64,
            seconds: 0.3,
            limit: 1 << 20,
            records: 1000,
            warm_up: 10,
            rate: Some(12_345.678),
            durability: parse_durability("interval=20ms").unwrap(),
            spin: true,
        };
        for plan in [Plan { rate: None, durability: Durability::Sync, spin: false, ..plan.clone() }, plan] {
            let arguments = plan.arguments(Role::TakeOver, Path::new("/tmp/x"));
            let cli = crate::Cli::try_parse_from([std::ffi::OsString::from("immuta")].into_iter().chain(arguments));
            let crate::Command::BenchPart(args) = cli.unwrap().command else { panic!("another command") };
            assert_eq!((args.plan, args.role, &*args.directory), (plan, Role::TakeOver, Path::new("/tmp/x")));
        }
    }

    #[test]
    fn due_times_do_not_drift() {
        let plan = Plan {
            size: 0,
            seconds: 1.0,
            limit: 1 << 20,
            records: 0,
            warm_up: 0,
            rate: Some(3.0),
            durability: Durability::Buffered,
            spin: false,
        };
        assert_eq!(
            (plan.due_ns(5, 0), plan.due_ns(5, 3), plan.due_ns(5, 3_000_000)),
            (5, 1_000_000_005, 1_000_000_000_000_005)
        );
        assert_eq!(Plan { rate: None, ..plan }.due_ns(5, 9), 5);
    }
}
