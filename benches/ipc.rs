//! From one process to others: how much passes, how late it comes, and what waiting costs.
//!
//! ```sh
//! cargo bench --bench ipc                       # all
//! cargo bench --bench ipc -- throughput
//! cargo bench --bench ipc -- latency            # and: idle, memory
//! ```
//!
//! - `throughput/1_to_N`: from the first append to the moment at which the last consumer has all records, every byte touched,
//!   every sequence checked. Criterion's; a round is a log of 1 GiB, new and growing.
//! - `latency`: one way, at 10,000 records a second, from the intended time of each append, beside a bare word that is handed from
//!   process to process by spinning, and a bare futex, measured likewise in the same run.
//! - `idle`: the processor's time of a process that has a writer, or a follower, and nothing to do.
//! - `memory`: private memory of a follower, before and after it has read a log of 1 GiB.
//!
//! The other processes are this executable again, told by an environment variable what to be.

mod support;

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode};
use immuta::{Reader, ReaderOptions, Start, WaitStrategy, Writer};
use support::process::{self, Process, private_kib, say, wait_for_go};
use support::{
    HEADER_BYTES, MIB, Mapped, SIZE_BYTES, SIZES, is_test, is_wanted, new_file, now_ns, payload, scaled, sum,
    throughput,
};

/// Between two appends of the latency table: 10,000 a second.
const INTERVAL_NS: u64 = 100_000;
/// The words of the bare hand-over, on lines of their own.
const WORD: u64 = 0;
const READY: u64 = 256;

fn main() {
    if let Some(role) = process::role() {
        let args: Vec<&str> = role.split('\n').collect();
        match args[0] {
            "consume" => consume(Path::new(args[1]), args[2].parse().expect("a number")),
            "delay" => delay(Path::new(args[1]), args[2], args[3].parse().expect("a number")),
            "take" => take(Path::new(args[1]), args[2] == "futex", args[3].parse().expect("a number")),
            "idle" => idle(Path::new(args[1]), args[2]),
            role => panic!("no role: {role}"),
        }
        return;
    }
    let dir = support::scratch();
    let path = dir.path().join("ipc.log");
    let mut criterion = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(5));
    criterion = criterion.warm_up_time(Duration::from_secs(1)).configure_from_args();
    throughputs(&mut criterion, &path);
    if is_wanted("latency") {
        latencies(dir.path());
    }
    if is_wanted("idle") {
        idles(&path);
    }
    if is_wanted("memory") {
        memories(&path);
    }
    criterion.final_summary();
}

fn throughputs(criterion: &mut Criterion, path: &Path) {
    let mut group = criterion.benchmark_group("throughput");
    group.sampling_mode(SamplingMode::Flat);
    for size in SIZES {
        let bytes = payload(size);
        let records = scaled(1024 * MIB, MIB) / (SIZE_BYTES + size as u64);
        group.throughput(throughput(records, size));
        for consumers in [1, 4] {
            group.bench_function(BenchmarkId::new(format!("1_to_{consumers}"), size), |b| {
                b.iter_custom(|rounds| (0..rounds).map(|_| pass(path, records, &bytes, consumers)).sum());
            });
        }
    }
    group.finish();
}

fn pass(path: &Path, records: u64, bytes: &[u8], consumers: usize) -> Duration {
    let mut writer = Writer::open(path).expect("a new log");
    let count = records.to_string();
    let name = path.to_str().expect("a name in UTF-8");
    let mut processes: Vec<Process> = (0..consumers).map(|_| Process::start(&["consume", name, &count])).collect();
    processes.iter_mut().for_each(|process| assert_eq!(process.line(), "ready"));
    let begin = Instant::now();
    for _ in 0..records {
        writer.append(bytes).expect("append");
    }
    let expected = sum(bytes).wrapping_mul(records).to_string();
    processes.iter_mut().for_each(|process| assert_eq!(process.line(), expected));
    let time = begin.elapsed();
    support::discard(writer, path);
    time
}

/// Reads that many records from the first, and says what their bytes add up to.
fn consume(path: &Path, records: u64) {
    let mut tailer = Reader::open(path).and_then(|reader| reader.tail(Start::Beginning)).expect("a tailer");
    say("ready");
    let mut total = 0u64;
    for sequence in 0..records {
        let record = tailer.next().expect("a record").expect("nobody stops it");
        assert_eq!(record.sequence(), sequence);
        total = total.wrapping_add(sum(record.payload()));
    }
    say(&total.to_string());
    wait_for_go();
}

