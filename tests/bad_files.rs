//! The injury: a file that is no log, or a damaged one, is taken for a log, "repaired", or makes the program panic or hang.

mod support;

use std::path::Path;

use immuta::{Error, ReadMode, Reader, Result, Start};
use support::mount::Mount;
use support::process::Helper;
use support::{Log, bounded, encode, is_root, skip};

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Two records, and what is done to them.
fn spoilt(spoil: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = encode(&[&b"hello"[..], b"world, this is a longer record"]);
    spoil(&mut bytes);
    bytes
}

/// Damage in the record `sequence` at `position`.
#[track_caller]
fn is_damage<T: std::fmt::Debug>(result: Result<T>, path: &Path, at: (Option<u64>, u64)) {
    match result {
        Err(error @ Error::Damaged { sequence, position, .. }) => {
            assert_eq!((sequence, position), at, "{error}");
            assert_eq!(error.path(), path);
            assert_eq!(error.position(), Some(position));
            let text = error.to_string();
            assert!(text.contains(&*path.to_string_lossy()) && text.contains(&position.to_string()), "{text}");
        }
        other => panic!("not recognised as damage: {other:?}"),
    }
}

/// A writer refuses the file, and leaves it and the control directory as they were.
#[track_caller]
fn writer_refuses(log: &Log, at: (Option<u64>, u64)) {
    let before = log.bytes();
    for mapped in [true, false] {
        is_damage(log.writer_options().mapped(mapped).open(&log.path), &log.path, at);
        assert_eq!(log.bytes(), before, "the file is unchanged, byte for byte");
    }
    assert_eq!(std::fs::read_dir(&log.control).unwrap().count(), 0);
}

fn damaged_count(bytes: &[u8]) {
    let log = Log::new();
    std::fs::write(&log.path, bytes).unwrap();
    is_damage(log.reader_options().open(&log.path), &log.path, (None, 0));
    writer_refuses(&log, (None, 0));
}

/// The log has `good` records before the one that is damaged.
fn damaged_record(bytes: &[u8], good: u64, position: u64) {
    let at = (Some(good), position);
    let log = Log::new();
    std::fs::write(&log.path, bytes).unwrap();
    for mode in [ReadMode::Auto, ReadMode::Mapped, ReadMode::Pread] {
        let reader = log.reader_options().read_mode(mode).open(&log.path).unwrap();
        is_damage(reader.tail(Start::End).map(drop), &log.path, at);
        is_damage(reader.stat().map(drop), &log.path, at);
        let problem = reader.verify(|_| true).unwrap();
        assert_eq!((problem.records, problem.end), (good, position));
        let problem = problem.problem.expect("a problem");
        assert_eq!((problem.sequence, problem.position), at);
        if let Ok(mut tailer) = reader.tail(0) {
            for _ in 0..good {
                assert!(tailer.try_next().unwrap().is_some(), "what lies before the damage is delivered");
            }
            is_damage(tailer.try_next().map(drop), &log.path, at);
            is_damage(tailer.next().map(drop), &log.path, at);
        }
    }
    writer_refuses(&log, at);
}

#[test]
fn a_file_of_one_to_seven_bytes() {
    (1..8).for_each(|n| damaged_count(&vec![0; n]));
    (1..8).for_each(|n| damaged_count(&vec![1; n]));
}

#[test]
fn a_count_that_the_file_cannot_hold() {
    damaged_count(&numbers(&[1]));
    damaged_count(&numbers(&[u64::MAX]));
    damaged_count(&numbers(&[u64::MAX, 0, 0]));
    damaged_count(&numbers(&[3, 0, 0]));
    damaged_count(b"this is a text, and not a log at all\n");
    damaged_count(&spoilt(|bytes| bytes[7] = 1));
}

#[test]
fn a_size_that_runs_past_the_end() {
    damaged_record(&numbers(&[1, 1]), 0, 8);
    damaged_record(&spoilt(|bytes| bytes[21] += 1), 1, 21);
    damaged_record(&spoilt(|bytes| bytes.truncate(30)), 1, 21);
    damaged_record(&spoilt(|bytes| bytes.truncate(25)), 1, 21);
    damaged_record(&spoilt(|bytes| bytes[0] = 3), 2, 21 + 8 + 30);
}

#[test]
fn a_size_that_overflows() {
    for size in [u64::MAX, u64::MAX - 7, u64::MAX - 15, u64::MAX - 16, 1 << 63, (1 << 63) - 1, (1 << 63) - 17] {
        damaged_record(&numbers(&[1, size, 0]), 0, 8);
        damaged_record(&numbers(&[2, 0, size, 0]), 1, 16);
    }
}

#[test]
fn an_empty_file_is_a_log_without_records() {
    let log = Log::new();
    std::fs::write(&log.path, b"").unwrap();
    let reader = log.reader();
    assert_eq!(reader.stat().unwrap().records, 0);
    assert!(reader.tail(0).unwrap().try_next().unwrap().is_none());
    assert!(reader.verify(|_| true).unwrap().problem.is_none());
    let mut writer = log.writer();
    writer.append(b"first").unwrap();
    writer.close().unwrap();
    assert_eq!(log.bytes(), encode(&[b"first"]));
}

