//! A crowd that sleeps: what an append costs the writer while up to 1,000 threads in 10 other processes are asleep on the log, and
//! how long it takes until they have the record.
//!
//! ```sh
//! cargo bench --bench crowd
//! ```
//!
//! In the rows `append` all of them follow one log with `WaitStrategy::Park`. In the rows `futex` the same threads sleep on a bare
//! word, and one `FUTEX_WAKE` wakes all: the least that the machine asks. The two take turns. The next append, or wake-up, comes only
//! when all have said that they had the last one, and the kernel shows each of them asleep. All times are from just before the call:
//! until it returned, until the first thread had the record, and until the last had it.
//!
//! The other processes are this executable again, told by an environment variable what to be. No core is kept for anybody.

mod support;

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use immuta::{ReaderOptions, Start, Tailer, WaitStrategy, Writer};
use support::process::{self, Process, wait_for_go};
use support::{Mapped, discard, is_test, new_file, now_ns, payload, scaled};

/// Who sleeps: threads in all, in up to so many processes.
const CROWDS: [u64; 4] = [1, 10, 100, 1000];
const PROCESSES_MOST: u64 = 10;
/// How often log and bare word take turns, and how often the crowd is woken in each turn. One more is not counted: after that the
/// crowd falls asleep on the other.
const TURNS: u64 = 4;
const WAKES_PER_TURN: u64 = 25;
/// Whoever waits longer than this for anything gives up.
const LIMIT: Duration = Duration::from_secs(60);
/// How often whoever waits looks whether the others are still there.
const GLANCE: Duration = Duration::from_secs(1);

fn main() {
    if let Some(role) = process::role() {
        let args: Vec<&str> = role.split('\n').collect();
        let numbers: Vec<u64> = args[2..].iter().map(|arg| arg.parse().expect("a number")).collect();
        return sleep(Path::new(args[0]), Path::new(args[1]), numbers[0], numbers[1], numbers[2]);
    }
    let dir = support::scratch();
    println!("\na crowd that sleeps: from just before an append, or a bare FUTEX_WAKE of all, in µs");
    println!("{:<16}{:^29}{:^29}{:^29}", "", "the call returned", "the first had it", "the last had it");
    print!("{:>8}{:8}", "asleep", "");
    (0..3).for_each(|_| print!("{:>9}{:>9}{:>9}  ", "p50", "p90", "max"));
    println!();
    for crowd in CROWDS.into_iter().filter(|crowd| *crowd <= scaled(1000, 10)) {
        let [append, futex] = wake_up(dir.path(), crowd);
        row(crowd, "append", append);
        row(crowd, "futex", futex);
    }
    if is_test() {
        println!("(a test round: no figure counts)");
    }
}

/// Times of one way to wake the crowd, in nanoseconds, one of each for each call.
#[derive(Default)]
struct Times {
    returned: Vec<u64>,
    first: Vec<u64>,
    last: Vec<u64>,
}

fn row(crowd: u64, name: &str, times: Times) {
    print!("{crowd:>8} {name:7}");
    for mut times in [times.returned, times.first, times.last] {
        times.sort_unstable();
        let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize] as f64 / 1000.0;
        print!("{:>9.1}{:>9.1}{:>9.1}  ", at(0.5), at(0.9), at(1.0));
    }
    println!();
}

/// Wakes a crowd by appends and by a bare futex, by turns.
fn wake_up(dir: &Path, crowd: u64) -> [Times; 2] {
    let (log, shared) = (dir.join("crowd.log"), dir.join("crowd.shared"));
    let mut writer = Writer::open(&log).expect("a new log");
    new_file(&shared, Shared::bytes(crowd));
    let shared_path = shared.to_str().expect("a name in UTF-8");
    let log_path = log.to_str().expect("a name in UTF-8");
    let shared = Shared::open(&shared, crowd);
    let processes = crowd.min(PROCESSES_MOST);
    let threads = crowd / processes;
    let start = |n: u64| {
        let numbers = [crowd, n * threads, threads].map(|number| number.to_string());
        Process::start(&[log_path, shared_path, &numbers[0], &numbers[1], &numbers[2]])
    };
    let mut crowd = Crowd { processes: (0..processes).map(start).collect(), threads, shared, round: 0 };
    crowd.wait_until_all_have_it();
    let bytes = payload(64);
    let mut times = <[Times; 2]>::default();
    for turn in 0..turns() {
        for n in 0..=wakes_per_turn() {
            crowd.wake(n < wakes_per_turn(), &mut times[0], |_| {
                writer.append(&bytes).expect("append");
            });
        }
        for n in 0..=wakes_per_turn() {
            let value = turn * (wakes_per_turn() + 1) + n + 1;
            crowd.wake(n < wakes_per_turn(), &mut times[1], |shared| {
                shared.map.word(WORD).store(value, Ordering::Release);
                wake_all(shared.map.word(WORD));
            });
        }
    }
    drop(crowd);
    discard(writer, &log);
    std::fs::remove_file(shared_path).expect("the shared file");
    times
}

fn turns() -> u64 {
    scaled(TURNS, 1)
}

fn wakes_per_turn() -> u64 {
    scaled(WAKES_PER_TURN, 2)
}

/// The sleepers, seen by the process that wakes them.
struct Crowd {
    processes: Vec<Process>,
    /// In each process.
    threads: u64,
    shared: Shared,
    /// How often all of them have said something.
    round: u64,
}

