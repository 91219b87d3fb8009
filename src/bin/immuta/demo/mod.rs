//! `immuta demo`: a producer process and some consumer processes on a temporary log, with rates and latencies.
//! This file is the process that starts the others; `part` is what they have in common.

mod consumer;
mod figures;
mod part;
mod producer;
mod show;

use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use tempfile::TempDir;

use crate::failure::Failure;
use crate::signals::Signals;
use crate::units;
use figures::Figures;
use part::Role;
pub use part::{PartArgs, run as run_part};

/// What payloads are filled with.
const FILLER: u8 = b'.';
/// The smallest log that is worth a demo, in bytes.
const LIMIT_LEAST: u64 = 1 << 20;
/// What the log may reserve beyond its end, in bytes, where it is large.
const RESERVE_MOST: u64 = 40 << 20;
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
    #[arg(long, default_value = "5", value_parser = parse_seconds)]
    seconds: f64,
    /// Payload of each record, in bytes
    #[arg(long, default_value = "64", value_parser = parse_size)]
    size: u64,
    /// The log becomes no larger, nor larger than half the free space
    #[arg(long, default_value = "1GiB", value_parser = units::parse_bytes)]
    max_bytes: u64,
}

fn parse_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds.ok_or_else(|| "a number of seconds from 0.1 to 3600".to_owned())
}

fn parse_size(text: &str) -> Result<u64, String> {
    let size = units::parse_bytes(text)?;
    if size <= 64 << 20 { Ok(size) } else { Err("at most 64MiB".to_owned()) }
}

fn log_in(directory: &Path) -> PathBuf {
    directory.join("demo.log")
}

/// Of a file of at most `limit` bytes, how far the records may reach, with what a writer reserves beyond them.
fn usable_bytes(limit: u64) -> u64 {
    limit.saturating_sub(RESERVE_MOST).max(limit / 4)
}

/// How far the flat-out phase may reach: the other one needs less.
fn flat_out_bytes(limit: u64) -> u64 {
    usable_bytes(limit) / 10 * 9
}

/// Whether a payload has room for a time.
fn has_room_for_time(size: u64) -> bool {
    size >= 8
}

/// What a part tells: its number, and a line, or `None` when it has ended.
type Told = (usize, Option<String>);

/// A process that this one has started.
struct Part {
    role: Role,
    child: Child,
    stdin: Option<ChildStdin>,
    is_ready: bool,
    /// The flat-out phase is over for it.
    is_over: bool,
    is_done: bool,
    flat_out: Figures,
    paced: Figures,
}

/// All of them, and the places that they use.
struct Demo {
    parts: Vec<Part>,
    told: Receiver<Told>,
    tell: Sender<Told>,
    signals: Signals,
    /// Lines of the table that stand on the terminal.
    drawn: usize,
    directory: TempDir,
    control: TempDir,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    let place = || tempfile::Builder::new().prefix("immuta-demo-").tempdir();
    let directory = place().map_err(|error| Failure::system("create a temporary directory", error))?;
    // The page of a demo must not stay behind, even if its producer is killed: it gets a directory that is removed.
    let shared = std::env::var_os("IMMUTA_CONTROL_DIR").unwrap_or_else(|| "/dev/shm".into());
    let control = tempfile::Builder::new().prefix("immuta-demo-").tempdir_in(shared);
    let control =
        control.or_else(|_| place()).map_err(|error| Failure::system("create a temporary directory", error))?;
    let limit = limit(args, directory.path())?;
    let (tell, told) = channel();
    let mut demo = Demo { parts: Vec::new(), told, tell, signals, drawn: 0, directory, control };
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
    let space = statvfs(directory).map_err(|error| Failure::system("look for free space", error))?;
    let free = space.blocks_available() * space.fragment_size();
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
        let start = || -> io::Result<Child> {
            Command::new(std::env::current_exe()?)
                .args(["demo-part", name, &std::process::id().to_string()])
                .arg(self.directory.path())
                .args([args.size.to_string(), args.seconds.to_string(), limit.to_string()])
                .env("IMMUTA_CONTROL_DIR", self.control.path())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                // Ctrl-C is for this process, which ends the others in order.
                .process_group(0)
                .spawn()
        };
        let mut child = start().map_err(|error| Failure::system(format!("start a {name}"), error))?;
        let (tell, number) = (self.tell.clone(), self.parts.len());
        let lines = BufReader::new(child.stdout.take().expect("its output is a pipe")).lines();
        std::thread::spawn(move || {
            // Nobody listens any more once the demo is over.
            let _ = lines.map_while(Result::ok).try_for_each(|line| tell.send((number, Some(line))));
            let _ = tell.send((number, None));
        });
        self.parts.push(Part {
            role,
            stdin: child.stdin.take(),
            child,
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
        let stdin = self.parts[0].stdin.as_mut().expect("it is closed only at the end");
        writeln!(stdin, "go").map_err(|error| Failure::system("reach the producer", error))
    }

    fn wait_until(&mut self, what: &str, limit: Duration, is_so: impl Fn(&[Part]) -> bool) -> Result<(), Failure> {
        let begin = Instant::now();
        let mut next_drawing = begin;
        while !is_so(&self.parts) {
            self.signals.check()?;
            if begin.elapsed() > limit {
                return Err(Failure::system(what, io::ErrorKind::TimedOut));
            }
            match self.told.recv_timeout(INTERVAL) {
                Ok((number, Some(line))) => self.hear(number, &line)?,
                Ok((number, None)) if !self.parts[number].is_done => {
                    return Err(Failure::system(what, io::Error::other("one of the processes ended before its time")));
                }
                Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("this process holds a sender"),
            }
            if Instant::now() >= next_drawing {
                next_drawing = Instant::now() + 2 * INTERVAL;
                self.draw();
            }
        }
        Ok(())
    }

    fn hear(&mut self, number: usize, line: &str) -> Result<(), Failure> {
        let part = &mut self.parts[number];
        let figures = |text: &str| {
            text.parse().map_err(|error: String| Failure::system("understand a part", io::Error::other(error)))
        };
        match line.split_once(' ') {
            None if line == "ready" => part.is_ready = true,
            None if line == "over" => part.is_over = true,
            None if line == "done" => part.is_done = true,
            Some(("flat-out", text)) => part.flat_out = figures(text)?,
            Some(("paced", text)) => part.paced = figures(text)?,
            _ => return Err(Failure::system("understand a part", io::Error::other(line.to_owned()))),
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

    /// Ends all parts: asks, then waits for what they still have to say, then kills.
    fn end(&mut self) {
        for part in &mut self.parts {
            if let Some(stdin) = &mut part.stdin {
                // One that has ended already does not hear it.
                let _ = writeln!(stdin, "stop");
            }
        }
        let begin = Instant::now();
        let mut running = self.parts.len();
        while running > 0 && begin.elapsed() < PATIENCE / 4 {
            match self.told.recv_timeout(INTERVAL) {
                Ok((number, Some(line))) => drop(self.hear(number, &line)),
                Ok((_, None)) => running -= 1,
                Err(_) => {
                    running = self
                        .parts
                        .iter_mut()
                        .filter_map(|part| part.child.try_wait().ok())
                        .filter(Option::is_none)
                        .count()
                }
            }
        }
        for part in &mut self.parts {
            // One that has ended cannot be killed any more, and is reaped.
            let _ = part.child.kill();
            let _ = part.child.wait();
        }
    }
}