/// A dead writer's reserved space is no damage, whatever it holds.
#[test]
fn bytes_behind_the_last_record_are_no_damage_and_are_cut() {
    // The last one is more than a writer zeroes when it opens.
    for tail in [&b"\0"[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff", &[0; 5000], &[7; 1 << 20]] {
        let log = Log::new();
        let records = [b"hello", b"world"];
        std::fs::write(&log.path, [encode(&records), tail.to_vec()].concat()).unwrap();
        assert!(log.reader().verify(|_| true).unwrap().problem.is_none());
        assert_eq!(support::drain(&mut log.reader().tail(0).unwrap()), records);
        let writer = log.writer();
        let (whole, live) = (encode(&records), log.bytes());
        assert!(
            live.starts_with(&whole) && live[whole.len()..].iter().all(|byte| *byte == 0),
            "cut before anything else"
        );
        writer.close().unwrap();
        assert_eq!(log.bytes(), whole);
    }
}

#[track_caller]
fn is_no_log<T: std::fmt::Debug>(result: Result<T>, what: &str) {
    match result {
        Err(error @ Error::NotALog { .. }) => assert!(error.to_string().contains(what), "{error}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[test]
fn what_is_not_a_file_is_refused_at_once() {
    let log = Log::new();
    let path = |name: &str| log.dir.path().join(name);
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink(log.dir.path(), path("link")).unwrap();
    for (path, what) in [
        (log.dir.path().to_owned(), "directory"),
        (path("link"), "directory"),
        (path("socket"), "socket"),
        (path("pipe"), "pipe"),
        ("/dev/null".into(), "device"),
        ("/dev/zero".into(), "device"),
    ] {
        let (reading, writing) = (log.reader_options(), log.writer_options());
        let (reader, writer) = bounded(what, move || (reading.open(&path), writing.open(&path)));
        is_no_log(reader, what);
        is_no_log(writer, what);
    }
    assert_eq!(std::fs::read_dir(&log.control).unwrap().count(), 0);
}

#[test]
fn a_log_that_is_missing_is_not_created_by_a_reader() {
    let log = Log::new();
    for path in [log.path.clone(), log.dir.path().join("no/such/directory.log")] {
        assert!(matches!(log.reader_options().open(&path), Err(Error::NotFound { .. })));
        let waited = log.reader_options().wait_for_log(std::time::Duration::from_millis(30)).open(&path);
        assert!(matches!(waited, Err(Error::NotFound { .. })), "{waited:?}");
        assert!(!path.exists());
    }
    assert!(log.writer_options().open(log.dir.path().join("no/such/directory.log")).is_err());
}

#[test]
fn a_read_only_file_system() {
    if !is_root() {
        return;
    }
    let mount = Mount::tmpfs(8 << 20);
    let log = Log::at(mount.dir.join("events.log"));
    std::fs::write(&log.path, encode(&[b"hello"])).unwrap();
    mount.make_read_only();
    assert_eq!(support::drain(&mut log.reader().tail(0).unwrap()), [b"hello"]);
    for path in [&log.path, &mount.dir.join("new.log")] {
        match log.writer_options().open(path) {
            Err(Error::Io { source, .. }) => assert_eq!(source.raw_os_error(), Some(libc::EROFS)),
            other => panic!("a writer on a read-only file system: {other:?}"),
        }
    }
}

/// Beyond the limit a write raises SIGXFSZ, which ends a process that does not expect it.
#[test]
fn a_payload_beyond_the_file_size_limit() {
    for limit in [4u64 << 20, 10 << 20] {
        let log = Log::new();
        let mut helper = Helper::start("file_size", &log, &format!("limit={limit} size={limit}"));
        assert_eq!(helper.expect("open"), ["ok", "0"]);
        for how in ["append", "append_from", "claim"] {
            assert_eq!(helper.expect("large"), ["Io", &libc::EFBIG.to_string()], "{how}");
        }
        assert_eq!(helper.expect("short"), ["ok", "0"], "what fits is appended");
        helper.hush();
        assert_eq!(helper.expect("close"), ["ok", "0"]);
        helper.succeeds();
        assert_eq!(log.parse(), [b"short"]);
    }
}

#[test]
fn a_log_that_is_larger_than_memory_is_opened_and_not_read() {
    let log = Log::new();
    let size = 1u64 << 42;
    let mut bytes = numbers(&[1, size]);
    let file = std::fs::File::create(&log.path).unwrap();
    std::io::Write::write_all(&mut &file, &std::mem::take(&mut bytes)).unwrap();
    if let Err(error) = file.set_len(16 + size) {
        return skip(&format!("this file system has no files of 4 TiB: {error}"));
    }
    let reader: Reader = log.reader();
    assert!(matches!(reader.get(0), Err(Error::TooLarge { sequence: 0, position: 8, .. })));
    assert_eq!(reader.stat().unwrap().records, 1);
    assert!(reader.verify(|_| true).unwrap().problem.is_none());
    let pread = log.reader_options().read_mode(ReadMode::Pread).open(&log.path).unwrap();
    assert!(matches!(pread.tail(0).unwrap().try_next(), Err(Error::TooLarge { .. })));
}

/// A program that empties a log in place, as `truncate` and `>` do: its followers would wait for ever, and hear nothing.
#[test]
fn a_count_that_falls_is_told_to_followers() {
    let log = Log::new();
    std::fs::write(&log.path, spoilt(|_| {})).unwrap();
    let mut tailer = log.reader().tail(0).unwrap();
    for _ in 0..2 {
        assert!(tailer.try_next().unwrap().is_some());
    }
    assert!(tailer.try_next().unwrap().is_none());
    std::fs::write(&log.path, b"").unwrap();
    is_damage(tailer.try_next(), &log.path, (None, 0));
    let path = log.path.clone();
    let mut tailer = bounded("a wait", move || {
        is_damage(tailer.next(), &path, (None, 0));
        tailer
    });
    // Another one with its name is its successor, whatever became of it.
    std::fs::rename(&log.path, log.path.with_extension("old")).unwrap();
    std::fs::write(&log.path, spoilt(|_| {})).unwrap();
    assert!(matches!(tailer.try_next(), Err(Error::Replaced { .. })));
}
