//! The injury: a system call fails once, or is done by half, and a record is lost or torn, an error says nothing, a program panics
//! or hangs, or what was an error of the system is taken for damage.
//!
//! Every call that a scenario makes is made to fail in turn, with each error that it can give, once and from then on, and each read
//! and write is done by half. `cargo test --release --features faults --test faults`.
//!
mod support;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use immuta::{IndexState, Writer};
use support::content::Checksum;
use support::process::Helper;
use support::scene::Scene;
use support::stamp::{Stamp, assert_are_whole};
use support::{Log, encode, parse, positions};

use libc::{EAGAIN, EINTR, EIO, EMFILE, ENFILE, ENOLCK, ENOMEM, ENOSPC};

/// The errors that are injected into each call, and whether it is also done by half. (Not in here: mmap64, by which std, not the
/// library, gets a new thread's stack for signals; without one it aborts.)
const CALLS: &[(&str, &[i32], bool)] = &[
    ("copy_file_range", &[EIO, ENOSPC, EINTR, ENOMEM], true),
    ("fallocate", &[EIO, ENOSPC, EINTR], false),
    ("fchmod", &[EIO], false),
    ("fcntl", &[ENOLCK, EINTR], false),
    ("fdatasync", &[EIO, ENOSPC, EINTR], false),
    ("flock", &[ENOLCK, EINTR], false),
    ("fstatfs64", &[EIO], false),
    ("fsync", &[EIO, ENOSPC, EINTR], false),
    ("ftruncate64", &[EIO, EINTR], false),
    ("lseek64", &[EIO], false),
    ("madvise", &[ENOMEM], false),
    ("mmap", &[ENOMEM, ENFILE], false),
    ("open64", &[EMFILE, ENFILE, ENOMEM, EIO, EINTR], false),
    ("posix_fadvise", &[EIO], false),
    ("pread64", &[EIO, EINTR, ENOMEM], true),
    ("pthread_create", &[EAGAIN], false),
    ("pwrite64", &[EIO, ENOSPC, EINTR], true),
    ("read", &[EIO, EINTR], true),
    ("rename", &[EIO, ENOSPC, ENOMEM], false),
    ("sendfile64", &[EIO, EINTR], true),
    ("statx", &[EIO, ENOMEM], false),
    ("unlink", &[EIO, ENOMEM], false),
    ("write", &[EIO, ENOSPC, EINTR], true),
];

/// A fault that befalls a helper.
#[derive(Clone, Debug)]
struct Fault {
    call: &'static str,
    /// 0 for half of the bytes.
    error: i32,
    /// "2", or "2+" for every one from the second on.
    which: String,
}

impl Fault {
    fn text(&self) -> String {
        let what = if self.error == 0 { "short".to_owned() } else { self.error.to_string() };
        format!("{what}@{}:{}", self.call, self.which)
    }

    /// A caller hears nothing of it: the call is made again, or the rest of it is.
    fn is_retried(&self) -> bool {
        (self.error == 0 || self.error == EINTR) && !self.which.ends_with('+')
    }

    fn is_of_a_flush(&self) -> bool {
        ["fdatasync", "fsync"].contains(&self.call)
    }
}

