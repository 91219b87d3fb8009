//! The injury: a reader in another language, written from FORMAT.md, sees a record twice or not at all, or other bytes than were
//! appended, where the log grows under it, its writer is killed or closes, or it comes early or late. Each language's program
//! `readers/LANG/follow` prints sequence, size and CRC-32 of a million records; each line is compared with what was appended.
//!
//! A language whose tools are missing is SKIPPED; with IMMUTA_REQUIRE_LANGUAGES=1 that is a failure.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use immuta::WriterState;
use support::content::payload;
use support::process::Helper;
use support::{Log, until};

const RECORDS: u64 = 1_000_000;
const SEED: u64 = 20_261_125;
/// The largest payload, in bytes.
const MOST: u64 = 512;
/// All of it, on a machine that others use.
const RUN_LIMIT: Duration = Duration::from_secs(300);
/// What is built when a follower is called for the first time.
const BUILD_LIMIT: Duration = Duration::from_secs(300);

/// The languages, and the programs that each needs.
const LANGUAGES: [(&str, &[&str]); 5] = [
    ("c", &["cc", "make"]),
    ("go", &["go"]),
    ("python", &["python3"]),
    ("node", &["node"]),
    ("java", &["java", "javac"]),
];

/// What a follower has to print of each record: its size, its CRC-32.
type Expected = Arc<Vec<(u32, u32)>>;

/// A program that follows; what it prints is compared line by line. Killed when dropped.
struct Follower {
    what: String,
    child: Child,
    lines: Arc<AtomicU64>,
    compared: Option<JoinHandle<Result<(), String>>>,
    said: Option<JoinHandle<String>>,
}

impl Follower {
    /// Starts `program` with the records from `skip` to the last.
    fn start(language: &str, program: &Path, log: &Log, skip: u64, expected: &Expected) -> Follower {
        let what = format!("{language}, from record {skip} on");
        let mut command = Command::new(program);
        command.arg(&log.path).arg("--skip").arg(skip.to_string()).arg("--count").arg((RECORDS - skip).to_string());
        command.arg("--timeout").arg("60").env("IMMUTA_CONTROL_DIR", &log.control);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            command.spawn().unwrap_or_else(|why| panic!("{what}: {} does not start: {why}", program.display()));
        let (output, mut error) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let (lines, expected) = (Arc::new(AtomicU64::new(0)), expected.clone());
        let counted = lines.clone();
        let compared = std::thread::spawn(move || compare(output, skip, &expected, &counted));
        let said = std::thread::spawn(move || {
            let mut said = String::new();
            let _ = error.read_to_string(&mut said);
            said
        });
        Follower { what, child, lines, compared: Some(compared), said: Some(said) }
    }

    /// How many records it has printed.
    fn lines(&self) -> u64 {
        self.lines.load(Ordering::Acquire)
    }

