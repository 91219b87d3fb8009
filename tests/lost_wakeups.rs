//! The injury: a reader goes to sleep in the instant in which the writer publishes, the wake-up is lost, and the record lies there
//! until the sleep ends by itself. One record at a time, every reader asleep, many times over; the tailers count why each sleep ended.

mod support;

use immuta::{WaitStrategy, Writer};
use support::process::Helper;
use support::{LIMIT, Log, rounds};

/// One record to `echoes` processes that sleep, their answers to this one, which sleeps too, and so on.
fn ping_pong(echoes: usize, rounds: u64) {
    let log = Log::new();
    let mut writer: Writer = log.writer();
    let answers: Vec<_> = (0..echoes).map(|n| log.dir.path().join(format!("answers-{n}.log"))).collect();
    let mut helpers: Vec<_> = answers
        .iter()
        .map(|path| Helper::start("echo", &log, &format!("wait=park rounds={rounds} answers={}", path.display())))
        .collect();
    helpers.iter().for_each(|helper| drop(helper.expect("ready")));
    let open = |path| log.reader_options().wait_strategy(WaitStrategy::Park).open(path).unwrap().tail(0).unwrap();
    let mut tailers: Vec<_> = answers.iter().map(open).collect();
    for round in 0..rounds {
        writer.append(&round.to_le_bytes()).unwrap();
        for tailer in &mut tailers {
            let record = tailer.next_timeout(LIMIT).unwrap().unwrap();
            assert_eq!(record.payload(), round.to_le_bytes());
        }
    }
    let mut slept = 0;
    for helper in &helpers {
        let done = helper.numbers("done");
        let (sleeps, lost, causes, woken) = (done[0], done[1], done[2], done[3]);
        assert_eq!(lost, 0, "lost wake-ups of a reader in another process, in {sleeps} sleeps");
        assert_eq!(causes, sleeps, "every sleep ended by a cause that was counted");
        slept += woken;
    }
    for tailer in &tailers {
        let counts = tailer.wait_counts();
        assert_eq!(counts.lost, 0, "lost wake-ups: {counts:?}");
        slept += counts.woken;
    }
    assert!(slept > rounds / 10, "it is about readers that sleep: {slept} wake-ups in {rounds} rounds");
    helpers.iter_mut().for_each(Helper::hush);
    helpers.into_iter().for_each(Helper::succeeds);
}

#[test]
fn every_sleep_of_one_reader_ends_by_a_wake_up() {
    ping_pong(1, rounds(20_000, 100_000));
}

#[test]
fn every_sleep_of_several_readers_ends_by_a_wake_up() {
    ping_pong(5, rounds(3_000, 20_000));
}

/// So many that the helper thread wakes all of them.
#[test]
fn every_sleep_of_a_crowd_ends_by_a_wake_up() {
    ping_pong(20, rounds(500, 5_000));
}
