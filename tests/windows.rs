//! The injury: everything goes well until a log outgrows its mapping, a record is larger than it, or a program has more writers
//! than it has threads to spare.

mod support;

use immuta::{Error, ReadMode, Reader};
use support::content::{Random, fill};
use support::process::Helper;
use support::{Log, encode, next, rounds, take};

const MIB: u64 = 1 << 20;

fn bytes(size: u64, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size as usize];
    fill(&mut bytes, seed);
    bytes
}

fn readers(log: &Log) -> impl Iterator<Item = Reader> {
    [ReadMode::Auto, ReadMode::Mapped, ReadMode::Pread]
        .into_iter()
        .map(|mode| log.reader_options().read_mode(mode).window(4 * MIB).open(&log.path).unwrap())
}

#[test]
fn a_log_outgrows_its_window_many_times() {
    let log = Log::new();
    let mut writer = log.writer_options().window(4 * MIB).open(&log.path).unwrap();
    let mut live: Vec<_> = readers(&log).map(|reader| reader.tail(0).unwrap()).collect();
    let mut random = Random(1);
    let mut records = Vec::new();
    let mut size = 0;
    while size < rounds(60, 300) * MIB {
        let record = bytes(random.below(100_000), random.next());
        size += record.len() as u64;
        writer.append(&record).unwrap();
        for tailer in &mut live {
            assert!(next(tailer).payload() == record, "record {}", records.len());
        }
        records.push(record);
    }
    for reader in readers(&log) {
        assert!(take(&mut reader.tail(0).unwrap(), records.len()) == records);
    }
    writer.close().unwrap();
    assert!(log.bytes() == encode(&records));
}

#[test]
fn a_record_may_be_larger_than_the_window() {
    let log = Log::new();
    let mut writer = log.writer_options().window(4 * MIB).open(&log.path).unwrap();
    let mut live: Vec<_> = readers(&log).map(|reader| reader.tail(0).unwrap()).collect();
    let sizes = [10, 5 * MIB, 0, 4 * MIB - 8, 4 * MIB, 9 * MIB + 1, 3, 64 * MIB, 1];
    let mut records = Vec::new();
    for (n, size) in sizes.into_iter().enumerate() {
        let record = bytes(size, n as u64);
        match n % 3 {
            0 => drop(writer.append_from(&record[..]).unwrap().sequence),
            1 => drop(writer.append(&record).unwrap().sequence),
            _ => {
                let mut claim = writer.claim(size).unwrap();
                assert!(claim.iter().all(|byte| *byte == 0));
                claim.copy_from_slice(&record);
                claim.commit().unwrap();
            }
        }
        for tailer in &mut live {
            assert!(next(tailer).payload() == record, "{size} bytes");
        }
        records.push(record);
    }
    for reader in readers(&log) {
        for (n, record) in records.iter().enumerate() {
            assert!(reader.get(n as u64).unwrap().as_ref() == Some(record), "get({n})");
        }
    }
    writer.close().unwrap();
    assert!(log.bytes() == encode(&records));
}

#[test]
fn a_batch_may_be_larger_than_the_window() {
    let log = Log::new();
    let mut writer = log.writer_options().window(4 * MIB).open(&log.path).unwrap();
    let record = bytes(300_000, 5);
    for commit in [false, true] {
        let mut batch = writer.batch();
        for _ in 0..100 {
            batch.append(&record).unwrap();
        }
        assert!(log.reader().tail(0).unwrap().try_next().unwrap().is_none(), "nothing of a batch is visible early");
        if commit {
            assert_eq!(batch.commit().unwrap(), 0..100);
        }
    }
    writer.close().unwrap();
    assert!(log.bytes() == encode(&vec![record; 100]));
}

#[test]
fn a_reader_takes_no_record_beyond_its_limit() {
    // One that lies in the same step of reading as the record before it, and one that is larger than any step.
    for size in [1001, MIB] {
        let log = Log::new();
        let mut writer = log.writer();
        writer.append(&bytes(1000, 1)).unwrap();
        writer.append(&bytes(size, 2)).unwrap();
        (0..100).for_each(|n| assert_eq!(writer.append(&bytes(1000, n)).unwrap().sequence, n + 2));
        for mode in [ReadMode::Auto, ReadMode::Mapped, ReadMode::Pread] {
            let reader = log.reader_options().read_mode(mode).max_record(1000).open(&log.path).unwrap();
            let mut tailer = reader.tail(0).unwrap();
            assert_eq!(next(&mut tailer).payload().len(), 1000);
            for _ in 0..2 {
                match tailer.try_next() {
                    Err(immuta::Error::TooLarge { sequence: 1, size: told, max: 1000, .. }) => assert_eq!(told, size),
                    other => panic!("{mode:?}: {other:?}"),
                }
            }
            assert!(matches!(reader.get(1), Err(immuta::Error::TooLarge { sequence: 1, .. })));
            assert_eq!(reader.get(0).unwrap().unwrap().len(), 1000);
        }
    }
}

