//! The other processes of tests/kill.rs and tests/faults.rs, which `interpose` ends at a chosen point or gives errors to.
//! `fault_helper ROLE key=value…`; prints lines, takes lines.

mod content;
mod interpose;
mod seen;
mod stamp;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use content::{Checksum, Random};
use immuta::{Durability, Error, ReadMode, ReaderOptions, Result, Start, Writer, WriterOptions};
use stamp::Stamp;

fn main() {
    // Ends with the test that started it, whatever happens to that.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).expect("a signal at the parent's death");
    let mut words = std::env::args().skip(1);
    let role = words.next().expect("a role");
    let args = Args(words.filter_map(|word| word.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))).collect());
    match role.as_str() {
        "write" => write(&args),
        "recover" => recover(&args),
        "read" => read(&args),
        "seen" => seen::seen(&args),
        _ => panic!("no such role: {role}"),
    }
}

/// The words `key=value` behind the role.
struct Args(HashMap<String, String>);

impl Args {
    fn text(&self, key: &str) -> &str {
        self.0.get(key).unwrap_or_else(|| panic!("{key}=… is missing"))
    }

    fn number<T: FromStr>(&self, key: &str, default: T) -> T {
        self.0.get(key).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{key}={text} is no number")))
    }

    fn writer(&self) -> WriterOptions {
        let mut options = WriterOptions::new();
        options.control_dir(self.text("control")).window(self.number("window", 4 << 20));
        options.mapped(self.number("mapped", 1) == 1);
        options.durability(match self.0.get("mode").map_or("buffered", String::as_str) {
            "buffered" => Durability::Buffered,
            "interval" => Durability::Interval(Duration::from_millis(10)),
            "sync" => Durability::Sync,
            mode => panic!("no such mode: {mode}"),
        });
        options
    }

    fn reader(&self) -> ReaderOptions {
        let mut options = ReaderOptions::new();
        options.control_dir(self.text("control")).durable(self.number("durable", 0) == 1);
        options.read_mode(match self.0.get("read").map(String::as_str) {
            Some("pread") => ReadMode::Pread,
            Some("mapped") => ReadMode::Mapped,
            _ => ReadMode::Auto,
        });
        options
    }
}

/// Says a line to the test, in one write.
fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the test listens");
}

/// The next line from the test; `None` once it has closed its side.
fn listen() -> Option<String> {
    std::io::stdin().lock().lines().next().map(|line| line.expect("a line"))
}

fn failed(what: &str, error: &Error) {
    say(format_args!("error {what}: {error}"));
}

/// The last word: whether the fault was met, and how often each point was passed.
fn end() {
    let fired = interpose::disarm();
    for (point, times) in interpose::passed() {
        say(format_args!("passed {point} {times}"));
    }
    say(format_args!("end {}", u8::from(fired)));
}

/// Opens the log, does `ops` things, and closes it, or with `hold=1` waits to be killed. Says `open COUNT`, `published COUNT` after
/// each thing that was acknowledged, `durable COUNT` after each that was acknowledged as durable, `error WHAT: TEXT`, `closed`.
fn write(args: &Args) {
    interpose::arm();
    match args.writer().open(args.text("log")) {
        Err(error) => failed("open", &error),
        Ok(mut writer) => {
            let stat = writer.stat().ok();
            let (records, recovery) =
                (stat.as_ref().map_or(0, |stat| stat.records), stat.and_then(|stat| stat.recovery));
            say(format_args!("open {records} {:?}", recovery.map(|recovery| recovery.evidence)));
            let (run, most) = (args.number("run", 1), args.number("most", 90_000));
            for op in 0..args.number("ops", 12) {
                match act(&mut writer, run, op, most) {
                    Ok(Some(count)) => {
                        say(format_args!("published {count}"));
                        if args.text("mode") == "sync" {
                            say(format_args!("durable {count}"));
                        }
                    }
                    Ok(None) => {}
                    Err(error) => failed(&format!("op {op}"), &error),
                }
                if op == 7 {
                    // The helper thread comes to do what it does at intervals.
                    std::thread::sleep(Duration::from_millis(args.number("pause_ms", 0)));
                }
                // In all modes what the writer says is durable is.
                say(format_args!("durable {}", writer.durable()));
            }
            if args.number("hold", 0) == 1 {
                say(format_args!("holding"));
                listen();
            }
            match writer.close() {
                Ok(()) => say(format_args!("closed")),
                Err(error) => failed("close", &error),
            }
        }
    }
    end();
}

