//! The injury: a record that was acknowledged, or that a follower had acted upon, is gone after a power cut, since nobody had flushed
//! it, or it was published before it was; or a disk is worn out by flushes of nothing. Every fdatasync is watched.

#[path = "support/flushes.rs"]
mod flushes;
mod support;

use std::time::{Duration, Instant};

use flushes::Flushes;
use immuta::{Durability, Error, Evidence, Reader, Start, Tailer, Writer, WriterState};
use support::forge::{FAILED, Image, index_path};
use support::process::Helper;
use support::{LIMIT, Log, drain, next, positions, until};

fn open(log: &Log, durability: Durability) -> Writer {
    log.writer_options().durability(durability).open(&log.path).unwrap()
}

/// A log that is there, and what is flushed of it.
fn watched() -> (Log, Flushes) {
    let log = Log::new();
    log.writer().close().unwrap();
    let flushes = Flushes::of(&log.path, &log.page());
    (log, flushes)
}

fn durable_reader(log: &Log) -> Reader {
    log.reader_options().durable(true).open(&log.path).unwrap()
}

/// The numbers of the control page at these offsets (FORMAT.md): the state, the published end, the durable end.
fn page(log: &Log) -> [u64; 3] {
    let bytes = std::fs::read(log.page()).expect("the control page");
    [128, 384, 1536].map(|at| support::forge::number(&bytes, at))
}

#[test]
fn by_default_everything_is_flushed_within_a_second_or_so_without_a_call() {
    let (log, flushes) = watched();
    let mut writer = log.writer();
    let mut follower = durable_reader(&log).tail(0).unwrap();
    let begin = Instant::now();
    let mut records = 0;
    while begin.elapsed() < Duration::from_millis(2500) {
        writer.append(b"a record").unwrap();
        records += 1;
        std::thread::sleep(Duration::from_millis(5));
    }
    until("all is durable", || writer.durable() == records);
    // The interval is kept, and not undercut: a flush at the beginning and one a second.
    let times = flushes.take().len() as u64;
    assert!((2..=2 + begin.elapsed().as_secs()).contains(&times), "{times} flushes in {:?}", begin.elapsed());
    let [state, published, durable] = page(&log);
    assert_eq!((state, published, durable), (1, 8 + records * 16, 8 + records * 16));
    assert_eq!(log.reader().stat().unwrap().durable_records, Some(records));
    assert_eq!(drain(&mut follower).len() as u64, records);
    // And an idle log is left alone, the index too.
    let index = Flushes::of(&index_path(&log), &log.page());
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!((flushes.take().len(), index.take().len()), (0, 0), "there is nothing to be flushed");
    assert_eq!(writer.durable(), records);
}

#[test]
fn a_short_interval_is_kept_and_an_idle_log_is_not_flushed_again_and_again() {
    let (log, flushes) = watched();
    let mut writer = open(&log, Durability::Interval(Duration::from_millis(20)));
    for n in 1..=5 {
        writer.append(b"a record").unwrap();
        until("it is durable", || writer.durable() == n);
    }
    assert!(flushes.take().len() >= 5);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(flushes.take(), []);
    writer.close().unwrap();
    assert_eq!(flushes.take().len(), 1, "the close flushes once");
}

#[test]
fn buffered_flushes_only_when_it_is_told_to() {
    let (log, flushes) = watched();
    let mut writer = open(&log, Durability::Buffered);
    for _ in 0..100 {
        writer.append(b"a record").unwrap();
    }
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!((flushes.take().len(), writer.durable()), (0, 0));
    writer.sync().unwrap();
    assert_eq!((flushes.take().len(), writer.durable()), (1, 100));
    writer.sync().unwrap();
    assert_eq!(flushes.take().len(), 0, "nothing is new");
}

#[test]
fn sync_flushes_a_pair_a_batch_and_publishes_nothing_before() {
    let (log, flushes) = watched();
    let mut writer = open(&log, Durability::Sync);
    let (mut count, mut end) = (0, 8);
    flushes.take();
    for n in 0..20u64 {
        let before = (count, end);
        if n % 2 == 0 {
            writer.append(&[1; 100]).unwrap();
            (count, end) = (count + 1, end + 108);
        } else {
            let mut batch = writer.batch();
            for _ in 0..50 {
                batch.append(&[2; 30]).unwrap();
            }
            batch.commit().unwrap();
            (count, end) = (count + 50, end + 50 * 38);
        }
        let seen: Vec<_> = flushes.take().iter().map(|seen| (seen.count, seen.end)).collect();
        // First the bytes, with the old count; then the count, which the page does not publish yet.
        assert_eq!(seen, [before, (count, before.1)]);
        assert_eq!(page(&log), [1, end, end], "when the call returns it is published, and durable");
        assert_eq!(writer.durable(), count);
    }
    // The helper's notes in the index are no flushes.
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(flushes.take(), []);
    writer.sync().unwrap();
    assert_eq!(flushes.take(), []);
}

