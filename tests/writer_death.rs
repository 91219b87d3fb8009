//! The injury: a writer is killed in the middle of something, and takes with it what a reader had already seen, leaves half a
//! batch, or a log that the next writer cannot open; its followers hang, or are told that it lives.

mod support;

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use immuta::{Reader, WriterState};
use support::content::Random;
use support::process::Helper;
use support::{Log, next, parse, rounds, until};

/// What a record of the helper `die` says of itself: its run, its place in its batch, and the batch's length.
fn origin(payload: &[u8]) -> (u64, u64, u64) {
    let number = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().unwrap());
    (number(0), number(8), number(16))
}

fn assert_batches_are_whole(records: &[Vec<u8>]) {
    let mut at = 0;
    while at < records.len() {
        let (run, place, length) = origin(&records[at]);
        assert_eq!(place, 0, "record {at} of run {run} is the middle of a batch");
        let end = at + length as usize;
        assert!(end <= records.len(), "the batch of {length} at record {at} of run {run} is cut short");
        for (place, record) in records[at..end].iter().enumerate() {
            assert_eq!(origin(record), (run, place as u64, length), "record {} of a batch", at + place);
        }
        at = end;
    }
}

fn kill_many_times(seed: u64, kills: u64) {
    let log = Log::new();
    let mut random = Random(seed);
    drop(log.writer());
    let mut witness =
        Helper::start("witness", &log, if seed.is_multiple_of(2) { "wait=park" } else { "wait=park read=pread" });
    witness.expect("ready");
    let mut before: Vec<Vec<u8>> = Vec::new();
    for run in 1..=kills {
        let mut writer = Helper::start("die", &log, &format!("run={run} most=500 window=4194304"));
        // At a random instant: while it starts, or once it writes.
        if random.below(8) > 0 {
            assert_eq!(
                writer.numbers("open"),
                [before.len() as u64],
                "the next writer begins where the last one ended"
            );
            std::thread::sleep(std::time::Duration::from_micros(random.below(3000)));
        } else {
            std::thread::sleep(std::time::Duration::from_micros(random.below(4000)));
        }
        writer.kill();
        let bytes = log.bytes();
        let records = if bytes.len() < 8 { Vec::new() } else { parse(&bytes) };
        assert!(records.len() >= before.len() && records[..before.len()] == before[..], "what was published stays");
        assert_batches_are_whole(&records);
        // Whoever follows gets the last record although no writer comes back.
        witness.say(&format!("reach {}", records.len()));
        assert_eq!(witness.numbers("reached"), [records.len() as u64], "a record of the dead writer does not arrive");
        before = records;
    }
    assert!(before.len() as u64 > kills, "they wrote something");
    witness.hush();
    assert_eq!(witness.numbers("whole")[0], before.len() as u64);
    witness.succeeds();
    log.writer().close().unwrap();
    assert_eq!(log.bytes(), support::encode(&before), "the next writer cuts what was not published");
    assert_eq!(std::fs::read_dir(&log.control).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn what_was_seen_of_a_writer_that_was_killed_stays() {
    for seed in 0..rounds(24, 40) {
        kill_many_times(seed, 16);
    }
}

#[test]
fn followers_of_a_dead_writer_go_on_with_the_next_one() {
    for kind in ["wait=park", "wait=spin", "read=pread", "read=mapped", "wait=park uid=65534"] {
        if kind.contains("uid") && !support::is_root() {
            continue;
        }
        let log = Log::new();
        open_to_all(&log);
        let mut first = Helper::start("hold", &log, "records=3");
        first.expect("holding");
        let reader = Helper::start("follow", &log, &format!("{kind} until=6 report=1"));
        reader.expect("ready");
        (1..=3).for_each(|n| assert_eq!(reader.numbers("at"), [n], "{kind}"));
        first.kill();
        let mut second = Helper::start("hold", &log, "records=2");
        assert_eq!(second.numbers("holding"), [5]);
        (4..=5).for_each(|n| assert_eq!(reader.numbers("at"), [n], "{kind}"));
        second.say("the last");
        assert_eq!(reader.numbers("at"), [6], "{kind}");
        assert_eq!(reader.numbers("done")[0], 6);
        reader.succeeds();
        second.succeeds();
    }
}

fn open_to_all(log: &Log) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(log.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
}

#[test]
fn alive_gone_and_closed_are_told_apart() {
    let log = Log::new();
    let mut helper = Helper::start("hold", &log, "records=2");
    helper.expect("holding");
    let reader = log.reader();
    let attached = reader.tail(0).unwrap();
    let states = || {
        let (fresh, stat) = (log.reader(), reader.stat().unwrap());
        [reader.writer(), attached.writer(), fresh.writer(), fresh.tail(0).unwrap().writer()]
            .map(Result::unwrap)
            .into_iter()
            .chain([stat.writer])
            .collect::<Vec<_>>()
    };
    assert_eq!(states(), [WriterState::Alive; 5]);
    assert_eq!(reader.stat().unwrap().pid, Some(helper.id()));
    helper.kill();
    assert_eq!(states(), [WriterState::Gone; 5]);
    assert_eq!(reader.stat().unwrap().pid, None);
    assert_eq!(reader.stat().unwrap().records, 2);
    let second = log.writer();
    assert_eq!(states(), [WriterState::Alive; 5]);
    second.close().unwrap();
    assert_eq!(states(), [WriterState::Closed; 5]);
}

#[test]
fn a_writer_that_is_stopped_is_alive() {
    let log = Log::new();
    let helper = Helper::start("hold", &log, "records=2");
    helper.expect("holding");
    helper.signal(nix::sys::signal::Signal::SIGSTOP);
    assert_eq!(log.reader().writer().unwrap(), WriterState::Alive);
    assert_eq!(log.reader().stat().unwrap().records, 2);
}

/// The tail beyond the count of a killed writer is reserved space; a second writer that finds it must cut it and no more.
#[test]
fn the_next_writer_opens_at_once_and_appends_behind_what_was_published() {
    let log = Log::new();
    for run in 0..20u64 {
        let mut helper = Helper::start("hold", &log, "records=1");
        assert_eq!(helper.numbers("holding"), [run + 1]);
        helper.kill();
        assert_eq!(log.parse().len() as u64, run + 1);
    }
    let mut tailer = log.reader().tail(0).unwrap();
    (0..20).for_each(|_| assert_eq!(next(&mut tailer).payload(), b"record 0"));
}

#[test]
fn readers_that_ask_for_the_state_keep_no_writer_from_starting() {
    let log = Log::new();
    log.writer().close().unwrap();
    let mut askers: Vec<_> = (0..4).map(|_| Helper::start("ask", &log, "threads=25")).collect();
    askers.iter().for_each(|asker| drop(asker.expect("ready")));
    for n in 0..60 {
        let mut writer = log.writer_options().open(&log.path).unwrap_or_else(|error| panic!("writer {n}: {error}"));
        writer.append(b"one more").unwrap();
        writer.close().unwrap();
    }
    for asker in &mut askers {
        asker.hush();
        assert!(asker.numbers("asked")[0] > 0, "it was about readers that ask");
    }
    askers.into_iter().for_each(Helper::succeeds);
    assert_eq!(log.parse().len(), 60);
}

#[test]
fn a_second_writer_is_told_who_holds_the_lock() {
    let log = Log::new();
    let mut helper = Helper::start("hold", &log, "records=1");
    helper.expect("holding");
    // Not all bytes of the file: its writer may still reserve space ahead.
    let before = log.parse();
    match log.writer_options().open(&log.path) {
        Err(error @ immuta::Error::Locked { pid, .. }) => {
            assert_eq!(pid, Some(helper.id()));
            assert!(error.to_string().contains(&helper.id().to_string()), "{error}");
        }
        other => panic!("a second writer: {other:?}"),
    }
    assert_eq!(log.parse(), before, "it has changed nothing");
    helper.say("still here");
    helper.expect("appended");
    helper.kill();
    until("the lock is free", || log.writer_options().open(&log.path).is_ok());
}

#[test]
fn a_reader_in_the_writers_process_tells_the_state_too() {
    let log = Log::new();
    let writer = log.writer();
    let reader: Reader = log.reader();
    assert_eq!(reader.writer().unwrap(), WriterState::Alive);
    // Closing a reader's descriptors takes no lock of the writer's with it, as it would with POSIX locks.
    drop(reader);
    assert_eq!(log.reader().writer().unwrap(), WriterState::Alive);
    assert!(matches!(log.writer_options().open(&log.path), Err(immuta::Error::Locked { .. })));
    drop(writer);
    assert_eq!(log.reader().writer().unwrap(), WriterState::Closed);
}

/// A follower that is attached to the page of a writer that closed is told of the next one, which was killed.
#[test]
fn the_page_of_an_earlier_writer_does_not_tell_how_the_last_one_ended() {
    let log = Log::new();
    let first = log.writer();
    let attached = log.reader().tail(0).unwrap();
    first.close().unwrap();
    assert_eq!(attached.writer().unwrap(), WriterState::Closed);
    let mut second = Helper::start("hold", &log, "records=2");
    second.expect("holding");
    assert_eq!(attached.writer().unwrap(), WriterState::Alive);
    second.kill();
    assert_eq!(attached.writer().unwrap(), WriterState::Gone);
}

/// FORMAT.md: the state lies at offset 128 of the page; 3 is failed.
#[test]
fn a_writer_that_failed_is_forgotten_once_the_next_one_is_there() {
    use std::os::unix::fs::FileExt;
    let log = Log::new();
    let mut failed = Helper::start("hold", &log, "records=2");
    failed.expect("holding");
    let attached = log.reader().tail(0).unwrap();
    let page = std::fs::OpenOptions::new().write(true).open(log.page()).unwrap();
    page.write_all_at(&3u64.to_le_bytes(), 128).unwrap();
    assert_eq!(attached.writer().unwrap(), WriterState::Failed);
    // It takes its page away and ends.
    std::fs::remove_file(log.page()).unwrap();
    failed.kill();
    assert_eq!(attached.writer().unwrap(), WriterState::Failed);
    let next = log.writer();
    assert_eq!(attached.writer().unwrap(), WriterState::Alive);
    next.close().unwrap();
}

/// Between two looks of whoever asks, a writer may begin; its log is longer than its records then, as a dead writer's is.
#[test]
fn a_writer_that_begins_is_not_taken_for_a_dead_one() {
    let log = Log::new();
    log.writer().append(b"the first").unwrap();
    // One descriptor for all who ask: each waits for it between its looks.
    let reader = log.reader_options().descriptors(1).open(&log.path).unwrap();
    let (told, done) = (Mutex::new(HashMap::new()), AtomicBool::new(false));
    let asks = || {
        let attached = reader.tail(0).unwrap();
        while !done.load(Ordering::Relaxed) {
            for state in [reader.writer().unwrap(), attached.writer().unwrap()] {
                *told.lock().unwrap().entry(format!("{state:?}")).or_insert(0) += 1;
            }
        }
    };
    let opened = std::thread::scope(|scope| {
        (0..6).for_each(|_| drop(scope.spawn(asks)));
        let opened = (0..rounds(300, 3000)).try_for_each(|_| log.writer_options().open(&log.path)?.close());
        done.store(true, Ordering::Relaxed);
        opened
    });
    opened.unwrap();
    let told = told.into_inner().unwrap();
    assert!(!told.contains_key("Gone"), "{told:?}");
    assert_eq!(told.len(), 2, "it was about writers that begin and end: {told:?}");
}
