//! Where benchmarks are played: the directory, the largest file, and the processes of each round.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use immuta::Durability;
use serde_json::Value;

use super::figures::{Pass, Times};
use super::part::{Plan, Role};
use super::{Common, PREFIX};
use crate::crew::Crew;
use crate::failure::Failure;
use crate::place::{self, Place};
use crate::signals::Signals;
use crate::units;

/// The smallest log that is worth a benchmark, in bytes.
const LIMIT_LEAST: u64 = 1 << 20;
/// How often signals are looked for.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long a part may take beyond its time: to make space ready, or to have a busy disk take what it must.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long one may take to end; then it is killed.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// The stage of one command.
#[derive(Debug)]
pub struct Stage<'a> {
    crew: Crew,
    /// One process that removes the directories if this one is killed. Ended before they are dropped.
    keeper: Crew,
    place: Place,
    signals: &'a Signals,
    free_bytes: u64,
    limit: u64,
    noted: Vec<String>,
}

/// A process of a round.
#[derive(Debug, Default)]
struct Part {
    is_ready: bool,
    result: Option<Value>,
}

impl<'a> Stage<'a> {
    pub fn new(common: &Common, signals: &'a Signals) -> Result<Stage<'a>, Failure> {
        let place = Place::new(PREFIX, common.dir.as_deref())?;
        let free_bytes = place::free_bytes(place.directory())?;
        let limit = limit(common, place.directory(), free_bytes, free_memory())?;
        let crew = Crew::new();
        let mut stage = Stage { crew, keeper: Crew::new(), place, signals, free_bytes, limit, noted: Vec::new() };
        let arguments = stage.plan(common).arguments(Role::Keep, stage.place.directory());
        stage.keeper.start("process that clears up", &stage.place, arguments)?;
        Ok(stage)
    }

    /// The largest file, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Where files are, and how much may be written there.
    pub fn space(&self) -> (&Path, u64) {
        (self.place.directory().parent().unwrap_or(Path::new("/")), self.free_bytes)
    }

    /// What every benchmark begins with.
    pub fn plan(&self, common: &Common) -> Plan {
        let (size, seconds, limit) = (common.size, common.seconds, self.limit);
        let durability = Durability::default();
        Plan { size, seconds, limit, records: u64::MAX, warm_up: 0, rate: None, durability, spin: false }
    }

    /// Starts a process for each role, the first one first; has that begin when all are ready. Returns what they tell when they have
    /// ended; their files are gone then.
    pub fn round(&mut self, cast: &[(Role, &Plan)]) -> Result<Vec<Value>, Failure> {
        let result = self.play(cast);
        self.crew.end(END_PATIENCE, |_, _| {});
        // What went wrong first is what is told.
        let results = result?;
        self.place.clear()?;
        Ok(results)
    }

    fn play(&mut self, cast: &[(Role, &Plan)]) -> Result<Vec<Value>, Failure> {
        let mut parts: Vec<Part> = Vec::new();
        for (role, plan) in cast {
            let arguments = plan.arguments(*role, self.place.directory());
            self.crew.start("process for the benchmark", &self.place, arguments)?;
            parts.push(Part::default());
            if parts.len() == 1 {
                self.wait(&mut parts, PATIENCE, |parts| parts.iter().all(|part| part.is_ready))?;
            }
        }
        self.wait(&mut parts, PATIENCE, |parts| parts.iter().all(|part| part.is_ready))?;
        self.crew.go(0)?;
        let (_, plan) = cast[0];
        // A part that reads takes its time twice; one that has a pace, as long as all its records.
        let paced = plan.rate.map_or(0.0, |rate| (plan.records.saturating_add(plan.warm_up) as f64 / rate).min(4000.0));
        let time = Duration::from_secs_f64(2.0 * plan.seconds + paced) + PATIENCE;
        self.wait(&mut parts, time, |parts| parts.iter().all(|part| part.result.is_some()))?;
        Ok(parts.into_iter().filter_map(|part| part.result).collect())
    }

    fn wait(&mut self, parts: &mut [Part], limit: Duration, is_so: impl Fn(&[Part]) -> bool) -> Result<(), Failure> {
        let begin = Instant::now();
        while !is_so(parts) {
            self.signals.check()?;
            if begin.elapsed() > limit {
                return Err(Failure::system("measure", io::ErrorKind::TimedOut));
            }
            match self.crew.hear(INTERVAL) {
                Some((number, Some(line))) => self.hear(&mut parts[number], &line)?,
                Some((_, None)) => {
                    let message = "one of the processes ended before its time";
                    return Err(Failure::system("measure", io::Error::other(message)));
                }
                None => {}
            }
        }
        self.signals.check()
    }

    fn hear(&mut self, part: &mut Part, line: &str) -> Result<(), Failure> {
        match line.split_once(' ') {
            None if line == "ready" => part.is_ready = true,
            Some(("result", text)) => match serde_json::from_str(text) {
                Ok(result) => part.result = Some(result),
                Err(_) => return Err(misunderstood(&Value::from(text))),
            },
            Some(("failed", text)) => return Err(Failure::system("measure", io::Error::other(text.to_owned()))),
            Some(("note", text)) => {
                // Once, not in every round.
                if !self.noted.iter().any(|noted| noted == text) {
                    let _ = writeln!(io::stderr(), "immuta: warning: {text}");
                    self.noted.push(text.to_owned());
                }
            }
            _ => return Err(misunderstood(&Value::from(line))),
        }
        Ok(())
    }
}

/// The largest file that a benchmark makes, in bytes.
fn limit(common: &Common, directory: &Path, free_bytes: u64, free_memory: u64) -> Result<u64, Failure> {
    let limit = common.max_bytes.min(free_bytes / 2).min(free_memory / 4);
    // A quarter of it may be all that records have, and of that there should be several.
    let least = LIMIT_LEAST.max(32 * (common.size + 8));
    if limit >= least {
        return Ok(limit);
    }
    let (most, free) = (units::bytes(common.max_bytes), units::bytes(free_bytes));
    let message = format!(
        "records of {} bytes need a log of {}, which is more than --max-bytes ({most}), half of the free space in {} ({free}) or a quarter of the free memory ({})",
        common.size,
        units::bytes(least),
        directory.parent().unwrap_or(directory).display(),
        units::bytes(free_memory)
    );
    Err(if common.max_bytes < least {
        Failure::Usage(message)
    } else {
        Failure::system("measure", io::Error::other(message))
    })
}

/// Memory that the kernel could give without swapping, in bytes.
fn free_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    // Where the kernel does not tell, --max-bytes and the disk are the bounds.
    kib.map_or(u64::MAX, |kib| kib << 10)
}

