//! The injury: bytes that nobody thought of, in a log, its index, its control page or its doorbell, make something panic, hang, ask for
//! all memory, touch what is not there, change what it only looks at, or hand out a record that is not in the log. Bytes are changed at
//! random, from a seed, and everything is run against the naive parser.
//!
//! The long run, of a million rounds or of as many as are asked for, from another seed each time or from the one that is given:
//!
//!     IMMUTA_FUZZ_ROUNDS=100000 cargo test --release --test fuzz -- --ignored --nocapture
//!     IMMUTA_FUZZ_SEED=1234 IMMUTA_FUZZ_ROUNDS=1 cargo test --release --test fuzz -- --ignored --nocapture
//!
//! The seed of the round that is being run is in target/tmp/fuzz_seed, also when a signal ends the process.
//!
//! Checksums are no signatures: an entry of the index whose checksum was made to fit, and a control page, which has none, are believed
//! where they are possible at all. With those, what is handed out may be wrong; nothing else may be.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use immuta::{Durability, Error, Evidence, ReadMode, Start};
use support::content::{Random, payload};
use support::forge::{ENTRY, Image, index_path, put_page, seal};
use support::process::Helper;
use support::{Log, bounded, checked_parse, encode, rounds, take, until};

/// The largest request for memory since it was last looked at.
static LARGEST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: everything is handed on to the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is changed: a log and its index as a close or a crash leaves them, and the page of a writer that was killed.
struct Seeds {
    images: Vec<Image>,
    page: Vec<u8>,
    bell: Vec<u8>,
}

fn in_memory() -> Log {
    Log::within(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
}

impl Seeds {
    fn new() -> Seeds {
        let (mut images, mut pages) = (Vec::new(), Vec::new());
        for records in [0, 3, 260] {
            let log = in_memory();
            let mut writer = log.writer_options().durability(Durability::Buffered).open(&log.path).unwrap();
            for sequence in 0..records {
                writer.append(&payload(5, sequence, sequence % 7 * 4)).unwrap();
                if sequence == records / 2 {
                    writer.sync().unwrap();
                }
            }
            until("all is covered", || records == 0 || Image::take(&log).entries().last().unwrap().end().0 == records);
            images.push(Image::take(&log));
            images.push(Image::take(&log).of_another_boot());
            pages = vec![std::fs::read(log.page()).unwrap(), std::fs::read(log.bell()).unwrap()];
            writer.close().unwrap();
            images.push(Image::take(&log));
        }
        let bell = pages.pop().unwrap();
        // Most of what a writer reserves serves nothing here.
        images.iter_mut().for_each(|image| image.log.truncate(image.log.len().min(12_000)));
        Seeds { images, page: pages.pop().unwrap(), bell }
    }
}

/// Changes a few bytes, in one of some ways.
fn spoil(bytes: &mut Vec<u8>, random: &mut Random) {
    let len = bytes.len() as u64;
    if len < 16 {
        return bytes.push(random.next() as u8);
    }
    // Where it is denser: the beginning, and the fields on multiples of eight.
    let at = match random.below(4) {
        0 => random.below(16),
        1 => random.below(len / 8) * 8,
        _ => random.below(len),
    } as usize;
    let number = match random.below(6) {
        0 => u64::MAX,
        1 => 1 << random.below(64),
        2 => i64::MAX as u64 - random.below(16),
        3 => random.next(),
        _ => random.below(600),
    };
    match random.below(7) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.next() as u8,
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..(at + 1 + random.below(70) as usize).min(len as usize))),
        4 => bytes.extend_from_within(..at.min(200)),
        5 => bytes[at..].iter_mut().take(64).for_each(|byte| *byte = 0),
        _ if at + 8 <= len as usize => bytes[at..at + 8].copy_from_slice(&number.to_le_bytes()),
        _ => {}
    }
}

