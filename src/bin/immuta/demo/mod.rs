//! `immuta demo`: a producer process and some consumer processes on a temporary log, with rates and latencies.
//! This file is the process that starts the others; `part` is what they have in common.

mod consumer;
mod figures;
mod part;
mod producer;
mod show;

use std::ffi::OsStr;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::crew::Crew;
use crate::failure::Failure;
use crate::place::{self, Place, usable_bytes};
use crate::signals::Signals;
use crate::{times, units};
use figures::Figures;
use part::Role;
pub use part::{PartArgs, run as run_part};

/// How the names of the demo's directories begin.
const PREFIX: &str = "immuta-demo-";
/// The smallest log that is worth a demo, in bytes.
const LIMIT_LEAST: u64 = 1 << 20;
/// How often the table is drawn anew, and signals are looked for.
const INTERVAL: Duration = Duration::from_millis(100);
/// How long a part may take to come up, to catch up, or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// Show rates and latencies of a producer and some consumer processes on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: immuta demo --readers 2 --seconds 10 --size 1024")]
pub struct Args {
    /// Consumer processes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=64))]
    readers: u64,
    /// How long it takes: half of it flat out, for the rates, and half at intervals, for the latencies
    #[arg(long, default_value = "5", value_parser = times::parse_seconds)]
    seconds: f64,
    /// Payload of each record, in bytes
    #[arg(long, default_value = "64", value_parser = units::parse_size)]
    size: u64,
    /// The log becomes no larger, nor larger than half the free space
    #[arg(long, default_value = "1GiB", value_parser = units::parse_bytes)]
    max_bytes: u64,
}

fn log_in(directory: &Path) -> PathBuf {
    directory.join("demo.log")
}

/// How far the flat-out phase may reach: the other one needs less.
fn flat_out_bytes(limit: u64) -> u64 {
    usable_bytes(limit) / 10 * 9
}

/// Whether a payload has room for a time.
fn has_room_for_time(size: u64) -> bool {
    size >= 8
}

/// A process that this one has started.
struct Part {
    role: Role,
    is_ready: bool,
    /// The flat-out phase is over for it.
    is_over: bool,
    is_done: bool,
    flat_out: Figures,
    paced: Figures,
}

/// All of them, and the places that they use.
struct Demo {
    /// By the numbers that they have in the crew, which goes first.
    parts: Vec<Part>,
    crew: Crew,
    signals: Signals,
    /// Lines of the table that stand on the terminal.
    drawn: usize,
    place: Place,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    let place = Place::new(PREFIX, None)?;
    let limit = limit(args, place.directory())?;
    let mut demo = Demo { parts: Vec::new(), crew: Crew::new(), signals, drawn: 0, place };
    let result = demo.play(args, limit);
    demo.end();
    demo.erase();
    // What was measured until then, also after a signal.
    let summary = show::summary(args, limit, &demo.parts);
    io::stdout().write_all(summary.as_bytes()).map_err(Failure::Output)?;
    result
}

/// The largest file that this demo makes, in bytes.
fn limit(args: &Args, directory: &Path) -> Result<u64, Failure> {
    let free = place::free_bytes(directory)?;
    let limit = args.max_bytes.min(free / 2);
    let least = LIMIT_LEAST.max(8 * (args.size + 8));
    if limit >= least {
        return Ok(limit);
    }
    let (limit, least) = (units::bytes(limit), units::bytes(least));
    let message = format!(
        "a log of {limit} (--max-bytes, or half the free space in {}) is too small for this demo, which needs {least}",
        directory.display()
    );
    Err(if args.max_bytes > free / 2 {
        Failure::system("run a demo", io::Error::other(message))
    } else {
        Failure::Usage(message)
    })
}

