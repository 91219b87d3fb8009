//! What a reader holds that is far behind: private memory of a process that has 100 GB of a log still in front of it and reads, beside
//! one that has caught up in the same log and waits.
//!
//! ```sh
//! cargo bench --bench far_behind
//! ```
//!
//! A row is a log that begins with 4 GiB of records of one size, which are all read, every byte; behind them come 100 GB in records of
//! 1 GiB that are holes in the file, and a writer that lives. One process reads from the beginning, and looks at its memory 20 times
//! on the way. Another one begins at the end, gets some records from the writer, and waits for more. At last the first passes over
//! the holes and waits as well.
//!
//! *Private* is what `/proc/self/smaps_rollup` calls so: memory that no other process has, and pages of the log in the page cache that
//! no other process has mapped just now. *Anonymous* is the part that is in no file (`RssAnon`): what only the reader's end gives back.
//!
//! The other processes are this executable again, told by an environment variable what to be. It takes 4 GiB of disk.

mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use immuta::{Durability, Error, Reader, Start, Tailer, WriterOptions};
use support::process::{self, Process, kib_of, private_kib, say, wait_for_go};
use support::{HEADER_BYTES, MIB, SIZE_BYTES, discard, is_test, payload, scaled, sum};

/// Payloads of the records that are read.
const SIZES: [u64; 3] = [64, 1024, MIB];
/// What lies behind them, and in records of which size.
const BEHIND: u64 = 100_000_000_000;
const HOLE: u64 = 1024 * MIB;
/// How often a process looks at its memory; the most of it counts.
const LOOKS: u64 = 20;
/// Records that the one that has caught up gets while it looks on.
const LIVE: u64 = 200;
/// Who waits longer than this for a record gives up.
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    if let Some(role) = process::role() {
        let args: Vec<&str> = role.split('\n').collect();
        let numbers: Vec<u64> = args[2..].iter().map(|arg| arg.parse().expect("a number")).collect();
        match args[0] {
            "behind" => return read_from_far(Path::new(args[1]), numbers[0], numbers[1]),
            "caught_up" => return wait_at_the_end(Path::new(args[1])),
            role => panic!("no role: {role}"),
        }
    }
    let dir = support::scratch();
    let path = dir.path().join("far.log");
    let bytes = scaled(4096 * MIB, 8 * MIB);
    println!("\nmemory of a reader, in MiB: at most while it reads {} MiB with 100 GB behind them,", bytes / MIB);
    println!("and of one that has caught up and waits, in the same log");
    println!("{:>12}{:^24}{:^24}{:>9}{:^26}", "", "far behind", "caught up", "", "the first, at last");
    let [private, anonymous, ratio] = ["private", "anonymous", "ratio"];
    print!("{:>12}{private:>12}{anonymous:>12}{private:>12}{anonymous:>12}{ratio:>9}", "record, B");
    println!("{private:>14}{anonymous:>12}");
    for size in SIZES {
        row(&path, size, bytes / (SIZE_BYTES + size));
    }
    if is_test() {
        println!("(a test round: no figure counts)");
    }
}

fn row(path: &Path, size: u64, records: u64) {
    let log = make_log(path, size, records);
    // An index would be made by reading all, holes as well.
    let mut writer = WriterOptions::new().durability(Durability::Buffered).index(false).open(path).expect("the log");
    let stat = writer.stat().expect("the log");
    assert_eq!((stat.records, stat.end), log, "the writer finds the log as it was made");
    let name = path.to_str().expect("a name in UTF-8");
    let mut caught_up = Process::start(&["caught_up", name]);
    assert_eq!(caught_up.line(), "ready");
    for _ in 0..LIVE {
        writer.append(&payload(64)).expect("append");
        // So that it does not fall behind even here.
        std::thread::sleep(Duration::from_micros(100));
    }
    let caught_up_memory = Memory::parse(&caught_up.line());
    let mut behind = Process::start(&["behind", name, &size.to_string(), &records.to_string()]);
    let behind_memory = Memory::parse(&behind.line());
    let at_last = Memory::parse(&behind.line());
    let ratio = behind_memory.private_kib as f64 / caught_up_memory.private_kib as f64;
    println!("{size:>12}{behind_memory}{caught_up_memory}{ratio:>9.2}  {at_last}");
    drop((caught_up, behind));
    discard(writer, path);
}