fn latencies(dir: &Path) {
    println!("\nlatency, one way, 10,000 records/s of 64 bytes, from the intended time of the append, in ns");
    println!("{:<34}{:>10}{:>10}{:>10}{:>10}", "", "p50", "p99", "p99.9", "max");
    let count = scaled(30_000, 50);
    let rounds = scaled(3, 1);
    for _ in 0..rounds {
        for how in ["spin", "futex"] {
            let floor = hand_over(&dir.join("floor"), how, count);
            let strategy = if how == "spin" { "spin" } else { "park" };
            let ours = follow(&dir.join("latency.log"), strategy, count);
            row(&format!("bare {how}"), &floor);
            row(&format!("WaitStrategy::{}", if how == "spin" { "Spin" } else { "Park" }), &ours);
            println!("{:<34}{:>10.2}", "  ratio", ours[0] as f64 / floor[0] as f64);
        }
        row("WaitStrategy::SpinThenPark", &follow(&dir.join("latency.log"), "default", count));
    }
}

fn row(name: &str, quantiles: &[u64; 4]) {
    let [p50, p99, p999, max] = quantiles;
    println!("{name:<34}{p50:>10}{p99:>10}{p999:>10}{max:>10}");
}

fn quantiles(mut latencies: Vec<u64>) -> String {
    latencies.sort_unstable();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
    format!("{} {} {} {}", at(0.5), at(0.99), at(0.999), at(1.0))
}

fn parse(line: &str) -> [u64; 4] {
    let numbers: Vec<u64> = line.split(' ').map(|number| number.parse().expect("a number")).collect();
    numbers.try_into().expect("four numbers")
}

/// Calls `send` with the intended time, at intervals, spinning in between.
fn at_intervals(count: u64, mut send: impl FnMut(u64)) {
    let begin = now_ns() + INTERVAL_NS;
    for n in 0..count {
        let due = begin + n * INTERVAL_NS;
        while now_ns() < due {
            std::hint::spin_loop();
        }
        send(due);
    }
}

fn follow(path: &Path, strategy: &str, count: u64) -> [u64; 4] {
    let mut writer = Writer::open(path).expect("a new log");
    let mut process = Process::start(&["delay", path.to_str().expect("a name in UTF-8"), strategy, &count.to_string()]);
    assert_eq!(process.line(), "ready");
    let mut record = payload(64);
    at_intervals(count, |due| {
        record[..8].copy_from_slice(&due.to_le_bytes());
        writer.append(&record).expect("append");
    });
    let latencies = parse(&process.line());
    support::discard(writer, path);
    latencies
}

/// Follows, and says how late records were.
fn delay(path: &Path, strategy: &str, count: u64) {
    let mut options = ReaderOptions::new();
    options.wait_strategy(match strategy {
        "spin" => WaitStrategy::Spin,
        "park" => WaitStrategy::Park,
        _ => WaitStrategy::SpinThenPark,
    });
    let mut tailer = options.open(path).and_then(|reader| reader.tail(Start::Beginning)).expect("a tailer");
    say("ready");
    let mut latencies = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let record = tailer.next().expect("a record").expect("nobody stops it");
        let due = u64::from_le_bytes(*record.payload().first_chunk().expect("a time"));
        latencies.push(now_ns().saturating_sub(due));
    }
    say(&quantiles(latencies));
    wait_for_go();
}

/// The machine's floor: a time in a word that two processes map, waited for by spinning or on a futex.
fn hand_over(path: &Path, how: &str, count: u64) -> [u64; 4] {
    let file = new_file(path, 4096);
    let map = Mapped::new(&file, 4096);
    let mut process = Process::start(&["take", path.to_str().expect("a name in UTF-8"), how, &count.to_string()]);
    assert_eq!(process.line(), "ready");
    let word = map.word(WORD);
    at_intervals(count, |due| {
        word.store(due, Ordering::Release);
        if how == "futex" {
            // SAFETY: the address is of a live word; a wake-up does not touch it.
            unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) };
        }
        // The next one would take its place before it was seen.
        while map.word(READY).load(Ordering::Acquire) != due {
            std::hint::spin_loop();
        }
    });
    let latencies = parse(&process.line());
    std::fs::remove_file(path).expect("the floor's file");
    latencies
}