/// Runs `role` on logs as `prepare` makes them, once for each fault that it can meet; `check` gets what it said.
fn inject(
    role: &str,
    options: &str,
    prepare: &(impl Fn() -> (Option<Writer>, Log) + Sync),
    check: &(impl Fn(&Log, &Fault, &[String]) + Sync),
) {
    let begin = Instant::now();
    let count = {
        let (_writer, log) = prepare();
        Helper::faulty(role, &log, options, "count").rest()
    };
    let mut faults = Vec::new();
    for line in count.iter().filter(|line| line.starts_with("passed ")) {
        let words: Vec<_> = line.split_whitespace().collect();
        let Some((call, errors, halves)) = CALLS.iter().find(|(call, ..)| *call == words[1]) else { continue };
        let times: usize = words[2].parse().expect("a number");
        // The helper thread's share differs from run to run.
        for n in 1..=times + 2 {
            faults.extend(errors.iter().map(|error| Fault { call, error: *error, which: n.to_string() }));
            // Without statx at all std does without the time of birth: that is another system, not a fault.
            let lasts = errors.iter().filter(|error| **error != EINTR && *call != "statx");
            faults.extend(lasts.map(|error| Fault { call, error: *error, which: format!("{n}+") }));
            faults.extend(halves.then(|| Fault { call, error: 0, which: n.to_string() }));
        }
    }
    assert!(faults.len() > 50, "{role} {options}: {} faults: calls are not met: {count:?}", faults.len());
    let (met, wrong) = (AtomicU64::new(0), AtomicU64::new(0));
    let halves = faults.split_at(faults.len() / 2);
    std::thread::scope(|scope| {
        let (met, wrong) = (&met, &wrong);
        for faults in [halves.0, halves.1] {
            scope.spawn(move || {
                for fault in faults {
                    // All that is wrong is told, not only what is found first.
                    let one = || befalls(role, options, fault, prepare, check);
                    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(one)) {
                        Ok(is_met) => drop(met.fetch_add(u64::from(is_met), Ordering::Relaxed)),
                        Err(_) => drop(wrong.fetch_add(1, Ordering::Relaxed)),
                    }
                }
            });
        }
    });
    let met = met.into_inner();
    println!(
        "{role} {options}: {met} faults met, of {} planned, in {:.1} s",
        faults.len(),
        begin.elapsed().as_secs_f32()
    );
    assert_eq!(wrong.into_inner(), 0, "{role} {options}: faults that something came of; see above");
    assert!(met as usize * 2 > faults.len(), "{role} {options}: most faults must be met");
}

/// Runs `role` with a fault; tells whether it was met.
fn befalls(
    role: &str,
    options: &str,
    fault: &Fault,
    prepare: &impl Fn() -> (Option<Writer>, Log),
    check: &impl Fn(&Log, &Fault, &[String]),
) -> bool {
    let (_writer, log) = prepare();
    let mut helper = Helper::faulty(role, &log, options, &fault.text());
    helper.hush();
    let said = helper.rest();
    let status = helper.wait();
    assert!(status.success(), "{role} {options} {fault:?}: {status}: {said:?}");
    for error in said.iter().filter(|line| line.starts_with("error ")) {
        assert!(
            error.contains(log.dir.path().to_str().expect("a name")),
            "{role} {options} {fault:?}: whose error is it? {error}"
        );
        assert!(!fault.is_retried(), "{role} {options} {fault:?}: is told to the caller: {error}");
        assert!(!error.contains("damaged"), "{role} {options} {fault:?}: an error is no damage: {error}");
    }
    check(&log, fault, &said);
    said.last().is_some_and(|last| last == "end 1")
}

fn lost(log: &Log) -> Vec<Vec<u8>> {
    let names = std::fs::read_dir(log.dir.path()).expect("the directory").flatten().map(|entry| entry.path());
    let is_lost = |name: &std::path::PathBuf| name.display().to_string().contains("events.log.lost-");
    names.filter(is_lost).map(|name| std::fs::read(name).expect("a side file")).collect()
}

/// What the naive parser finds, which must be whole.
fn whole(log: &Log, context: &str) -> Vec<Vec<u8>> {
    let bytes = std::fs::read(&log.path).unwrap_or_default();
    let records = if bytes.len() < 8 { Vec::new() } else { parse(&bytes) };
    assert_are_whole(&records, context);
    records
}

fn numbers<'a>(said: &'a [String], word: &'a str) -> impl Iterator<Item = usize> + 'a {
    said.iter().filter_map(move |line| line.strip_prefix(word)?.split_whitespace().next()?.parse().ok())
}