/// A log with so many records of one size, and then as many that are holes as make up for what shall lie behind; returns how many
/// there are in all, and where the last one ends.
fn make_log(path: &Path, size: u64, records: u64) -> (u64, u64) {
    let file = OpenOptions::new().write(true).create_new(true).open(path).expect("a new file");
    let record = [&size.to_le_bytes()[..], &payload(size as usize)].concat();
    let at_once = (2 * MIB / record.len() as u64).max(1);
    let many = record.repeat(at_once as usize);
    let (mut at, mut left) = (HEADER_BYTES, records);
    while left > 0 {
        let len = at_once.min(left) * record.len() as u64;
        file.write_all_at(&many[..len as usize], at).expect("4 GiB of room");
        (at, left) = (at + len, left - at_once.min(left));
    }
    let holes = BEHIND.div_ceil(SIZE_BYTES + HOLE);
    let end = at + holes * (SIZE_BYTES + HOLE);
    file.set_len(end).expect("a file with holes");
    for n in 0..holes {
        file.write_all_at(&HOLE.to_le_bytes(), at + n * (SIZE_BYTES + HOLE)).expect("a size");
    }
    // The count comes last.
    file.write_all_at(&(records + holes).to_le_bytes(), 0).expect("the count");
    (records + holes, end)
}

/// What a process holds, in KiB.
#[derive(Clone, Copy, Default)]
struct Memory {
    private_kib: u64,
    anonymous_kib: u64,
}

impl Memory {
    fn now() -> Memory {
        let status = std::fs::read_to_string("/proc/self/status").expect("the kernel tells");
        Memory { private_kib: private_kib(), anonymous_kib: kib_of(&status, "RssAnon") }
    }

    /// The most of each.
    fn or_more(self, other: Memory) -> Memory {
        Memory {
            private_kib: self.private_kib.max(other.private_kib),
            anonymous_kib: self.anonymous_kib.max(other.anonymous_kib),
        }
    }

    fn say(self) {
        say(&format!("{} {}", self.private_kib, self.anonymous_kib));
    }

    fn parse(line: &str) -> Memory {
        let (private, anonymous) = line.split_once(' ').expect("two numbers");
        let number = |text: &str| text.parse().expect("a number");
        Memory { private_kib: number(private), anonymous_kib: number(anonymous) }
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>12.2}{:>12.2}", self.private_kib as f64 / 1024.0, self.anonymous_kib as f64 / 1024.0)
    }
}

/// Reads the records of this size from the first, and says what it held on the way; then passes over the others.
fn read_from_far(path: &Path, size: u64, records: u64) {
    let reader = Reader::open(path).expect("the log");
    let mut tailer = reader.tail(Start::Beginning).expect("a tailer");
    // Odd, so that the looks meet all states of whatever is done every few records.
    let step = (records / LOOKS).max(1) | 1;
    let expected = sum(&payload(size as usize));
    let mut most = Memory::default();
    for n in 0..records {
        let record = tailer.try_next().expect("a sound log").expect("a record that is there");
        assert_eq!((record.sequence(), sum(record.payload())), (n, expected));
        if n % step == step - 1 {
            most = most.or_more(Memory::now());
        }
    }
    most.say();
    // The holes, without a touch, and what the writer has appended.
    while let Some(record) = tailer.try_next().expect("a sound log") {
        std::hint::black_box(record.payload());
    }
    wait_and_look(&mut tailer);
}

/// Begins at the end, takes what comes, and says what it holds while it waits for more.
fn wait_at_the_end(path: &Path) {
    let reader = Reader::open(path).expect("the log");
    let mut tailer = reader.tail(Start::End).expect("a tailer");
    say("ready");
    for _ in 0..LIVE {
        let record = tailer.next_timeout(LIMIT).expect("a record").expect("nobody stops it");
        std::hint::black_box(sum(record.payload()));
    }
    wait_and_look(&mut tailer);
}

fn wait_and_look(tailer: &mut Tailer) {
    let mut most = Memory::default();
    for _ in 0..LOOKS {
        let nothing = tailer.next_timeout(Duration::from_millis(10));
        assert!(matches!(nothing, Err(Error::TimedOut { .. })), "there is no more");
        most = most.or_more(Memory::now());
    }
    most.say();
    wait_for_go();
}