    /// It must end by itself, with all that it was asked for.
    fn succeeds(mut self, begin: Instant) {
        let status = loop {
            match self.child.try_wait().expect("a child can be waited for") {
                Some(status) => break status,
                None if begin.elapsed() > RUN_LIMIT => panic!("{}: hangs after {} records", self.what, self.lines()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let compared = self.compared.take().expect("once").join().expect("a thread ends well");
        let said = self.said.take().expect("once").join().expect("a thread ends well");
        assert_eq!(compared, Ok(()), "{}: {status}, {said}", self.what);
        assert!(status.success(), "{}: {status} after {} records: {said}", self.what, self.lines());
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads what a follower prints to its end, even where it is wrong: it shall not hang in its output.
fn compare(output: impl Read, skip: u64, expected: &[(u32, u32)], lines: &AtomicU64) -> Result<(), String> {
    let mut wrong = None;
    let mut sequence = skip;
    for line in BufReader::with_capacity(1 << 16, output).lines() {
        let line = line.map_err(|error| error.to_string())?;
        let demanded = expected.get(sequence as usize).map(|(size, crc)| format!("{sequence} {size} {crc:08x}"));
        if wrong.is_none() && demanded.as_ref() != Some(&line) {
            wrong = Some(format!("it printed {line:?} instead of {demanded:?}"));
        }
        sequence += 1;
        lines.fetch_add(1, Ordering::Release);
    }
    match wrong {
        Some(wrong) => Err(wrong),
        None if sequence != expected.len() as u64 => Err(format!("its last record is the one before {sequence}")),
        None => Ok(()),
    }
}

/// The follower of a language, built; `None` where it cannot be had here.
fn follower(language: &str, tools: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = |tool: &&&str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("readers").join(language).join("follow");
    let missing = match tools.iter().find(|tool| !is_there(tool)) {
        Some(tool) => format!("{language}: no program {tool}"),
        None if !program.exists() => format!("{language}: no {}", program.display()),
        None => {
            build(language, &program);
            return Some(program);
        }
    };
    assert!(
        std::env::var_os("IMMUTA_REQUIRE_LANGUAGES").is_none_or(|value| value != "1"),
        "IMMUTA_REQUIRE_LANGUAGES=1, but {missing}"
    );
    let _ = writeln!(std::io::stderr(), "SKIPPED: {missing}");
    None
}

/// Without arguments a follower says how it is used; what it needs is built before.
fn build(language: &str, program: &Path) {
    let mut child = Command::new(program)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|why| panic!("{language}: {} does not start: {why}", program.display()));
    let begin = Instant::now();
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status,
            None if begin.elapsed() < BUILD_LIMIT => std::thread::sleep(Duration::from_millis(20)),
            None => {
                let _ = child.kill();
                panic!("{language}: {} is not built within {BUILD_LIMIT:?}", program.display());
            }
        }
    };
    assert_eq!(status.code(), Some(2), "{language}: {} without arguments", program.display());
}

fn crc_table() -> [u32; 256] {
    std::array::from_fn(|byte| (0..8).fold(byte as u32, |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }))
}

fn expected() -> Expected {
    let table = crc_table();
    let crc = |bytes: &[u8]| !bytes.iter().fold(!0, |crc: u32, byte| crc >> 8 ^ table[(crc as u8 ^ byte) as usize]);
    assert_eq!(crc(b"123456789"), 0xcbf4_3926, "the check value of CRC-32/ISO-HDLC");
    let of = |sequence| {
        let payload = payload(SEED, sequence, MOST);
        (payload.len() as u32, crc(&payload))
    };
    Arc::new((0..RECORDS).map(of).collect())
}

fn start_writer(log: &Log, records: u64) -> Helper {
    let writer = Helper::start("produce", log, &format!("seed={SEED} most={MOST}"));
    assert_eq!(writer.numbers("ready"), [records], "the next writer begins where the last one ended");
    writer
}

/// Has the log hold `total` records.
fn append_to(writer: &mut Helper, from: u64, total: u64) {
    writer.say(&format!("more {}", total - from));
    assert_eq!(writer.line().split_whitespace().nth(1), Some(&*total.to_string()));
}

/// Returns when each of them has printed all that is published, which they may only by being told of it: nothing else comes.
fn all_have(followers: &[Follower], records: u64) {
    for follower in followers {
        let what = format!("{} prints the first {records} records", follower.what);
        until(&what, || {
            assert!(follower.lines() <= records, "{}: more than there is", follower.what);
            follower.lines() == records
        });
    }
}

#[test]
fn every_language_reads_a_million_records_as_they_are_written() {
    let languages: Vec<_> =
        LANGUAGES.iter().filter_map(|(language, tools)| Some((*language, follower(language, tools)?))).collect();
    if languages.is_empty() {
        return;
    }
    let begin = Instant::now();
    let expected = expected();
    let log = Log::new();
    let start = |skip: u64| -> Vec<Follower> {
        languages.iter().map(|(language, program)| Follower::start(language, program, &log, skip, &expected)).collect()
    };

    // Before there is a log.
    let early = start(0);
    let mut writer = start_writer(&log, 0);
    append_to(&mut writer, 0, 1);
    all_have(&early, 1);
    append_to(&mut writer, 1, 150_000);
    all_have(&early, 150_000);

    // In the midst, of the log and of its writer's death.
    let reader = log.reader();
    writer.say("more 600000");
    until("a part of them is there", || reader.stat().unwrap().records > 200_000);
    let midst = start(150_001);
    until("half of them are there", || reader.stat().unwrap().records > 400_000);
    writer.kill();
    let left = reader.stat().unwrap().records;
    assert!(left < 750_000, "it was killed in the midst");
    all_have(&early, left);
    let mut writer = start_writer(&log, left);
    append_to(&mut writer, left, 750_000);
    all_have(&early, 750_000);
    // And across a clean close.
    writer.succeeds();
    assert_eq!(reader.writer().unwrap(), WriterState::Closed);
    let mut writer = start_writer(&log, 750_000);
    append_to(&mut writer, 750_000, RECORDS);

    // After all of it, from the beginning, and near the end by the index, while the writer lives and once it is gone.
    let late = start(0);
    let by_index = start(RECORDS - 10_000);
    for follower in early.into_iter().chain(midst).chain(late).chain(by_index) {
        follower.succeeds(begin);
    }
    writer.succeeds();
    for follower in start(RECORDS - 1) {
        follower.succeeds(begin);
    }
}
