//! The injury: the disk is full at an instant that nobody has tried: not when the log grows, but when its index is written, a
//! checkpoint is made, or a recovery copies what can be kept. A signal ends the writer, records are lost, a log is left that nobody
//! can open, or what a failed attempt leaves takes the last of the space. On small file systems of the test's own, of which all
//! but a few KiB are taken, a few more each time. It needs root.
//!
//! The long run: `cargo test --release --test full_disk_steps -- --ignored`.

#[path = "support/forge_files.rs"]
mod forge;
mod support;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::time::Duration;

use immuta::{Durability, Error, Writer, WriterOptions};
use support::content::payload;
use support::mount::Mount;
use support::{Log, drain, encode, is_root, skip};

const KIB: u64 = 1 << 10;
const MODES: [Durability; 3] =
    [Durability::Buffered, Durability::Interval(Duration::from_millis(10)), Durability::Sync];

/// A small tmpfs and a small ext4; the latter where it can be had.
fn disks() -> Vec<Mount> {
    let ext4 = Mount::ext4(16 << 20);
    if ext4.is_none() {
        skip("no ext4 in a file can be mounted here");
    }
    [Some(Mount::tmpfs(8 << 20)), ext4].into_iter().flatten().collect()
}

/// With so many KiB the log's first step takes all, and the index finds nothing while the log goes on.
const FIRST_STEP: RangeInclusive<u64> = 64..=76;