/// What a writer said that met a fault is true, and stays so when the next one opens the log.
fn check_writer(log: &Log, before: usize, fault: &Fault, said: &[String]) {
    let context = format!("{fault:?}: {said:?}");
    let records = whole(log, &context);
    let acknowledged = numbers(said, "published ").chain(numbers(said, "durable ")).max().unwrap_or(before);
    assert!(records.len() >= acknowledged, "{context}: {} records are left", records.len());
    for (op, _) in said.iter().filter_map(|line| line.strip_prefix("error op ")?.split_once(':')) {
        let failed =
            records.iter().filter_map(|record| Stamp::of(record)).any(|s| s.run == 1 && s.op.to_string() == op);
        // Its count is in the file before it is durable: FORMAT.md says so.
        assert!(!failed || fault.is_of_a_flush(), "{context}: op {op} failed, and is there");
    }
    if said.iter().any(|line| line == "closed") {
        let verified = log.reader().verify(|_| true).expect("a verification");
        let is_sound = verified.problem.is_none() && verified.index != IndexState::Damaged;
        assert!(is_sound, "{context}: {verified:?}");
        assert!(log.bytes() == encode(&records), "{context}: a log that was closed ends with its last record");
    }
    check_next(log, &records, acknowledged, fault, &context);
}

/// The next writer goes on with all of it, or after a flush that failed, sets aside what nothing bears out.
fn check_next(log: &Log, records: &[Vec<u8>], acknowledged: usize, fault: &Fault, context: &str) {
    let mut writer = log.writer_options().open(&log.path).unwrap_or_else(|error| panic!("{context}: {error}"));
    let recovery = writer.stat().expect("stat").recovery.expect("a writer's");
    let last = Stamp { run: 9, op: 0, place: 0, length: 1 }.payload(9);
    writer.append(&last).expect("a record");
    writer.close().expect("a clean close");
    let now = whole(log, context);
    let (kept, added) = now.split_at(now.len() - 1);
    assert!(added == [last] && records.starts_with(kept), "{context}: the next writer changes records");
    if let Some(discarded) = recovery.discarded {
        assert!(fault.is_of_a_flush(), "{context}: the next writer discards records: {discarded:?}");
        assert_eq!(lost(log), [encode(&records[kept.len()..])[8..].to_vec()], "{context}: they are set aside");
    } else {
        assert_eq!(kept.len(), records.len(), "{context}: records are gone, of which {acknowledged} were acknowledged");
    }
}

fn writer_meets(options: &str) {
    inject("write", &format!("run=1 ops=14 {options}"), &|| (None, Log::in_memory()), &|log, fault, said| {
        check_writer(log, 0, fault, said)
    });
}

#[test]
fn a_writer_in_sync_mode() {
    writer_meets("mode=sync");
}

#[test]
fn a_buffered_writer() {
    writer_meets("mode=buffered");
}

#[test]
fn a_writer_that_flushes_at_intervals() {
    writer_meets("mode=interval");
}

#[test]
fn a_writer_of_large_records() {
    writer_meets("mode=interval most=3000000");
}

#[test]
fn a_writer_without_a_mapping() {
    writer_meets("mode=sync mapped=0");
    writer_meets("mode=buffered mapped=0");
}

fn killed_writer(mode: &str) -> Scene {
    let log = Log::in_memory();
    let mut writer = Helper::faulty("write", &log, &format!("mode={mode} run=7 ops=16 hold=1"), "");
    while writer.line() != "holding" {}
    writer.kill();
    Scene::of(&log)
}