/// An error names the log, and the place where it is damaged.
#[track_caller]
fn is_told(error: &Error, log: &Log) {
    assert_eq!(error.path(), log.path, "{error}");
    match error {
        Error::Damaged { .. } | Error::TooLarge { .. } => assert!(error.position().is_some(), "{error}"),
        Error::Replaced { .. } | Error::NoTimes { .. } | Error::DurableUnknown { .. } | Error::Io { .. } => {}
        other => panic!("{other}"),
    }
}

/// One round. `believed`: what no checksum covers was changed.
fn round(seeds: &Seeds, seed: u64) {
    let mut random = Random(seed);
    let log = in_memory();
    let image = &seeds.images[random.below(seeds.images.len() as u64) as usize];
    image.put(&log);
    let (mut bytes, mut index) = (log.bytes(), std::fs::read(index_path(&log)).unwrap());
    let mut believed = false;
    for _ in 0..random.below(3) {
        spoil(&mut bytes, &mut random);
    }
    for _ in 0..random.below(3) {
        spoil(&mut index, &mut random);
    }
    if random.below(4) == 0 && index.len() >= ENTRY {
        believed = true;
        index.chunks_exact_mut(ENTRY).for_each(seal);
    }
    std::fs::write(&log.path, &bytes).unwrap();
    std::fs::write(index_path(&log), &index).unwrap();
    if random.below(3) == 0 {
        let (mut page, mut bell) = (seeds.page.clone(), seeds.bell.clone());
        believed = true;
        put_page(&log, &page, &bell);
        page = std::fs::read(log.page()).unwrap();
        (0..random.below(4)).for_each(|_| spoil(&mut page, &mut random));
        (0..random.below(2)).for_each(|_| spoil(&mut bell, &mut random));
        std::fs::write(log.page(), page).unwrap();
        std::fs::write(log.bell(), bell).unwrap();
    }
    LARGEST.store(0, Ordering::Relaxed);
    read(&log, &image.log, &bytes, believed, &mut random);
    assert!(log.bytes() == bytes, "reading changes no byte of the log");
    assert!(std::fs::read(index_path(&log)).unwrap() == index, "reading changes no byte of the index");
    write(&log, &bytes, believed);
    let largest = LARGEST.load(Ordering::Relaxed);
    assert!(largest <= 4 << 20, "{largest} bytes of memory at once, for a log of {}", bytes.len());
}

/// `sound` is what `bytes` were before they were changed.
fn read(log: &Log, sound: &[u8], bytes: &[u8], believed: bool, random: &mut Random) {
    let parsed = checked_parse(bytes);
    let (records, whole) = parsed.clone().unwrap_or_default();
    // Behind damage a walk may be out of step, and the index not: then it finds what was there before.
    let (before, _) = checked_parse(sound).unwrap();
    let is_in_the_log = |n: usize, payload: &[u8]| {
        // A count that was raised covers what the naive parser, out of step, does not find either.
        [records.get(n), before.get(n)].contains(&Some(&payload)) || (!whole && n >= before.len())
    };
    for mode in [ReadMode::Auto, ReadMode::Mapped, ReadMode::Pread] {
        let reader = match log.reader_options().read_mode(mode).open(&log.path) {
            Ok(reader) => reader,
            Err(error) => {
                assert!(parsed.is_none(), "{error}");
                is_told(&error, log);
                continue;
            }
        };
        let some = random.below(records.len() as u64 + 3);
        let hour_ago = std::time::SystemTime::now() - Duration::from_secs(random.below(7200));
        for start in [Start::Beginning, Start::End, Start::Last(some), Start::Sequence(some), Start::Time(hour_ago)] {
            let mut tailer = match reader.tail(start) {
                Ok(tailer) => tailer,
                Err(error) => {
                    assert!(!whole || believed || matches!(error, Error::NoTimes { .. }), "{start:?}: {error}");
                    is_told(&error, log);
                    continue;
                }
            };
            // Page or no page, there is an end.
            for _ in 0..records.len() + 2000 {
                match tailer.try_next() {
                    Ok(Some(record)) if !believed => {
                        let n = record.sequence() as usize;
                        assert!(is_in_the_log(n, record.payload()), "{start:?}: record {n} is not in the log");
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        assert!(!whole || believed, "{start:?}: {error}");
                        is_told(&error, log);
                        break;
                    }
                }
            }
            let _ = tailer.next_timeout(Duration::from_micros(100));
        }
        for n in [some, 0, u64::MAX] {
            match reader.get(n) {
                Ok(Some(payload)) => assert!(believed || is_in_the_log(n as usize, &payload), "get({n})"),
                Ok(None) => assert!(believed || records.get(n as usize).is_none(), "get({n})"),
                Err(error) => is_told(&error, log),
            }
        }
        let _ = reader.stat().map_err(|error| is_told(&error, log));
        let _ = reader.writer().map_err(|error| is_told(&error, log));
        let _ =
            log.reader_options().durable(true).open(&log.path).unwrap().tail(0).map_err(|error| is_told(&error, log));
    }
    if let Ok(reader) = log.reader_options().open(&log.path) {
        let verified = reader.verify(|_| true).unwrap();
        assert!(whole || verified.problem.is_some(), "{verified:?}");
        assert!(verified.records <= records.len() as u64);
    }
}