/// Does one thing to the log, with records of up to `most` bytes; the count behind what was published.
fn act(writer: &mut Writer, run: u64, op: u64, most: u64) -> Result<Option<u64>> {
    let mut random = Random(run << 20 ^ op);
    let mut size = || match random.below(12) {
        _ if most > 1 << 20 && op == 6 => most,
        0 => 0,
        1 => random.below(most),
        _ => random.below(300),
    };
    let one = Stamp { run, op, place: 0, length: 1 };
    match op % 8 {
        // In batches, of which some are given up.
        1 | 2 => {
            let length = 2 + op % 5;
            let given_up = op.is_multiple_of(3);
            let mut batch = writer.batch();
            for place in 0..length {
                batch.append(&Stamp { place, length: if given_up { 0 } else { length }, ..one }.payload(size()))?;
            }
            if given_up {
                return Ok(None);
            }
            batch.commit().map(|range| Some(range.end))
        }
        3 => {
            let given_up = op.is_multiple_of(3);
            let payload = Stamp { length: u64::from(!given_up), ..one }.payload(size());
            let mut claim = writer.claim(payload.len() as u64)?;
            claim.copy_from_slice(&payload);
            if given_up {
                return Ok(None);
            }
            claim.commit().map(|appended| Some(appended.sequence + 1))
        }
        4 => writer.append_from(&one.payload(size())[..]).map(|appended| Some(appended.sequence + 1)),
        5 => {
            writer.sync()?;
            say(format_args!("durable {}", writer.durable()));
            Ok(None)
        }
        _ => writer.append(&one.payload(size())).map(|appended| Some(appended.sequence + 1)),
    }
}

/// Opens the log and closes it; with `repair=1` repairs it. Says `open COUNT`, or `repaired COUNT`, `closed`, or an error.
fn recover(args: &Args) {
    interpose::arm();
    if args.number("repair", 0) == 1 {
        match args.writer().repair(args.text("log"), false) {
            Ok(repair) => say(format_args!("repaired {}", repair.records)),
            Err(error) => failed("repair", &error),
        }
        return end();
    }
    match args.writer().open(args.text("log")) {
        Err(error) => failed("open", &error),
        Ok(writer) => {
            say(format_args!("open {}", writer.durable()));
            match writer.close() {
                Ok(()) => say(format_args!("closed")),
                Err(error) => failed("close", &error),
            }
        }
    }
    end();
}

/// Tries until it goes well, five times; the errors are said.
fn retried<T>(what: &str, mut work: impl FnMut() -> Result<T>) -> Option<T> {
    (0..5).find_map(|_| work().inspect_err(|error| failed(what, error)).ok())
}

/// Reads the log in every way that there is, and says `read WHAT COUNT CHECKSUM` of each.
fn read(args: &Args) {
    interpose::arm();
    let Some(reader) = retried("open", || args.reader().open(args.text("log"))) else { return end() };
    for (name, start) in [
        ("all", Start::Beginning),
        ("last", Start::Last(5)),
        ("from", Start::Sequence(args.number("records", 0) - 5)),
        ("since", Start::Time(SystemTime::now() - Duration::from_secs(3600))),
    ] {
        let Some(mut tailer) = retried(name, || reader.tail(start)) else { continue };
        let (mut seen, mut sum) = (0, Checksum::default());
        // An error must not cost a record: the next try gives it.
        while let Some(Some(payload)) =
            retried(name, || tailer.try_next().map(|record| record.map(|record| record.payload().to_vec())))
        {
            sum.add(&payload);
            seen += 1;
        }
        say(format_args!("read {name} {seen} {}", sum.0));
        // Sleeps, and finds out about the writer.
        match tailer.next_timeout(Duration::from_millis(2)) {
            Err(Error::TimedOut { .. }) => {}
            Err(error) => failed("wait", &error),
            Ok(record) => panic!("nothing comes, but {record:?}"),
        }
        retried("writer", || tailer.writer());
    }
    if let Some(Some(payload)) = retried("get", || reader.get(3)) {
        say(format_args!("read get 1 {}", Checksum::of(&[payload]).0));
    }
    if let Some(stat) = retried("stat", || reader.stat()) {
        say(format_args!("read stat {} {}", stat.records, stat.end));
    }
    if let Some(verified) = retried("verify", || reader.verify(|_| true)) {
        assert_eq!(verified.problem, None, "an error is no damage");
        say(format_args!("read verify {} {}", verified.records, verified.end));
    }
    end();
}