fn take(path: &Path, futex: bool, count: u64) {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("the floor's file");
    let map = Mapped::new(&file, 4096);
    let word = map.word(WORD);
    say("ready");
    let (mut latencies, mut last) = (Vec::with_capacity(count as usize), 0);
    for _ in 0..count {
        let due = loop {
            let due = word.load(Ordering::Acquire);
            if due != last {
                break due;
            }
            if futex {
                let low: *const AtomicU32 = word.as_ptr().cast();
                let forever = std::ptr::null::<libc::timespec>();
                // SAFETY: the address is of a live word, which the kernel compares and does not change.
                unsafe { libc::syscall(libc::SYS_futex, low, libc::FUTEX_WAIT, due as u32, forever) };
            } else {
                std::hint::spin_loop();
            }
        };
        latencies.push(now_ns().saturating_sub(due));
        map.word(READY).store(due, Ordering::Release);
        last = due;
    }
    say(&quantiles(latencies));
    wait_for_go();
}

/// The processor's time that this process has used, in nanoseconds.
fn cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Linux, and the result is written to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn idles(path: &Path) {
    println!("\nidle, over {} ms", idle_time().as_millis());
    for role in ["writer", "follower"] {
        let writer = (role == "follower").then(|| Writer::open(path).expect("a new log"));
        let mut process = Process::start(&["idle", path.to_str().expect("a name in UTF-8"), role]);
        let cpu: f64 = process.line().parse().expect("a number");
        println!("{role:<34}{:>10.4} % of a core", 100.0 * cpu / idle_time().as_nanos() as f64);
        process.go();
        process.ends();
        drop(writer);
        let _ = std::fs::remove_file(path);
    }
}

fn idle_time() -> Duration {
    Duration::from_millis(scaled(5_000, 50))
}

/// Does nothing for a while, with a log open, and says what that cost.
fn idle(path: &Path, role: &str) {
    let (mut writer, mut tailer) = (None, None);
    match role {
        "writer" => writer = Some(Writer::open(path).expect("a new log")),
        "follower" | "memory" => {
            tailer = Some(Reader::open(path).and_then(|reader| reader.tail(Start::Beginning)).expect("a tailer"));
        }
        role => panic!("no such idler: {role}"),
    }
    if role == "memory" {
        let tailer = tailer.as_mut().expect("a follower");
        let before = private_kib();
        let mut total = 0u64;
        while let Some(record) = tailer.try_next().expect("a record") {
            total = total.wrapping_add(sum(record.payload()));
        }
        std::hint::black_box(total);
        let after = private_kib();
        // What it waits with is what counts.
        let nothing = tailer.next_timeout(Duration::from_millis(1)).is_err();
        assert!(nothing, "there is no more");
        return say(&format!("{before} {after} {}", private_kib()));
    }
    if let Some(tailer) = &mut tailer {
        // The first wait is not yet an idle one.
        let _ = tailer.next_timeout(Duration::from_millis(1));
    }
    let before = cpu_ns();
    match &mut tailer {
        Some(tailer) => drop(tailer.next_timeout(idle_time()).map(|_| ())),
        None => std::thread::sleep(idle_time()),
    }
    say(&(cpu_ns() - before).to_string());
    wait_for_go();
    drop(writer);
}

fn memories(path: &Path) {
    let mut writer = Writer::open(path).expect("a new log");
    let bytes = payload(1024);
    let end = scaled(1024 * MIB, MIB);
    while HEADER_BYTES + writer.stat().expect("the log").end < end {
        for _ in 0..1000 {
            writer.append(&bytes).expect("append");
        }
    }
    let mut process = Process::start(&["idle", path.to_str().expect("a name in UTF-8"), "memory"]);
    let line = process.line();
    let [opened, read, waits] = line.split(' ').collect::<Vec<_>>().try_into().expect("three numbers");
    println!("\nprivate memory of a follower, in KiB (what it maps of the log is the page cache's, and not counted)");
    println!("opened {opened}, having read {} MiB {read}, waiting {waits}", end / MIB);
    support::discard(writer, path);
    if is_test() {
        println!("(a test round: no figure counts)");
    }
}