#[test]
fn a_thousand_writers_in_one_process_have_one_helper_thread() {
    let log = Log::new();
    let mut helper = Helper::start("thousand", &log, "writers=1000");
    let said = helper.numbers("threads");
    assert_eq!(said, [2, 3000, 0], "threads, records, notices");
    helper.hush();
    helper.expect("closed");
    helper.succeeds();
    let dir = format!("{}.d", log.path.display());
    for n in 0..1000 {
        assert_eq!(std::fs::read(format!("{dir}/{n}")).unwrap(), encode(&[b"0", b"1", b"2"]));
    }
    assert_eq!(std::fs::read_dir(&log.control).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn sizes_beyond_all_measure() {
    let log = Log::new();
    let mut writer = log.writer_options().window(u64::MAX).open(&log.path).unwrap();
    let reader = log.reader_options().window(u64::MAX).read_mode(ReadMode::Mapped).open(&log.path).unwrap();
    writer.append(b"fits").unwrap();
    assert_eq!(next(&mut reader.tail(0).unwrap()).payload(), b"fits");
    writer.close().unwrap();
    for reserve in [u64::MAX, u64::MAX - 20, u64::MAX - 21, i64::MAX as u64, 1 << 62] {
        for mapped in [true, false] {
            match log.writer_options().reserve(reserve).mapped(mapped).open(&log.path) {
                Err(immuta::Error::Io { source, .. }) if mapped => {
                    // The last is no file size on ext4, and no free space on tmpfs.
                    let too_large = [libc::EFBIG, if reserve == 1 << 62 { libc::ENOSPC } else { libc::EFBIG }];
                    assert!(
                        source.raw_os_error().is_some_and(|error| too_large.contains(&error)),
                        "{reserve}: {source}"
                    );
                }
                // What is written with system calls reserves nothing.
                Ok(_) if !mapped => {}
                other => panic!("{reserve}, mapped={mapped}: {other:?}"),
            }
        }
    }
    assert_eq!(log.bytes(), encode(&[b"fits"]));
}

#[test]
fn a_record_that_is_passed_over_may_be_of_any_size() {
    for large in [100, 20_000, MIB] {
        for (mode, page) in [ReadMode::Auto, ReadMode::Mapped, ReadMode::Pread]
            .into_iter()
            .flat_map(|mode| [(mode, true), (mode, false)])
        {
            let log = Log::new();
            let mut options = log.writer_options();
            if !page {
                options.control_dir("/nonexistent");
            }
            let mut writer = options.open(&log.path).unwrap();
            let reader = log.reader_options().read_mode(mode).max_record(10).open(&log.path).unwrap();
            // Where there is nothing yet, it passes over what comes.
            let mut tailer = reader.tail(immuta::Start::Sequence(3)).unwrap();
            for payload in [bytes(5, 1), bytes(large, 2), bytes(0, 3), bytes(7, 4), bytes(large, 5)] {
                writer.append(&payload).unwrap();
            }
            let record = next(&mut tailer);
            assert_eq!((record.sequence(), record.payload()), (3, &bytes(7, 4)[..]), "{mode:?}, page={page}");
            assert!(matches!(tailer.try_next(), Err(immuta::Error::TooLarge { sequence: 4, .. })));
        }
    }
}

/// A follower that reads through a mapping is ended by SIGBUS where the file has been cut; one that is far behind must not be.
#[test]
fn what_somebody_cuts_from_a_live_log_is_an_error_to_who_is_far_behind() {
    for cut in [MIB, MIB + 5] {
        let log = Log::new();
        let mut holder = Helper::start("hold", &log, "records=100000");
        holder.expect("holding");
        // It would touch what is cut, and be ended itself.
        holder.signal(nix::sys::signal::Signal::SIGSTOP);
        let tailers = [ReadMode::Auto, ReadMode::Pread].map(|mode| {
            let mut tailer = log.reader_options().read_mode(mode).open(&log.path).unwrap().tail(0).unwrap();
            assert_eq!(next(&mut tailer).payload(), b"record 0", "it knows how much there was");
            (mode, tailer)
        });
        std::fs::OpenOptions::new().write(true).open(&log.path).unwrap().set_len(cut).unwrap();
        for (mode, mut tailer) in tailers {
            let (mut position, mut records) = (24, 1);
            let error = loop {
                match tailer.try_next() {
                    Ok(Some(record)) => {
                        assert_eq!(record.payload(), format!("record {records}").as_bytes());
                        records += 1;
                        position = record.position() + 8 + record.payload().len() as u64;
                    }
                    Ok(None) => panic!("{mode:?}, {cut}: all of {records} records"),
                    Err(error) => break error,
                }
            };
            match error {
                Error::Damaged { path, sequence: Some(sequence), position: told, .. } => {
                    assert_eq!((path, sequence, told), (log.path.clone(), records, position), "{mode:?}, {cut}");
                }
                other => panic!("{mode:?}, {cut}: {other:?}"),
            }
            assert!(position <= cut && position + 30 > cut, "{mode:?}, {cut}: all up to {position}");
        }
        holder.kill();
    }
}

/// How much of a file this process has in its memory by mappings, in bytes.
fn resident(path: &std::path::Path) -> u64 {
    let (path, mut is_its, mut bytes) = (path.to_str().unwrap(), false, 0);
    for line in std::fs::read_to_string("/proc/self/smaps").unwrap().lines() {
        match line.split_once(':') {
            Some(("Rss", size)) if is_its => bytes += size.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10,
            _ if line.contains('/') || line.contains('-') => is_its = line.ends_with(path),
            _ => {}
        }
    }
    bytes
}

/// A follower that reads gigabytes of large records would hold all of them, as the system counts, as long as it lives; or, where what it
/// gives back ends within a page, that page of each.
#[test]
fn what_a_tailer_has_passed_is_not_its_memory() {
    use std::os::unix::fs::FileExt;
    for (size, count) in [(3u64 << 20, 40u64), (300 << 10, 800)] {
        let log = Log::new();
        let file = std::fs::File::create(&log.path).unwrap();
        file.set_len(8 + count * (8 + size)).unwrap();
        (0..count).for_each(|n| file.write_all_at(&size.to_le_bytes(), 8 + n * (8 + size)).unwrap());
        file.write_all_at(&count.to_le_bytes(), 0).unwrap();
        let (mut tailer, mut most) = (log.reader().tail(0).unwrap(), [0, 0]);
        while let Some(record) = tailer.try_next().unwrap() {
            assert_eq!(record.payload().iter().map(|byte| u64::from(*byte)).sum::<u64>(), 0);
            let half = &mut most[usize::from(record.sequence() >= count / 2)];
            *half = (*half).max(resident(&log.path));
        }
        assert_eq!(tailer.sequence(), count);
        assert!(most[0] >= size, "the mapping was used: {most:?}");
        // The last record, a MiB or so, and what the kernel maps around.
        assert!(most[1] <= 2 * size + (2 << 20), "{most:?} bytes of the two halves are still there");
        assert!(most[1] <= most[0] + (200 << 10), "it grows: {most:?}");
    }
}

/// The same of a follower that is behind a writer that lives, and reads through the mapping in steps: not more than what it has passed of a
/// large page and two steps, whatever the kernel maps around them; and nothing of it once it has caught up and sleeps.
#[test]
fn a_tailer_that_is_far_behind_holds_little_and_nothing_once_it_has_caught_up() {
    for size in [64, 100 << 10] {
        let log = Log::new();
        let mut holder = Helper::start("hold", &log, &format!("records={} size={size}", (48 << 20) / (size + 8)));
        let count = holder.numbers("holding")[0];
        let (mut tailer, mut most) = (log.reader().tail(0).unwrap(), 0);
        for n in 0..count {
            let record = tailer.try_next().unwrap().unwrap();
            assert_eq!((record.sequence(), record.payload().len() as u64), (n, size));
            if n % (count / 97) == 0 {
                most = most.max(resident(&log.path));
            }
        }
        assert!(most > 0, "the mapping was used");
        assert!(most <= 6 << 20, "{most} bytes, in records of {size}");
        let nothing = tailer.next_timeout(std::time::Duration::from_millis(50));
        assert!(matches!(nothing, Err(Error::TimedOut { .. })));
        let left = resident(&log.path);
        assert!(left <= 64 << 10, "{left} of {most} bytes are still there, in records of {size}");
        holder.kill();
    }
}
