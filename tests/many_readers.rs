//! The injury: one of many readers gets other bytes than the writer appended, or hinders the others, because it came late,
//! was killed, or was stopped in its tracks.

mod support;

use nix::sys::signal::Signal;
use support::content::Checksum;
use support::process::Helper;
use support::{Log, rounds};

/// A kind of reader for each way of reading and waiting.
const KINDS: [&str; 4] =
    ["read=auto wait=park", "read=mapped wait=both", "read=pread wait=park", "read=auto wait=spin"];

fn follower(log: &Log, kind: &str, until: u64) -> Helper {
    let follower = Helper::start("follow", log, &format!("{kind} until={until} report=500"));
    follower.expect("ready");
    follower
}

/// The writer appends `n` more, and says the count and the checksum of its run.
fn more(writer: &mut Helper, n: u64) -> (u64, u64) {
    writer.say(&format!("more {n}"));
    let at = writer.numbers("at");
    (at[0], at[1])
}

/// The reader has seen all of its records, and what it has seen has this checksum.
fn finishes(reader: Helper, count: u64, sum: u64) {
    let done = loop {
        let line = reader.line();
        match line.strip_prefix("done ") {
            Some(done) => break done.split(' ').map(|word| word.parse().unwrap()).collect::<Vec<u64>>(),
            None => assert!(line.starts_with("at "), "it reports its progress, not: {line}"),
        }
    };
    assert_eq!(done[..2], [count, sum], "a reader saw other records than the writer appended");
    reader.succeeds();
}

fn sum_of(log: &Log) -> (u64, u64) {
    let records = log.parse();
    (records.len() as u64, Checksum::of(&records).0)
}

#[test]
fn readers_in_other_processes_get_every_byte() {
    let log = Log::new();
    let mut writer = Helper::start("produce", &log, "seed=1 most=300000");
    writer.expect("ready");
    let count = rounds(30_000, 200_000);
    let readers: Vec<_> = KINDS.iter().map(|kind| follower(&log, kind, count)).collect();
    let (total, sum) = more(&mut writer, count);
    assert_eq!(total, count);
    readers.into_iter().for_each(|reader| finishes(reader, count, sum));
    writer.succeeds();
    assert_eq!(sum_of(&log), (count, sum), "the file holds what the writer appended");
}

#[test]
fn readers_that_join_late_get_every_byte() {
    let log = Log::new();
    let mut writer = Helper::start("produce", &log, "seed=2");
    writer.expect("ready");
    let mut readers = Vec::new();
    let mut last = (0, 0);
    for kind in KINDS {
        last = more(&mut writer, 3000);
        readers.push(follower(&log, kind, 4 * 3000));
    }
    assert_eq!(last.0, 4 * 3000);
    readers.into_iter().for_each(|reader| finishes(reader, last.0, last.1));
    writer.succeeds();
}

#[test]
fn readers_started_before_the_log_exists_get_every_byte() {
    let log = Log::new();
    let readers: Vec<_> =
        KINDS.iter().map(|kind| Helper::start("follow", &log, &format!("{kind} wait_ms=60000 until=5000"))).collect();
    let mut writer = Helper::start("produce", &log, "seed=3");
    writer.expect("ready");
    let (count, sum) = more(&mut writer, 5000);
    for reader in readers {
        reader.expect("ready");
        finishes(reader, count, sum);
    }
    writer.succeeds();
}

#[test]
fn a_reader_that_is_killed_disturbs_nobody() {
    let log = Log::new();
    let mut writer = Helper::start("produce", &log, "seed=4");
    writer.expect("ready");
    let survivors: Vec<_> = KINDS[..2].iter().map(|kind| follower(&log, kind, 8000)).collect();
    let mut victims: Vec<_> = KINDS.iter().map(|kind| follower(&log, kind, u64::MAX)).collect();
    let mut last = more(&mut writer, 2000);
    for victim in &mut victims {
        // In the middle of its work: it has seen some, and more is being written.
        victim.expect("at");
        writer.say("more 1500");
        victim.kill();
        let at = writer.numbers("at");
        last = (at[0], at[1]);
    }
    assert_eq!(last.0, 8000);
    survivors.into_iter().for_each(|reader| finishes(reader, last.0, last.1));
    writer.succeeds();
    assert_eq!(sum_of(&log), last);
}

#[test]
fn a_reader_that_is_stopped_delays_nobody_and_catches_up() {
    let log = Log::new();
    let mut writer = Helper::start("produce", &log, "seed=5");
    writer.expect("ready");
    let stopped: Vec<_> = KINDS.iter().map(|kind| follower(&log, kind, 6000)).collect();
    let running: Vec<_> = KINDS[..2].iter().map(|kind| follower(&log, kind, 6000)).collect();
    more(&mut writer, 1000);
    stopped.iter().for_each(|reader| reader.signal(Signal::SIGSTOP));
    let (count, sum) = more(&mut writer, 5000);
    // Both the writer and the others are done, and these have not moved.
    running.into_iter().for_each(|reader| finishes(reader, count, sum));
    stopped.iter().for_each(|reader| reader.signal(Signal::SIGCONT));
    stopped.into_iter().for_each(|reader| finishes(reader, count, sum));
    writer.succeeds();
}

#[test]
fn readers_that_wait_across_a_close_follow_the_next_writer() {
    let log = Log::new();
    let mut first = Helper::start("produce", &log, "seed=6");
    first.expect("ready");
    let readers: Vec<_> = KINDS.iter().map(|kind| follower(&log, kind, 4000)).collect();
    more(&mut first, 2000);
    first.succeeds();
    let mut second = Helper::start("produce", &log, "seed=6");
    assert_eq!(second.numbers("ready"), [2000]);
    more(&mut second, 2000);
    second.succeeds();
    let (count, sum) = sum_of(&log);
    assert_eq!(count, 4000);
    readers.into_iter().for_each(|reader| finishes(reader, count, sum));
}
