//! The injury: "what came since then" leaves out a record that came since then, because a clock was set back, because a second began in
//! the midst of a block, or because the time lies before, behind or between all that the index knows. The clock is the test's own.

mod support;

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use immuta::{Durability, Error, Reader, Start, Writer};
use support::forge::{Image, forget_pages, index_path};
use support::{Log, drain};

/// What is added to the time of day, in seconds. The tests of this file share it, so they run one after the other.
static AHEAD_S: AtomicI64 = AtomicI64::new(0);

/// Takes the place of libc's in this binary: the time of day is what the test says.
///
/// # Safety
/// As for libc's: `time` points to a timespec, or is null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> i32 {
    // SAFETY: the caller's pointer is handed on, and written by the kernel.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as i32 };
    if clock == libc::CLOCK_REALTIME && result == 0 && !time.is_null() {
        // SAFETY: it was written just now.
        unsafe { (*time).tv_sec += AHEAD_S.load(Ordering::SeqCst) };
    }
    result
}

fn set_clock(ahead_s: i64) {
    AHEAD_S.store(ahead_s, Ordering::SeqCst);
}

/// The time of day that the clock shows `ahead_s` ahead.
fn at(ahead_s: i64) -> SystemTime {
    let shown = AHEAD_S.load(Ordering::SeqCst);
    let real =
        SystemTime::now() - Duration::from_secs(shown.max(0) as u64) + Duration::from_secs((-shown).max(0) as u64);
    if ahead_s < 0 { real - Duration::from_secs(-ahead_s as u64) } else { real + Duration::from_secs(ahead_s as u64) }
}

fn open(log: &Log) -> Writer {
    log.writer_options().durability(Durability::Buffered).open(&log.path).unwrap()
}

/// Five records, which the index covers when this returns.
fn five(writer: &mut Writer) {
    for _ in 0..5 {
        let sequence = writer.stat().unwrap().records;
        writer.append(&sequence.to_le_bytes()).unwrap();
    }
    writer.sync().unwrap();
}

/// The first record that comes for a time, and all behind it.
fn since(reader: &Reader, time: SystemTime) -> u64 {
    let mut tailer = reader.tail(Start::Time(time)).unwrap();
    let (first, count) = (tailer.sequence(), reader.stat().unwrap().records);
    let rest: Vec<_> = (first..count).map(|sequence| sequence.to_le_bytes().to_vec()).collect();
    assert_eq!(drain(&mut tailer), rest);
    first
}

#[test]
fn what_came_since_a_time() {
    // One test, since there is one clock.
    times_that_rise();
    a_clock_that_is_set_back();
    no_index_no_times();
    records_that_the_index_does_not_cover_yet();
}

fn times_that_rise() {
    let log = Log::new();
    let mut writer = open(&log);
    let reader = log.reader();
    assert_eq!(since(&reader, at(-1000)), 0, "nothing is there, so that nothing came");
    for hundred in 0..6 {
        set_clock(hundred * 100);
        if hundred == 3 {
            // Another run goes on with the same times.
            writer.close().unwrap();
            writer = open(&log);
        }
        five(&mut writer);
    }
    let check = |reader: &Reader| {
        for (time, first) in
            [(-1000, 0), (-2, 0), (50, 5), (98, 5), (150, 10), (250, 15), (298, 15), (450, 25), (498, 25)]
        {
            assert_eq!(since(reader, at(time)), first, "{time} s after the first");
        }
        assert_eq!(since(reader, at(600)), 30, "nothing came after the last");
        assert_eq!(since(reader, SystemTime::UNIX_EPOCH), 0);
        assert_eq!(since(reader, SystemTime::UNIX_EPOCH - Duration::from_secs(1)), 0);
        assert_eq!(since(reader, at(1 << 40)), 30);
    };
    check(&reader);
    writer.close().unwrap();
    check(&log.reader());
    // A tailer from beyond the last gets what comes then.
    let mut tailer = reader.tail(Start::Time(at(600))).unwrap();
    let mut writer = open(&log);
    five(&mut writer);
    assert_eq!(drain(&mut tailer).len(), 5);
}

/// Records that came at noon, then some at ten again: whoever asks for eleven gets those of noon, and all behind them.
fn a_clock_that_is_set_back() {
    for restart in [false, true] {
        let log = Log::new();
        set_clock(1000);
        let mut writer = open(&log);
        five(&mut writer);
        set_clock(500);
        if restart {
            writer.close().unwrap();
            writer = open(&log);
        }
        five(&mut writer);
        let reader = log.reader();
        for time in [400, 490, 600, 998] {
            assert_eq!(since(&reader, at(time)), 0, "those of 1000 came since {time}, and all are delivered in order");
        }
        set_clock(2000);
        five(&mut writer);
        assert_eq!(since(&reader, at(1500)), 10);
        let times: Vec<_> = Image::take(&log).entries().iter().map(|entry| entry.time_ns).collect();
        assert!(times.is_sorted(), "{times:?}");
    }
}

fn no_index_no_times() {
    let log = Log::new();
    let mut writer = open(&log);
    five(&mut writer);
    writer.close().unwrap();
    std::fs::remove_file(index_path(&log)).unwrap();
    forget_pages(&log);
    match log.reader().tail(Start::Time(at(0))) {
        Err(error @ Error::NoTimes { .. }) => {
            assert_eq!(error.path(), log.path);
            assert!(error.to_string().contains("index"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    // The next writer makes one, for what comes then.
    set_clock(3000);
    let mut writer = open(&log);
    set_clock(3100);
    five(&mut writer);
    assert_eq!(since(&log.reader(), at(3050)), 5);
}

fn records_that_the_index_does_not_cover_yet() {
    let log = Log::new();
    set_clock(4000);
    let mut writer = open(&log);
    five(&mut writer);
    let (reader, mut unseen) = (log.reader(), 0);
    for sequence in 5..300u64 {
        writer.append(&sequence.to_le_bytes()).unwrap();
        let covered = Image::take(&log).entries().last().unwrap().end().0;
        let first = reader.tail(Start::Time(at(3999 + 60))).unwrap().sequence();
        // Those that are covered came before; of the others nothing is known, so that they come.
        assert!((covered..=sequence + 1).contains(&first), "{covered} are covered, it begins with {first}");
        unseen += u64::from(first <= sequence);
    }
    assert!(unseen > 0, "some were not covered yet");
}