impl Demo {
    fn play(&mut self, args: &Args, limit: u64) -> Result<(), Failure> {
        self.start(Role::Producer, args, limit)?;
        self.wait_until("start the producer", PATIENCE, |parts| parts.iter().all(|part| part.is_ready))?;
        for _ in 0..args.readers {
            self.start(Role::Consumer, args, limit)?;
        }
        self.wait_until("start the consumers", PATIENCE, |parts| parts.iter().all(|part| part.is_ready))?;
        let time = Duration::from_secs_f64(args.seconds) + PATIENCE;
        self.go()?;
        self.wait_until("append flat out", time, |parts| parts[0].is_over || parts[0].is_done)?;
        // Before the second phase everyone has what the first brought.
        self.wait_until("let the consumers catch up", PATIENCE, |parts| {
            let (producer, consumers) = parts.split_first().expect("there is a producer");
            consumers.iter().all(|part| part.flat_out.records >= producer.flat_out.records || part.is_done)
        })?;
        if has_room_for_time(args.size) {
            self.go()?;
        }
        self.wait_until("append at intervals", time, |parts| parts.iter().all(|part| part.is_done))
    }

    fn start(&mut self, role: Role, args: &Args, limit: u64) -> Result<(), Failure> {
        let name = match role {
            Role::Producer => "producer",
            Role::Consumer => "consumer",
        };
        let (parent, size) = (std::process::id().to_string(), args.size.to_string());
        let (seconds, limit) = (args.seconds.to_string(), limit.to_string());
        let directory = self.place.directory().as_os_str();
        let args = [
            OsStr::new("demo-part"),
            name.as_ref(),
            parent.as_ref(),
            directory,
            size.as_ref(),
            seconds.as_ref(),
            limit.as_ref(),
        ];
        self.crew.start(name, &self.place, args)?;
        self.parts.push(Part {
            role,
            is_ready: false,
            is_over: false,
            is_done: false,
            flat_out: Figures::default(),
            paced: Figures::default(),
        });
        Ok(())
    }

    /// Has the producer begin with its next phase.
    fn go(&mut self) -> Result<(), Failure> {
        self.crew.go(0)
    }

    fn wait_until(&mut self, what: &str, limit: Duration, is_so: impl Fn(&[Part]) -> bool) -> Result<(), Failure> {
        let begin = Instant::now();
        let mut next_drawing = begin;
        while !is_so(&self.parts) {
            self.signals.check()?;
            if begin.elapsed() > limit {
                return Err(Failure::system(what, io::ErrorKind::TimedOut));
            }
            match self.crew.hear(INTERVAL) {
                Some((number, Some(line))) => self.parts[number].hear(&line)?,
                Some((number, None)) if !self.parts[number].is_done => {
                    return Err(Failure::system(what, io::Error::other("one of the processes ended before its time")));
                }
                Some((_, None)) | None => {}
            }
            if Instant::now() >= next_drawing {
                next_drawing = Instant::now() + 2 * INTERVAL;
                self.draw();
            }
        }
        Ok(())
    }

    /// The table, in the place of the one before.
    fn draw(&mut self) {
        if io::stderr().is_terminal() {
            let table = show::table(&self.parts);
            let up = if self.drawn > 0 { format!("\x1b[{}A", self.drawn) } else { String::new() };
            self.drawn = table.lines().count();
            let lines: String = table.lines().map(|line| format!("{line}\x1b[K\n")).collect();
            // A terminal that went away is told when the summary is printed.
            let _ = write!(io::stderr(), "{up}{lines}");
        }
    }

    /// Takes the table away: the summary says it all.
    fn erase(&mut self) {
        if self.drawn > 0 {
            let _ = write!(io::stderr(), "\x1b[{}A\x1b[J", self.drawn);
        }
    }

    /// Ends all parts, and hears what they still have to say.
    fn end(&mut self) {
        let parts = &mut self.parts;
        self.crew.end(PATIENCE / 4, |number, line| drop(parts[number].hear(line)));
    }
}

impl Part {
    fn hear(&mut self, line: &str) -> Result<(), Failure> {
        let figures = |text: &str| {
            text.parse().map_err(|error: String| Failure::system("understand a part", io::Error::other(error)))
        };
        match line.split_once(' ') {
            None if line == "ready" => self.is_ready = true,
            None if line == "over" => self.is_over = true,
            None if line == "done" => self.is_done = true,
            Some(("flat-out", text)) => self.flat_out = figures(text)?,
            Some(("paced", text)) => self.paced = figures(text)?,
            _ => return Err(Failure::system("understand a part", io::Error::other(line.to_owned()))),
        }
        Ok(())
    }
}
