//! Readers.

use std::time::Duration;

use immuta::{Error, Reader, ReaderOptions, Tailer};

use crate::content::Checksum;
use crate::{Args, listen, say};

/// Follows until `until` records came, and says `done COUNT CHECKSUM SLEEPS POLLS LOST`; `at N` every `report` records.
pub fn follow(args: &Args) {
    args.become_user();
    let (until, report) = (args.number("until", u64::MAX), args.number("report", u64::MAX));
    let reader = args.reader().open(args.text("log")).expect("the log opens");
    let mut tailer = reader.tail(args.start()).expect("a tailer");
    say(format_args!("ready {}", tailer.sequence()));
    let (mut sum, mut seen) = (Checksum::default(), 0);
    while seen < until {
        let (expected, position) = (tailer.sequence(), tailer.position());
        let record = tailer.next().expect("following goes well").expect("nobody stops it");
        assert_eq!((record.sequence(), record.position()), (expected, position), "a step from record to record");
        sum.add(record.payload());
        seen += 1;
        if seen % report == 0 {
            say(format_args!("at {seen}"));
        }
    }
    let counts = tailer.wait_counts();
    say(format_args!("done {seen} {} {} {} {}", sum.0, counts.sleeps, counts.polls, counts.lost));
}

/// Waits in vain for two seconds, says `idle MICROSECONDS` of processor time that this took, then `seen` a record.
pub fn idle(args: &Args) {
    args.become_user();
    let reader = args.reader().open(args.text("log")).expect("the log opens");
    let mut tailer = reader.tail(args.start()).expect("a tailer");
    let used = || {
        let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).expect("usage");
        let (user, system) = (usage.user_time(), usage.system_time());
        (user.tv_sec() + system.tv_sec()) * 1_000_000 + (user.tv_usec() + system.tv_usec())
    };
    let before = used();
    let nothing = tailer.next_timeout(Duration::from_secs(2));
    assert!(matches!(nothing, Err(Error::TimedOut { .. })), "nothing comes, but: {nothing:?}");
    say(format_args!("idle {}", used() - before));
    let record = tailer.next().expect("following goes well").expect("nobody stops it");
    say(format_args!("seen {}", record.sequence()));
}

/// Answers each of `rounds` records of the log with the same record in the log `answers`; says `done SLEEPS LOST` at the end.
pub fn echo(args: &Args) {
    let reader = args.reader().open(args.text("log")).expect("the log opens");
    let mut tailer = reader.tail(0).expect("a tailer");
    let mut answers = args.writer().open(args.text("answers")).expect("a log for the answers");
    say(format_args!("ready"));
    for _ in 0..args.number("rounds", 0u64) {
        let record = tailer.next().expect("following goes well").expect("nobody stops it");
        answers.append(record.payload()).expect("an answer");
    }
    let counts = tailer.wait_counts();
    let causes = counts.woken + counts.moved_on + counts.bound + counts.interrupted;
    say(format_args!("done {} {} {causes} {}", counts.sleeps, counts.lost, counts.woken));
    listen();
}

/// `threads` readers that ask for the writer's state until told to end; says `ready STATE` and `asked TIMES`.
pub fn ask(args: &Args) {
    args.become_user();
    let (path, options) = (args.text("log").to_owned(), args.reader());
    let end = std::sync::atomic::AtomicBool::new(false);
    let asks = &|reader: Reader| {
        let mut asked = 0;
        while !end.load(std::sync::atomic::Ordering::Relaxed) {
            reader.writer().expect("an answer");
            reader.stat().expect("an answer");
            asked += 1;
            // A hundred threads that never pause would leave the writer no time.
            std::thread::sleep(Duration::from_millis(1));
        }
        asked
    };
    let asked: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..args.number("threads", 1))
            .map(|_| options.open(&path).expect("the log opens"))
            .map(|reader| scope.spawn(move || asks(reader)))
            .collect();
        let state = options.open(&path).expect("the log opens").writer().expect("an answer");
        say(format_args!("ready {state:?}"));
        listen();
        end.store(true, std::sync::atomic::Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("a thread ends well")).sum()
    });
    say(format_args!("asked {asked}"));
}

/// Descriptors of the log that this process has open.
pub fn held(log: &str) -> usize {
    let fds = std::fs::read_dir("/proc/self/fd").expect("the list of descriptors");
    fds.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok()).filter(|target| target.as_os_str() == log).count()
}

/// `tailers` tailers over a pool of `descriptors` read the log in `threads` threads; then all wait, for one more record.
/// Says `read RECORDS MOST_HELD`, `waiting HELD`, `done RECORDS`.
pub fn descriptors(args: &Args) {
    let (path, threads) = (args.text("log"), args.number("threads", 1usize));
    let options: ReaderOptions = args.reader();
    let reader = options.open(path).expect("the log opens");
    let tailers: Vec<Tailer> = (0..args.number("tailers", 1)).map(|_| reader.tail(0).expect("a tailer")).collect();
    let mut shares: Vec<Vec<Tailer>> = (0..threads).map(|_| Vec::new()).collect();
    for (n, tailer) in tailers.into_iter().enumerate() {
        shares[n % threads].push(tailer);
    }
    let read_all = |share: &mut Vec<Tailer>| {
        let mut read = 0u64;
        for tailer in share {
            while tailer.try_next().expect("reading goes well").is_some() {
                read += 1;
            }
        }
        read
    };
    let (most, read) = std::thread::scope(|scope| {
        let workers: Vec<_> = shares.iter_mut().map(|share| scope.spawn(move || read_all(share))).collect();
        let mut most = held(path);
        while workers.iter().any(|worker| !worker.is_finished()) {
            most = most.max(held(path));
        }
        (most, workers.into_iter().map(|worker| worker.join().expect("a thread ends well")).sum::<u64>())
    });
    say(format_args!("read {read} {most}"));
    let last: u64 = std::thread::scope(|scope| {
        let waits = |share: &mut Vec<Tailer>| {
            let mut read = 0;
            for tailer in share {
                tailer.next().expect("following goes well").expect("nobody stops it");
                read += 1;
            }
            read
        };
        let workers: Vec<_> = shares.iter_mut().map(|share| scope.spawn(move || waits(share))).collect();
        // While they wait, somebody else can read.
        let look = |most: usize| {
            reader.get(0).expect("reading goes well").expect("the first record");
            std::thread::sleep(Duration::from_millis(1));
            most.max(held(path))
        };
        let most = (0..100).fold(0, |most, _| look(most));
        say(format_args!("waiting {most}"));
        workers.into_iter().map(|worker| worker.join().expect("a thread ends well")).sum()
    });
    say(format_args!("done {last}"));
}