#[test]
fn a_claim_and_a_stream_are_as_durable_as_an_append() {
    let (log, flushes) = watched();
    let mut writer = open(&log, Durability::Sync);
    flushes.take();
    let mut claim = writer.claim(5).unwrap();
    claim.copy_from_slice(b"claim");
    claim.commit().unwrap();
    assert_eq!((flushes.take().len(), writer.durable()), (2, 1));
    writer.append_from(&b"stream"[..]).unwrap();
    assert_eq!((flushes.take().len(), writer.durable()), (2, 2));
}

#[test]
fn a_durable_follower_waits_for_the_flush_and_not_longer() {
    let log = Log::new();
    let mut writer = open(&log, Durability::Buffered);
    let reader = durable_reader(&log);
    let (mut eager, mut careful) = (log.reader().tail(0).unwrap(), reader.tail(0).unwrap());
    for n in 0..3u64 {
        writer.append(&n.to_le_bytes()).unwrap();
        assert_eq!(next(&mut eager).payload(), n.to_le_bytes());
        assert!(careful.try_next().unwrap().is_none(), "it is not durable");
        let begin = Instant::now();
        assert!(matches!(careful.next_timeout(Duration::from_millis(50)), Err(Error::TimedOut { .. })));
        assert!(begin.elapsed() >= Duration::from_millis(50));
        assert_eq!(
            (reader.get(n).unwrap(), reader.stat().unwrap().records),
            (None, n),
            "nor is it for other questions"
        );
        assert_eq!(reader.tail(Start::Last(9)).unwrap().sequence(), 0);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| next(&mut careful).payload().to_vec());
            std::thread::sleep(Duration::from_millis(20));
            writer.sync().unwrap();
            assert_eq!(waits.join().unwrap(), n.to_le_bytes());
        });
        assert_eq!(reader.get(n).unwrap().as_deref(), Some(&n.to_le_bytes()[..]));
    }
}