/// A recovery that meets a fault keeps all, or fails and leaves it to the next.
fn recovery_meets(scene: &Scene, options: &str) {
    let reference = {
        let log = scene.restore();
        Helper::faulty("recover", &log, options, "").rest();
        (log.parse(), lost(&log))
    };
    inject("recover", options, &|| (None, scene.restore()), &|log, fault, said| {
        let context = format!("{options} {fault:?}: {said:?}");
        assert!(log.parse().starts_with(&reference.0), "{context}: less is left than what is kept");
        let said = Helper::faulty("recover", log, options, "").rest();
        assert!(said.iter().all(|line| !line.starts_with("error")), "{context}: and then: {said:?}");
        assert!(whole(log, &context) == reference.0 && lost(log) == reference.1, "{context}: it ends elsewhere");
    });
}

#[test]
fn a_recovery_of_a_killed_writer() {
    recovery_meets(&killed_writer("interval"), "mode=sync");
}

#[test]
fn a_recovery_without_an_index() {
    recovery_meets(&killed_writer("interval").without_index(), "mode=interval");
}

#[test]
fn a_recovery_with_a_damaged_index() {
    recovery_meets(&killed_writer("interval").with_index_flipped_at(64 + 5), "mode=interval");
}

#[test]
fn a_recovery_after_a_failed_flush() {
    recovery_meets(&killed_writer("buffered").failed(), "mode=buffered");
}

#[test]
fn a_recovery_that_sets_records_aside() {
    recovery_meets(&killed_writer("buffered").rebooted(), "mode=buffered");
}

#[test]
fn a_repair() {
    let scene = killed_writer("buffered");
    let records = parse(&scene.log);
    let damaged = records.iter().position(|record| Stamp::of(record).expect("its stamp").op == 7).expect("a record");
    let scene = scene.with_log_flipped_at(positions(&records)[damaged] as usize + 20).rebooted();
    recovery_meets(&scene, "mode=buffered repair=1");
}

/// What a reader gives is right, whatever it meets: an error that passes costs no record.
fn reader_meets(records: &[Vec<u8>], options: &str, prepare: &(impl Fn() -> (Option<Writer>, Log) + Sync)) {
    let options = format!("records={} {options}", records.len());
    inject("read", &options, prepare, &|log, fault, said| {
        let context = format!("{options} {fault:?}: {said:?}");
        for line in said.iter().filter_map(|line| line.strip_prefix("read ")) {
            let words: Vec<_> = line.split_whitespace().collect();
            let numbers: Vec<u64> = words[1..].iter().map(|word| word.parse().expect("a number")).collect();
            let of = |from: usize| vec![(records.len() - from) as u64, Checksum::of(&records[from..]).0];
            let end = vec![records.len() as u64, *positions(records).last().expect("an end")];
            let expected = match words[0] {
                "all" => of(0),
                "last" | "from" => of(records.len() - 5),
                "get" => vec![1, Checksum::of(&records[3..4]).0],
                "stat" | "verify" => end,
                // From a record near the time on.
                "since" => continue,
                what => panic!("{context}: {what}"),
            };
            if !fault.which.ends_with('+') {
                assert_eq!(numbers, expected, "{context}: {line}");
            }
        }
        let answers = said.iter().filter(|line| line.starts_with("read ")).count();
        assert!(answers == 7 || fault.which.ends_with('+'), "{context}: {answers} answers");
        assert_eq!(log.parse(), records, "{context}: a reader changes nothing");
    });
}

#[test]
fn a_reader_of_a_dead_writers_log() {
    let scene = killed_writer("interval");
    for read in ["read=auto", "read=pread", "read=mapped"] {
        reader_meets(&parse(&scene.log), read, &|| (None, scene.restore()));
    }
}

#[test]
fn a_reader_beside_a_writer() {
    let records: Vec<_> = (0..30).map(|op| Stamp { run: 1, op, place: 0, length: 1 }.payload(op * 50)).collect();
    let prepare = || {
        let log = Log::in_memory();
        let mut writer = log.writer();
        for record in &records {
            writer.append(record).expect("a record");
        }
        writer.sync().expect("a flush");
        (Some(writer), log)
    };
    for read in ["read=auto", "read=pread", "durable=1"] {
        reader_meets(&records, read, &prepare);
    }
}