/// What is left is a log whose records are the first of those that the naive parser finds.
#[track_caller]
fn is_prefix(log: &Log, bytes: &[u8]) {
    let mut bytes = bytes.to_vec();
    if checked_parse(&bytes).is_none() {
        // Of a count that cannot be, as many as there are.
        bytes.resize(bytes.len().max(8), 0);
        let most = (bytes.len() as u64 - 8) / 8;
        bytes[..8].copy_from_slice(&most.to_le_bytes());
    }
    let (records, _) = checked_parse(&bytes).unwrap();
    let left = log.parse();
    let alike = left.iter().zip(&records).take_while(|(left, record)| left == record).count();
    assert!(alike == left.len(), "{alike} of {} records that are left are the first of {}", left.len(), records.len());
    assert!(log.bytes() == encode(&left), "a clean close leaves an exact file");
}

fn write(log: &Log, bytes: &[u8], believed: bool) {
    match log.writer_options().open(&log.path) {
        Ok(writer) => {
            let recovery = writer.stat().unwrap().recovery.unwrap();
            writer.close().unwrap();
            if believed {
                return;
            }
            let left = log.bytes();
            if checked_parse(&left).is_some_and(|(_, whole)| whole) {
                is_prefix(log, bytes);
                return;
            }
            // After a close, or the crash of a process, a writer looks at the last block, and at what is not covered. The rest is for
            // `verify`, which finds it.
            assert!(matches!(recovery.evidence, Evidence::Closed | Evidence::ProcessCrash), "{recovery:?}");
            assert!(bytes.starts_with(&left), "the damage is as it was");
            assert!(log.reader().verify(|_| true).unwrap().problem.is_some());
        }
        Err(error) => {
            is_told(&error, log);
            assert!(log.bytes() == bytes, "a log that is refused stays as it is");
            log.writer_options().repair(&log.path, true).unwrap();
            assert!(log.bytes() == bytes, "a dry run changes nothing");
            let repair = log.writer_options().repair(&log.path, false).unwrap();
            assert!(checked_parse(&log.bytes()).is_some_and(|(_, whole)| whole), "{error}; {repair:?}");
            assert_eq!(repair.records, log.parse().len() as u64);
            is_prefix(log, bytes);
            assert_eq!(log.reader().verify(|_| true).unwrap().problem, None);
        }
    }
}