#[test]
fn many_durable_followers_are_all_woken() {
    let log = Log::new();
    let mut writer = open(&log, Durability::Sync);
    let reader = durable_reader(&log);
    let mut followers: Vec<Tailer> = (0..20).map(|_| reader.tail(0).unwrap()).collect();
    std::thread::scope(|scope| {
        let follow = |follower: &mut Tailer| (0..10u64).for_each(|n| assert_eq!(next(follower).sequence(), n));
        let threads: Vec<_> = followers.iter_mut().map(|follower| scope.spawn(move || follow(follower))).collect();
        for _ in 0..10 {
            writer.append(b"for all").unwrap();
            std::thread::sleep(Duration::from_millis(10));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_durable_follower_goes_on_across_close_and_restart_and_can_be_stopped() {
    let log = Log::new();
    let mut writer = open(&log, Durability::Buffered);
    let mut follower = durable_reader(&log).tail(0).unwrap();
    for run in 0..3u64 {
        writer.append(&run.to_le_bytes()).unwrap();
        assert!(follower.try_next().unwrap().is_none());
        // A close makes it durable.
        writer.close().unwrap();
        assert_eq!(next(&mut follower).payload(), run.to_le_bytes());
        assert_eq!(follower.writer().unwrap(), WriterState::Closed);
        writer = open(&log, Durability::Buffered);
    }
    let stopper = follower.stopper();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| follower.next_timeout(LIMIT).map(|record| record.is_some()));
        std::thread::sleep(Duration::from_millis(20));
        stopper.stop();
        assert!(matches!(waits.join().unwrap(), Ok(false)));
    });
}

#[test]
fn who_asks_for_durable_records_without_a_control_page_is_told_why_not() {
    let refused = |log: &Log| match durable_reader(log).tail(0) {
        Err(error @ Error::DurableUnknown { .. }) => {
            assert_eq!(error.path(), log.path);
            assert!(error.to_string().contains("control page"), "{error}");
        }
        other => panic!("nothing tells what is durable, but: {other:?}"),
    };
    let log = Log::new();
    log.writer().close().unwrap();
    refused(&log);
    std::fs::remove_dir(&log.control).unwrap();
    let mut writer = open(&log, Durability::Sync);
    writer.append(b"durable, but who tells?").unwrap();
    refused(&log);
}

/// The helper's flush fails; nobody has called anything.
#[test]
fn a_flush_that_fails_in_the_background_ends_the_writer_and_the_next_asks_the_disk() {
    let (log, flushes) = watched();
    let mut writer = open(&log, Durability::Interval(Duration::from_millis(20)));
    writer.append(b"durable").unwrap();
    until("it is durable", || writer.durable() == 1);
    let (mut eager, mut careful) = (log.reader().tail(1).unwrap(), durable_reader(&log).tail(1).unwrap());
    flushes.fail_after(0);
    writer.append(b"published").unwrap();
    until("the control page says so", || page(&log)[0] == 3);
    assert_eq!(next(&mut eager).payload(), b"published");
    assert_eq!((eager.writer().unwrap(), careful.writer().unwrap()), (WriterState::Failed, WriterState::Failed));
    assert!(matches!(careful.next_timeout(Duration::from_millis(300)), Err(Error::TimedOut { .. })));
    // No second try: the kernel would say that all is well.
    flushes.heal();
    let tries = flushes.take().len();
    match writer.append(b"never") {
        Err(error @ Error::Failed { .. }) => assert!(error.to_string().contains("flush"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(writer.sync(), Err(Error::Failed { .. })));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!((flushes.take().len(), writer.durable(), page(&log)[2]), (0, 1, 8 + 15), "after {tries}");
    assert!(matches!(writer.close(), Err(Error::Failed { .. })));
    assert_eq!(careful.writer().unwrap(), WriterState::Failed, "also once it is closed");
    assert!(Image::take(&log).entries().iter().any(|entry| entry.is(FAILED)), "the index says so, too");
    let writer = log.writer();
    let recovery = writer.stat().unwrap().recovery.unwrap();
    assert_eq!((recovery.evidence, recovery.discarded), (Evidence::Verified, None));
    assert!(!flushes.take().is_empty(), "it flushes before it asks the disk");
    assert_eq!(
        next(&mut careful).payload(),
        b"published",
        "the new writer's start made it durable, or its first flush did"
    );
    drop(writer);
    assert_eq!(log.parse(), [&b"durable"[..], b"published"]);
}

/// Whether the bytes or the count could not be flushed, nothing of it is published.
#[test]
fn a_failed_flush_in_sync_mode_publishes_nothing() {
    for succeed in [0, 1] {
        let (log, flushes) = watched();
        let mut writer = open(&log, Durability::Sync);
        writer.append(b"acknowledged").unwrap();
        let mut follower = log.reader().tail(1).unwrap();
        flushes.fail_after(succeed);
        assert!(matches!(writer.append(b"refused"), Err(Error::Io { .. })));
        let [state, published, durable] = page(&log);
        assert_eq!((state, published, durable), (3, 28, 28));
        // FORMAT.md: the count in the file may lead by this batch.
        assert_eq!(support::forge::number(&log.bytes(), 0), 1 + succeed);
        assert!(follower.try_next().unwrap().is_none());
        flushes.heal();
        assert!(matches!(writer.append(b"never"), Err(Error::Failed { .. })));
        drop(writer);
        let writer = log.writer();
        assert_eq!(writer.stat().unwrap().recovery.unwrap().evidence, Evidence::Verified);
        assert!(writer.stat().unwrap().records >= 1);
        drop(writer);
        let records = log.parse();
        assert_eq!(records[0], b"acknowledged");
        assert_eq!(positions(&records).last(), Some(&(log.bytes().len() as u64)));
    }
}

/// A helper thread that never comes to the end of its other work, beside a writer that never pauses, flushes nothing.
#[test]
fn a_writer_that_never_pauses_is_flushed_at_intervals() {
    let log = Log::new();
    let mut writer = open(&log, Durability::Interval(Duration::from_millis(100)));
    let (mut last, mut advances) = (0, 0);
    let begin = Instant::now();
    while advances < 5 {
        (0..1000).for_each(|_| assert_eq!(writer.append(&[7; 1000]).unwrap().size, 1000));
        let durable = writer.durable();
        advances += u64::from(durable > last);
        last = durable;
        assert!(begin.elapsed() < LIMIT, "{advances} flushes beside {last} records");
    }
}

/// A writer that was refused a helper thread flushes as well: the append that comes after the interval has passed does it.
#[test]
fn without_a_helper_thread_an_append_flushes_what_is_due() {
    if !support::is_root() {
        return;
    }
    let log = Log::new();
    for dir in [log.dir.path(), &*log.control] {
        std::os::unix::fs::chown(dir, Some(65534), Some(65534)).unwrap();
    }
    let mut writer = Helper::start("write_alone", &log, "uid=65534 interval_ms=20");
    assert!(writer.expect("notices").join(" ").contains("NoHelper"));
    // Far less than a block of the index.
    let mut appended = 0;
    until("a record is durable", || {
        writer.say("a record");
        appended += 1;
        std::thread::sleep(Duration::from_millis(5));
        writer.say("");
        let durable = writer.numbers("durable")[0];
        assert!(durable <= appended && appended < 2000);
        durable > 0
    });
    writer.succeeds();
    assert_eq!(log.reader().verify(|_| true).unwrap().checked, appended, "and all of it has checksums");
}
