//! A reader that keeps what it saw, and compares it with the file by a parser of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::content::Checksum;
use crate::{Args, listen, say};

/// Follows the log. `reach N` is answered by `reached N` as soon as N records were seen; the end of input by `whole COUNT`, once the
/// file was found to hold all that was seen.
pub fn witness(args: &Args) {
    let reader = args.reader().open(args.text("log")).expect("the log opens");
    let mut tailer = reader.tail(0).expect("a tailer");
    let stopper = tailer.stopper();
    let seen_count = AtomicU64::new(0);
    say(format_args!("ready"));
    let seen: Vec<(u64, Checksum)> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while let Some(line) = listen() {
                let n: u64 = line.strip_prefix("reach ").expect("reach N").parse().expect("a number");
                let begin = Instant::now();
                while seen_count.load(Ordering::Relaxed) < n && begin.elapsed() < Duration::from_secs(30) {
                    std::thread::sleep(Duration::from_micros(200));
                }
                say(format_args!("reached {}", seen_count.load(Ordering::Relaxed)));
            }
            stopper.stop();
        });
        let mut seen = Vec::new();
        while let Some(record) = tailer.next().expect("following goes well, whoever dies") {
            let mut sum = Checksum::default();
            sum.add(record.payload());
            seen.push((record.position(), sum));
            seen_count.store(record.sequence() + 1, Ordering::Relaxed);
        }
        seen
    });
    // Not by the library.
    let bytes = std::fs::read(args.text("log")).expect("the log's bytes");
    let number = |at: u64| u64::from_le_bytes(bytes[at as usize..][..8].try_into().expect("eight bytes"));
    assert!(seen.len() as u64 <= number(0), "{} records were seen, {} are left", seen.len(), number(0));
    let mut at = 8;
    for (sequence, (position, sum)) in seen.iter().enumerate() {
        let payload = &bytes[at as usize + 8..][..number(at) as usize];
        let mut now = Checksum::default();
        now.add(payload);
        assert_eq!((at, now), (*position, *sum), "record {sequence} is another than the one that was seen");
        at += 8 + number(at);
    }
    let lost = tailer.wait_counts().lost;
    say(format_args!("whole {} {lost}", seen.len()));
}
