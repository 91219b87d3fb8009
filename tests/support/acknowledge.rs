//! A writer that says what it was promised, for tests that cut the power under it.

use std::time::{Duration, Instant};

use immuta::Durability;

use crate::content::{Random, payload};
use crate::{Args, say};

/// Appends the stream `seed` in a durability mode, by one and in batches, until it fails or is killed. Says `open N`, then
/// `durable N AT` for what is durable, and about every 10 ms `published N AT`, which was so at that time of the machine's clock.
pub fn acknowledge(args: &Args) {
    let seed = args.number("seed", 1);
    let mode = match args.text("mode") {
        "sync" => Durability::Sync,
        "buffered" => Durability::Buffered,
        _ => Durability::Interval(Duration::from_millis(args.number("interval_ms", 20))),
    };
    let mut writer = args.writer().durability(mode).open(args.text("log")).expect("the log opens");
    let mut next = writer.stat().expect("stat").records;
    let mut random = Random(seed);
    let (mut durable, mut told) = (next, Instant::now());
    say(format_args!("open {next}"));
    // When the power is gone an error is what is to be expected.
    loop {
        let n = if random.below(4) == 0 { 1 + random.below(20) } else { 1 };
        let mut batch = writer.batch();
        if (next..next + n).any(|sequence| batch.append(&payload(seed, sequence, 1 << 14)).is_err())
            || batch.commit().is_err()
        {
            break;
        }
        next += n;
        if random.below(100) == 0 && mode == Durability::Buffered && writer.sync().is_err() {
            break;
        }
        if writer.durable() > durable {
            durable = writer.durable();
            say(format_args!("durable {durable} {}", clock()));
        }
        if told.elapsed() > Duration::from_millis(10) {
            told = Instant::now();
            say(format_args!("published {next} {}", clock()));
        }
        if random.below(4) == 0 {
            std::thread::sleep(Duration::from_micros(500));
        }
    }
    say(format_args!("failed"));
}

/// In nanoseconds, the same for all processes.
fn clock() -> u128 {
    Duration::from(nix::time::ClockId::CLOCK_MONOTONIC.now().expect("a clock")).as_nanos()
}