/// What a part has told makes no sense, which is a mistake in here.
pub fn misunderstood(told: &Value) -> Failure {
    Failure::system("understand a process of the benchmark", io::Error::other(told.to_string()))
}

pub fn pass_of(told: &Value) -> Result<Pass, Failure> {
    Pass::of_json(told).ok_or_else(|| misunderstood(told))
}

pub fn times_of(told: &Value) -> Result<Times, Failure> {
    Times::of_json(told).ok_or_else(|| misunderstood(told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_fits_the_disk_and_the_memory() {
        let common = |size, max_bytes| Common { size, seconds: 1.0, max_bytes, dir: None, json: false };
        let (mib, dir) = (1 << 20, Path::new("/tmp/x"));
        let of =
            |size, max: u64, free: u64, memory: u64| limit(&common(size, max * mib), dir, free * mib, memory * mib);
        assert_eq!(of(64, 512, 10_000, 10_000).unwrap(), 512 * mib);
        assert_eq!(of(64, 512, 100, 10_000).unwrap(), 50 * mib);
        assert_eq!(of(64, 512, 100, 100).unwrap(), 25 * mib);
        assert!(matches!(of(64, 512, 1, 100), Err(Failure::System { .. })));
        assert!(matches!(of(64, 512, 100, 3), Err(Failure::System { .. })));
        assert!(matches!(of(1 << 20, 16, 100, 100), Err(Failure::Usage(_))));
        assert!(free_memory() > mib);
    }
}