/// The page and the doorbell of a writer that is at it. Only through descriptors: its owner may do with its page as it likes, and an end that
/// lies beyond the file ends whoever reads through a mapping.
fn live_round(seeds: &Seeds, seed: u64) {
    let mut random = Random(seed);
    let log = in_memory();
    let mut writer = log.writer();
    let mut model = vec![b"first".to_vec()];
    writer.append(b"first").unwrap();
    let mut tailers: Vec<_> = (0..2)
        .filter_map(|_| {
            log.reader_options().read_mode(ReadMode::Pread).max_record(1 << 16).open(&log.path).unwrap().tail(0).ok()
        })
        .collect();
    for n in 0..6u8 {
        for name in [log.page(), log.bell()] {
            let mut bytes = std::fs::read(&name).unwrap_or_else(|_| seeds.bell.clone());
            let len = bytes.len();
            spoil(&mut bytes, &mut random);
            bytes.resize(len, 0);
            // In place, where the writer has it mapped.
            std::os::unix::fs::FileExt::write_all_at(
                &std::fs::OpenOptions::new().write(true).open(&name).unwrap(),
                &bytes,
                0,
            )
            .unwrap();
        }
        writer.append(&[n; 20]).unwrap();
        model.push(vec![n; 20]);
        let late = log.reader_options().read_mode(ReadMode::Pread).max_record(1 << 16).open(&log.path).unwrap();
        tailers.extend(late.tail(Start::Last(2)).map_err(|error| is_told(&error, &log)).ok());
        for tailer in &mut tailers {
            for _ in 0..50 {
                if !matches!(tailer.try_next(), Ok(Some(_))) {
                    break;
                }
            }
            let _ = tailer.next_timeout(Duration::from_micros(100));
        }
        let _ = late.stat().map_err(|error| is_told(&error, &log));
        let _ = late.writer();
        assert_eq!(late.verify(|_| true).unwrap().problem, None, "the file is what counts");
    }
    writer.close().unwrap();
    assert!(log.bytes() == encode(&model), "whatever its page says, the writer knows what it wrote");
}

/// Of a writer that was killed: it says nothing that the log contradicts, but for the one word that followers go by.
#[test]
fn a_page_whose_end_lies_beyond_the_file_is_not_followed() {
    for (at, end) in [(384, 1 << 40), (1536, 1 << 40), (384, u64::MAX)] {
        let log = Log::new();
        let mut killed = Helper::start("hold", &log, "records=3");
        killed.expect("holding");
        killed.kill();
        let mut page = std::fs::read(log.page()).unwrap();
        page[at..at + 8].copy_from_slice(&u64::to_le_bytes(end));
        std::fs::write(log.page(), page).unwrap();
        for mode in [ReadMode::Mapped, ReadMode::Auto, ReadMode::Pread] {
            let mut tailer = log.reader_options().read_mode(mode).open(&log.path).unwrap().tail(0).unwrap();
            assert_eq!(take(&mut tailer, 3).len(), 3);
            assert!(matches!(tailer.next_timeout(Duration::from_millis(300)), Err(Error::TimedOut { .. })), "{mode:?}");
        }
        let durable = log.reader_options().durable(true).open(&log.path).unwrap().tail(0);
        assert!(matches!(durable, Err(Error::DurableUnknown { .. })), "end {end} at {at}: {durable:?}");
    }
}

fn run(first: u64, most: u64, limit: Duration) -> u64 {
    let (seeds, begin) = (Seeds::new(), Instant::now());
    let note = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("fuzz_seed");
    let mut done = 0;
    while done < most && begin.elapsed() < limit {
        let seed = first + done;
        std::fs::write(&note, seed.to_string()).unwrap();
        if seed % 8 == 7 {
            live_round(&seeds, seed)
        } else {
            round(&seeds, seed)
        }
        done += 1;
    }
    done
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn a_smoke_run() {
    let done = bounded("a smoke run", || run(1, rounds(2_000, 20_000), Duration::from_secs(8)));
    assert!(done >= 20, "{done} rounds");
    println!("{done} rounds");
}

#[test]
#[ignore = "the long run, documented above"]
fn a_long_run() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let first = number("IMMUTA_FUZZ_SEED").unwrap_or(now.as_nanos() as u64 >> 8);
    println!("from seed {first}");
    println!("{} rounds", run(first, number("IMMUTA_FUZZ_ROUNDS").unwrap_or(1_000_000), Duration::MAX));
}