/// What there was no room for, and how often.
#[derive(Default)]
struct Met(RefCell<BTreeMap<&'static str, u32>>);

impl Met {
    #[track_caller]
    fn full(&self, error: &Error, what: &str) {
        let Error::Io { source, action, .. } = error else { panic!("{what}: {error}") };
        assert_eq!(source.raw_os_error(), Some(libc::ENOSPC), "{what}: {error}");
        self.count(action);
    }

    fn count(&self, case: &'static str) {
        *self.0.borrow_mut().entry(case).or_default() += 1;
    }

    /// Tests of a full disk prove nothing of what found its room.
    fn has_all(&self, cases: &[&str]) {
        let met = self.0.borrow();
        println!("no room: {met:?}");
        cases.iter().for_each(|case| assert!(met.contains_key(case), "never met: {case}; {met:?}"));
    }
}

fn options(log: &Log, durability: Durability, mapped: bool) -> WriterOptions {
    let mut options = log.writer_options();
    options.durability(durability).mapped(mapped).window(2 << 20);
    options
}

/// What is beside the log, but for the index.
fn leftovers(log: &Log) -> Vec<String> {
    let names = std::fs::read_dir(log.path.parent().unwrap()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("events.log.") && name != "events.log.idx").collect()
}

fn append_until_full(writer: &mut Writer, records: &mut Vec<Vec<u8>>, short: u64, met: &Met, what: &str) {
    loop {
        let next = records.len() as u64;
        let n = if next.is_multiple_of(5) { 3 } else { 1 };
        // Many short ones that are flushed, so that the index grows on space that the log has in reserve; then longer ones.
        let is_short = next < short;
        let size = if is_short { 20 } else { 3000 };
        let record = |sequence| [payload(7, sequence, 3 * size as u64), vec![1; size]].concat();
        let more: Vec<_> = (next..next + n).map(record).collect();
        let mut batch = writer.batch();
        let result = more.iter().try_for_each(|payload| batch.append(payload).map(drop));
        match result.and_then(|()| batch.commit()) {
            Ok(_) => records.extend(more),
            Err(error) => return met.full(&error, what),
        }
        if is_short || next.is_multiple_of(4) {
            writer.sync().unwrap_or_else(|error| panic!("{what}: a flush of what has its space: {error}"));
        }
    }
}

/// A log from its first record on, on a disk with `free` bytes.
fn live(mount: &Mount, met: &Met, durability: Durability, mapped: bool, free: u64) {
    let what = format!("{durability:?}, mapped {mapped}, {free} bytes free");
    let log = Log::at(mount.dir.join("events.log"));
    let options = options(&log, durability, mapped);
    let filler = mount.fill_but(free);
    let mut records = Vec::new();
    match options.open(&log.path) {
        Err(error) => met.full(&error, &what),
        Ok(mut writer) => {
            let short = if FIRST_STEP.contains(&(free / KIB)) || (free / KIB / 4).is_multiple_of(2) { 70 } else { 0 };
            append_until_full(&mut writer, &mut records, short, met, &what);
            if !log.path.with_extension("log.idx").exists() {
                met.count("the index of a writer");
            }
            assert!(drain(&mut log.reader().tail(0).unwrap()) == records, "{what}: live");
            if (free / KIB / 24).is_multiple_of(2) {
                // Closed on the full disk, and opened there.
                writer.close().unwrap_or_else(|error| panic!("{what}: a close: {error}"));
                assert!(log.bytes() == encode(&records), "{what}: after a close");
                match options.open(&log.path) {
                    Ok(again) => {
                        assert_eq!(again.stat().unwrap().records, records.len() as u64, "{what}");
                        if !again.notices().is_empty() {
                            met.count("the index of a log that is opened");
                        }
                    }
                    Err(error) => met.full(&error, &what),
                }
                assert!(log.parse() == records, "{what}: opened again");
            } else {
                mount.give_back(&filler);
                writer.append(b"there is room").unwrap_or_else(|error| panic!("{what}: {error}"));
                records.push(b"there is room".to_vec());
                writer.close().unwrap_or_else(|error| panic!("{what}: a close: {error}"));
                assert!(log.bytes() == encode(&records), "{what}: after a close");
            }
        }
    }
    assert_eq!(leftovers(&log), [""; 0], "{what}: what is left of an attempt that failed");
    mount.give_back(&filler);
    goes_on(&options, &log, &records, &what);
}

/// There is room: the log is opened, appended to and sound, with an index.
fn goes_on(options: &WriterOptions, log: &Log, records: &[Vec<u8>], what: &str) {
    let mut writer = options.open(&log.path).unwrap_or_else(|error| panic!("{what}: with room again: {error}"));
    assert!(log.parse() == records, "{what}: with room again");
    writer.append(b"one more").unwrap();
    writer.close().unwrap();
    let report = log.reader().verify(|_| true).unwrap();
    assert_eq!((report.records, report.problem.is_none()), (records.len() as u64 + 1, true), "{what}");
    assert_eq!(report.index, immuta::IndexState::Ok, "{what}");
    for name in std::fs::read_dir(log.path.parent().unwrap()).unwrap() {
        let path = name.unwrap().path();
        if path.is_file() {
            std::fs::remove_file(path).unwrap();
        }
    }
}

/// What a power cut has left: 40 records that are proven, and 20 counted ones of which some bytes are zeros.
struct Crash {
    log: Vec<u8>,
    index: Vec<u8>,
    records: Vec<Vec<u8>>,
    lost: Range<usize>,
}

impl Crash {
    fn new() -> Crash {
        let log = Log::new();
        let records: Vec<_> = (0..60).map(|sequence| [payload(3, sequence, 9000), vec![2; 500]].concat()).collect();
        let mut writer = log.writer_options().durability(Durability::Buffered).open(&log.path).unwrap();
        for (n, record) in records.iter().enumerate() {
            writer.append(record).unwrap();
            if n == 39 {
                writer.sync().unwrap();
            }
        }
        let index = std::fs::read(log.path.with_extension("log.idx")).unwrap();
        let mut bytes = log.bytes();
        let lost_at = support::positions(&records)[40] as usize;
        bytes[lost_at + 100..lost_at + 200].fill(0);
        let lost = lost_at..support::positions(&records)[60] as usize;
        Crash { log: bytes, index, records: records[..40].to_vec(), lost }
    }

    fn write(&self, path: &Path) {
        std::fs::write(path, &self.log).unwrap();
        let mut index = self.index.clone();
        forge::rename_log(&mut index, forge::identity(path).unwrap());
        forge::reboot(&mut index);
        std::fs::write(path.with_extension("log.idx"), index).unwrap();
    }
}

/// A recovery that has to copy, on a disk with `free` bytes.
fn recovery(mount: &Mount, met: &Met, crash: &Crash, durability: Durability, mapped: bool, free: u64) {
    let what = format!("recovery, {durability:?}, mapped {mapped}, {free} bytes free");
    let log = Log::at(mount.dir.join("events.log"));
    crash.write(&log.path);
    let filler = mount.fill_but(free);
    let options = options(&log, durability, mapped);
    match options.open(&log.path) {
        Ok(writer) => drop(writer),
        Err(error) => met.full(&error, &what),
    }
    let left = leftovers(&log);
    let set_aside = left.iter().filter(|name| name.starts_with("events.log.lost-")).count();
    if log.bytes() == crash.log {
        assert_eq!(left.len(), set_aside, "{what}: an attempt that failed takes no space: {left:?}");
    } else {
        assert!(log.parse() == crash.records, "{what}: what is kept");
        assert_eq!(set_aside, 1, "{what}");
    }
    mount.give_back(&filler);
    drop(options.open(&log.path).unwrap_or_else(|error| panic!("{what}: with room again: {error}")));
    let left = leftovers(&log);
    let [side] = &left[..] else { panic!("{what}: one side file, and nothing else, but: {left:?}") };
    let lost = std::fs::read(log.path.with_file_name(side)).unwrap();
    assert!(lost == crash.log[crash.lost.clone()], "{what}: the side file");
    goes_on(&options, &log, &crash.records, &what);
}

fn on_each(steps: &[u64], all: bool, cases: &[&str], test: impl Fn(&Mount, &Met, Durability, bool, u64)) {
    if !is_root() {
        return;
    }
    for mount in disks() {
        let met = Met::default();
        for (n, free) in steps.iter().enumerate() {
            for (m, durability) in MODES.iter().enumerate() {
                for mapped in [true, false] {
                    if all || FIRST_STEP.contains(free) || (n + n / 6) % 6 == 2 * m + usize::from(mapped) {
                        test(&mount, &met, *durability, mapped, free * KIB);
                    }
                }
            }
        }
        met.has_all(cases);
    }
}

const LIVE: &[&str] = &["reserve space in the log", "write to the log", "the index of a writer"];
const RECOVERY: &[&str] = &["copy what can be kept of", "set aside what cannot be kept of"];

/// In KiB: each page around the first steps of growth, then some of the larger ones.
fn smoke() -> Vec<u64> {
    (0..30).map(|n| n * 4).chain((0..12).map(|n| 124 + n * 52)).collect()
}

fn every_page() -> Vec<u64> {
    (0..800).map(|n| n * 4).collect()
}

#[test]
fn a_log_that_meets_a_full_disk_at_each_step() {
    on_each(&smoke(), false, LIVE, live);
}

#[test]
fn a_recovery_that_meets_a_full_disk_at_each_step() {
    let crash = Crash::new();
    on_each(&smoke(), false, RECOVERY, |mount, met, durability, mapped, free| {
        recovery(mount, met, &crash, durability, mapped, free)
    });
}

#[test]
#[ignore = "takes half an hour: each page of 3 MiB, in all modes"]
fn every_page_that_may_be_missing() {
    let crash = Crash::new();
    on_each(&every_page(), true, &[LIVE, RECOVERY].concat(), |mount, met, durability, mapped, free| {
        live(mount, met, durability, mapped, free);
        recovery(mount, met, &crash, durability, mapped, free);
    });
}