impl Crowd {
    /// Wakes all of them by `call`, once all are asleep, and takes the times.
    fn wake(&mut self, is_counted: bool, times: &mut Times, call: impl FnOnce(&Shared)) {
        self.wait_until_all_sleep();
        let begin = now_ns();
        call(&self.shared);
        let returned = now_ns();
        self.wait_until_all_have_it();
        if is_counted {
            let had = || (0..self.shared.crowd).map(|n| self.shared.slot(n, TIME).load(Ordering::Relaxed) - begin);
            times.returned.push(returned - begin);
            times.first.push(had().min().expect("a thread"));
            times.last.push(had().max().expect("a thread"));
        }
    }

    /// Sleeps itself, so that it takes no time from them.
    fn wait_until_all_have_it(&mut self) {
        self.round += 1;
        let begin = Instant::now();
        let word = self.shared.map.word(ROUND);
        while word.load(Ordering::Acquire) < self.round {
            sleep_on(word, self.round - 1, GLANCE);
            assert!(begin.elapsed() < LIMIT, "not all of the crowd woke up");
            assert!(self.processes.iter_mut().all(Process::is_running), "a process of the crowd ended before its time");
        }
    }

    /// Nobody sees a thread fall asleep, but the kernel tells who sleeps. All have had the last record, so that those who sleep wait for
    /// the next one.
    fn wait_until_all_sleep(&self) {
        let begin = Instant::now();
        for n in 0..self.shared.crowd {
            let process = self.processes[(n / self.threads) as usize].id();
            let stat = format!("/proc/{process}/task/{}/stat", self.shared.slot(n, THREAD).load(Ordering::Relaxed));
            while !std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") S ")) {
                assert!(begin.elapsed() < LIMIT, "not all of the crowd fell asleep");
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }
}

/// The bare word, on which they sleep.
const WORD: u64 = 0;
/// How often anybody has said that it had the record, and how often all of them had it: a futex. On lines of their own.
const ARRIVED: u64 = 256;
const ROUND: u64 = 512;
/// Behind these, a line for each thread: when it had the last record, and its number for the kernel.
const SLOTS: u64 = 4096;
const SLOT_BYTES: u64 = 64;
const TIME: u64 = 0;
const THREAD: u64 = 8;

/// What all processes map.
struct Shared {
    map: Mapped,
    crowd: u64,
}

impl Shared {
    fn bytes(crowd: u64) -> u64 {
        SLOTS + crowd * SLOT_BYTES
    }

    fn open(path: &Path, crowd: u64) -> Shared {
        let file = OpenOptions::new().read(true).write(true).open(path).expect("the shared file");
        Shared { map: Mapped::new(&file, Shared::bytes(crowd)), crowd }
    }

    fn slot(&self, thread: u64, field: u64) -> &AtomicU64 {
        self.map.word(SLOTS + thread * SLOT_BYTES + field)
    }

    /// This thread has what came in this round; the last of them tells the one that waits for all.
    fn arrive(&self, thread: u64, round: u64) {
        self.slot(thread, TIME).store(now_ns(), Ordering::Relaxed);
        // Release and acquire: the last one passes on what all have stored.
        if self.map.word(ARRIVED).fetch_add(1, Ordering::AcqRel) + 1 == round * self.crowd {
            self.map.word(ROUND).store(round, Ordering::Release);
            wake_all(self.map.word(ROUND));
        }
    }
}

/// A process of the crowd: its threads, until it is told to end.
fn sleep(log: &Path, shared: &Path, crowd: u64, first: u64, threads: u64) {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        // So that nobody waits for this thread.
        std::process::exit(101);
    }));
    let reader = ReaderOptions::new().wait_strategy(WaitStrategy::Park).open(log).expect("the log");
    for thread in first..first + threads {
        let (shared, tailer) = (shared.to_owned(), reader.tail(Start::Beginning).expect("a tailer"));
        let follow = move || follow(&Shared::open(&shared, crowd), thread, tailer);
        std::thread::Builder::new().spawn(follow).expect("a thread");
    }
    wait_for_go();
}

fn follow(shared: &Shared, thread: u64, mut tailer: Tailer) {
    shared.slot(thread, THREAD).store(nix::unistd::gettid().as_raw() as u64, Ordering::Relaxed);
    let (mut round, mut value, word) = (1, 0, shared.map.word(WORD));
    shared.arrive(thread, round);
    for _ in 0..turns() {
        for _ in 0..=wakes_per_turn() {
            let record = tailer.next_timeout(LIMIT).expect("a record").expect("nobody stops it");
            std::hint::black_box(record.payload());
            round += 1;
            shared.arrive(thread, round);
        }
        for _ in 0..=wakes_per_turn() {
            let begin = Instant::now();
            while word.load(Ordering::Acquire) == value {
                sleep_on(word, value, LIMIT);
                assert!(begin.elapsed() < LIMIT, "nobody woke it");
            }
            (round, value) = (round + 1, value + 1);
            shared.arrive(thread, round);
        }
    }
}

/// Sleeps while the word has this value, but no longer than `limit`.
fn sleep_on(word: &AtomicU64, value: u64, limit: Duration) {
    let limit = libc::timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    let low: *const u32 = word.as_ptr().cast();
    // SAFETY: the address is of a live word, which the kernel compares and does not change; it reads the time during the call alone.
    unsafe { libc::syscall(libc::SYS_futex, low, libc::FUTEX_WAIT, value as u32, &raw const limit) };
}

/// Wakes all that sleep on the word, in any process.
fn wake_all(word: &AtomicU64) {
    // SAFETY: the address is of a live word; a wake-up does not touch it.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}
