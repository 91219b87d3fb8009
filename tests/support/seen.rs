//! The external witness: it outlives the writers, and keeps what its followers saw.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use immuta::{Error, ReadMode, ReaderOptions, Tailer, WaitStrategy};

use crate::content::Checksum;
use crate::{Args, listen, say};

/// By the control page, by the file alone, and only what is durable.
const FOLLOWERS: usize = 3;

fn options(args: &Args, follower: usize) -> ReaderOptions {
    let mut options = args.reader();
    match follower {
        0 => options.wait_strategy(WaitStrategy::Park),
        1 => options.read_mode(ReadMode::Pread),
        _ => options.durable(true),
    };
    options
}

/// A tailer; of what is durable as soon as there is a writer who can tell.
fn tailer(args: &Args, follower: usize) -> Option<Tailer> {
    let reader = options(args, follower).open(args.text("log")).expect("the log opens");
    loop {
        match reader.tail(0) {
            Ok(tailer) => return Some(tailer),
            Err(Error::DurableUnknown { .. }) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("a follower: {error}"),
        }
    }
}

/// Follows the log three times. `now` is answered by `now A B C`, what each has seen; `reach N` by the same once the first two have
/// seen N; the end of input by `whole A B C`, once the file was found to hold what each has seen.
pub fn seen(args: &Args) {
    let counts: [AtomicU64; FOLLOWERS] = Default::default();
    let tell = |word: &str| {
        let [a, b, c] = [0, 1, 2].map(|follower: usize| counts[follower].load(Ordering::SeqCst));
        say(format_args!("{word} {a} {b} {c}"));
    };
    std::thread::scope(|scope| {
        let mut stoppers = Vec::new();
        let followers: Vec<_> = counts
            .iter()
            .enumerate()
            .map(|(follower, count)| {
                let mut tailer = tailer(args, follower).expect("a tailer");
                stoppers.push(tailer.stopper());
                scope.spawn(move || {
                    let mut seen = Vec::new();
                    while let Some(record) = tailer.next().expect("following goes well, whoever dies") {
                        assert_eq!(record.sequence(), seen.len() as u64, "each record once, in order");
                        seen.push((record.position(), Checksum::of(&[record.payload()])));
                        count.store(seen.len() as u64, Ordering::SeqCst);
                    }
                    seen
                })
            })
            .collect();
        say(format_args!("ready"));
        while let Some(line) = listen() {
            if let Some(n) = line.strip_prefix("reach ") {
                let (n, begin): (u64, _) = (n.parse().expect("a number"), Instant::now());
                let reached = || counts[..2].iter().all(|count| count.load(Ordering::SeqCst) >= n);
                while !reached() && begin.elapsed() < Duration::from_secs(30) {
                    std::thread::sleep(Duration::from_micros(200));
                }
            }
            tell("now");
        }
        stoppers.iter().for_each(|stopper| stopper.stop());
        let bytes = std::fs::read(args.text("log")).expect("the log's bytes");
        for (n, follower) in followers.into_iter().enumerate() {
            assert_is_in(&bytes, &follower.join().expect("a follower ends well"), n);
        }
    });
    tell("whole");
}

/// Not by the library.
fn assert_is_in(bytes: &[u8], seen: &[(u64, Checksum)], follower: usize) {
    let number = |at: u64| u64::from_le_bytes(bytes[at as usize..][..8].try_into().expect("eight bytes"));
    assert!(seen.len() as u64 <= number(0), "follower {follower} saw {} records, {} are left", seen.len(), number(0));
    let mut at = 8;
    for (sequence, (position, sum)) in seen.iter().enumerate() {
        let payload = &bytes[at as usize + 8..][..number(at) as usize];
        assert_eq!(
            (at, Checksum::of(&[payload])),
            (*position, *sum),
            "record {sequence}, as follower {follower} saw it"
        );
        at += 8 + number(at);
    }
}
