//! The injury: a log is removed or replaced, and whoever follows it waits for ever, or loses what it had not read yet, or
//! reads on in another file.

mod support;

use immuta::{Error, ReadMode, Record, Result, Tailer, WaitStrategy};
use support::{LIMIT, Log, encode, take, until};

const KINDS: [(ReadMode, WaitStrategy); 4] = [
    (ReadMode::Auto, WaitStrategy::Park),
    (ReadMode::Mapped, WaitStrategy::SpinThenPark),
    (ReadMode::Pread, WaitStrategy::Park),
    (ReadMode::Auto, WaitStrategy::Spin),
];

/// Followers of each kind, of a log with three records.
fn followers(log: &Log) -> Vec<Tailer> {
    let open = |(mode, wait)| log.reader_options().read_mode(mode).wait_strategy(wait).open(&log.path).unwrap();
    KINDS.into_iter().map(|kind| open(kind).tail(0).unwrap()).collect()
}

fn is_replaced(result: Result<Option<Record<'_>>>) {
    assert!(matches!(result, Err(Error::Replaced { .. })), "{result:?}");
}

/// Delivers the three, and then says that the log is gone, each time it is asked.
fn delivers_and_ends(tailers: Vec<Tailer>) {
    for mut tailer in tailers {
        assert_eq!(take(&mut tailer, 3), [b"a", b"b", b"c"]);
        is_replaced(tailer.next_timeout(LIMIT));
        is_replaced(tailer.next_timeout(LIMIT));
        is_replaced(tailer.next());
    }
}

fn append_three(log: &Log) -> immuta::Writer {
    let mut writer = log.writer();
    for payload in [b"a", b"b", b"c"] {
        writer.append(payload).unwrap();
    }
    writer
}

#[test]
fn a_log_that_is_removed_while_its_writer_lives() {
    let log = Log::new();
    let mut writer = append_three(&log);
    let tailers = followers(&log);
    std::fs::remove_file(&log.path).unwrap();
    delivers_and_ends(tailers);
    // The writer has no use for the name.
    writer.append(b"into the void").unwrap();
    writer.close().unwrap();
    assert_eq!(std::fs::read_dir(&log.control).unwrap().count(), 0);
}

#[test]
fn a_log_that_is_removed_after_a_close() {
    let log = Log::new();
    append_three(&log).close().unwrap();
    let tailers = followers(&log);
    std::fs::remove_file(&log.path).unwrap();
    delivers_and_ends(tailers);
}

#[test]
fn a_log_that_is_replaced_by_another_file() {
    let log = Log::new();
    append_three(&log).close().unwrap();
    let tailers = followers(&log);
    let other = log.dir.path().join("other");
    std::fs::write(&other, encode(&[b"x", b"y", b"z", b"!"])).unwrap();
    std::fs::rename(&other, &log.path).unwrap();
    delivers_and_ends(tailers);
    assert_eq!(take(&mut log.reader().tail(0).unwrap(), 4)[3], b"!", "a new reader reads the new one");
}

/// ext4 gives the inode number of a deleted file to the next one at once.
#[test]
fn a_log_that_is_removed_and_written_anew() {
    let log = Log::new();
    append_three(&log).close().unwrap();
    let tailers = followers(&log);
    std::fs::remove_file(&log.path).unwrap();
    let mut writer = log.writer();
    for n in 0..10u8 {
        writer.append(&[n]).unwrap();
    }
    delivers_and_ends(tailers);
    assert_eq!(take(&mut log.reader().tail(0).unwrap(), 10)[9], [9]);
}

#[test]
fn a_log_that_is_removed_while_a_follower_sleeps() {
    let log = Log::new();
    let _writer = append_three(&log);
    for mut tailer in followers(&log) {
        take(&mut tailer, 3);
        let waits = std::thread::spawn(move || matches!(tailer.next(), Err(Error::Replaced { .. })));
        std::fs::rename(&log.path, log.dir.path().join("away")).unwrap();
        until("the follower notices", || waits.is_finished());
        assert!(waits.join().unwrap(), "it is told");
        std::fs::rename(log.dir.path().join("away"), &log.path).unwrap();
    }
}

/// A follower that is far behind reads all of it, though the file has no name any more.
#[test]
fn what_is_readable_is_delivered_first() {
    let log = Log::new();
    let mut writer = log.writer();
    let records: Vec<_> = (0..20_000u32).map(|n| n.to_le_bytes().repeat(n as usize % 50)).collect();
    for record in &records {
        writer.append(record).unwrap();
    }
    let mut tailers = followers(&log);
    std::fs::remove_file(&log.path).unwrap();
    for tailer in &mut tailers {
        assert!(take(tailer, records.len()) == records);
        is_replaced(tailer.next_timeout(LIMIT));
    }
}
