//! The injury: an index that leads to another record than a walk would, or is missing, damaged or another log's and takes records with
//! it; that grows with every record; or that covers less than it could, so that a flipped bit is believed.

mod support;

use std::os::unix::fs::{MetadataExt, chown, symlink};
use std::time::{Duration, Instant};

use immuta::{Durability, IndexState, Notice, Reader, Start, Writer};
use support::content::{Random, payload};
use support::forge::{CLOSED, DURABLE, ENTRY, Entry, Image, entries, index_path};
use support::mount::Mount;
use support::{Log, encode, is_root, positions, until};

const KIB: u64 = 1 << 10;

fn records(n: u64) -> Vec<Vec<u8>> {
    (0..n).map(|sequence| payload(3, sequence, 100_000)).collect()
}

fn append(writer: &mut Writer, records: &[Vec<u8>]) {
    for record in records {
        writer.append(record).unwrap();
    }
}

/// A log with these records, written in three runs.
fn closed(records: &[Vec<u8>]) -> Log {
    let log = Log::new();
    for part in records.chunks(records.len() / 3 + 1) {
        let mut writer = log.writer();
        append(&mut writer, part);
        writer.close().unwrap();
    }
    log
}

/// All ways to a record lead to the same one, and to nothing beyond the last; for these sequences.
#[track_caller]
fn agrees(reader: &Reader, records: &[Vec<u8>], sequences: impl IntoIterator<Item = usize>) {
    let (count, positions) = (records.len(), positions(records));
    for n in sequences {
        assert_eq!(reader.get(n as u64).unwrap().as_ref(), records.get(n), "get({n})");
        for (start, first) in [
            (Start::Sequence(n as u64), n),
            (Start::Skip(n as u64), n),
            (Start::SkipAtMost(n as u64), n.min(count)),
            (Start::Last(n as u64), count - n.min(count)),
        ] {
            let mut tailer = reader.tail(start).unwrap();
            assert_eq!(tailer.sequence(), first as u64, "{start:?}");
            let found = tailer.try_next().unwrap().map(|record| (record.position(), record.payload().to_vec()));
            assert_eq!(found, records.get(first).map(|record| (positions[first], record.clone())), "{start:?}");
        }
    }
}

/// Some sequences of each part of the log, and some beyond it.
fn some(records: &[Vec<u8>]) -> Vec<usize> {
    let count = records.len();
    [0, 1, 199, 200, 201, 202, count / 2, count - 2, count - 1, count, count + 1]
        .into_iter()
        .chain((210..count).step_by(97))
        .collect()
}

#[test]
fn every_start_leads_where_a_walk_leads() {
    let all = records(450);
    let log = closed(&all);
    assert!(blocks(&log).len() > 4, "there is much to seek in: {:?}", blocks(&log));
    // Up to 200 no index is asked.
    agrees(&log.reader(), &all, (0..190).step_by(19).chain(190..=all.len() + 1));
    std::fs::remove_file(index_path(&log)).unwrap();
    agrees(&log.reader(), &all, (0..=all.len() + 1).step_by(7));
}

/// The index is behind the log, and moves.
#[test]
fn records_are_found_while_they_are_written() {
    let all = records(4000);
    let log = Log::new();
    let mut writer = log.writer();
    let reader = log.reader();
    std::thread::scope(|scope| {
        let write = scope.spawn(|| {
            append(&mut writer, &all);
            writer
        });
        let mut random = Random(1);
        while !write.is_finished() {
            let count = reader.stat().unwrap().records as usize;
            agrees_so_far(&reader, &all, random.below(count as u64 + 1) as usize, count);
        }
        drop(write.join().unwrap());
    });
    agrees(&reader, &all, some(&all));
}

fn agrees_so_far(reader: &Reader, all: &[Vec<u8>], n: usize, count: usize) {
    if n < count {
        assert_eq!(reader.get(n as u64).unwrap().as_ref(), Some(&all[n]));
        let mut tailer = reader.tail(Start::Sequence(n as u64)).unwrap();
        assert_eq!(tailer.try_next().unwrap().unwrap().payload(), all[n]);
    }
    let mut last = reader.tail(Start::Last(3)).unwrap();
    let first = last.sequence() as usize;
    assert!(first + 3 >= count);
    if first < all.len() && count > 0 {
        assert_eq!(last.try_next().unwrap().unwrap().payload(), all[first]);
    }
}

/// The blocks follow each other from the first byte on, and their times never fall.
fn blocks(log: &Log) -> Vec<Entry> {
    let all = entries(&std::fs::read(index_path(log)).unwrap());
    let (mut at, mut time) = ((0, 8), 0);
    for entry in &all {
        assert_eq!((entry.sequence, entry.position), at, "an entry begins where the one before it ends");
        assert!(entry.time_ns >= time, "times never fall");
        (at, time) = (entry.end(), entry.time_ns);
    }
    all.into_iter().filter(|entry| entry.records > 0).collect()
}

#[test]
fn the_index_of_a_busy_log_takes_less_than_two_in_a_thousand() {
    let log = Log::new();
    let begin = Instant::now();
    let mut writer = log.writer();
    for n in 0..(48u64 << 20) / 1024 {
        writer.append(&vec![n as u8; 1016]).unwrap();
    }
    writer.close().unwrap();
    let seconds = begin.elapsed().as_secs() as usize;
    let (log_bytes, index_bytes) = (log.bytes().len(), std::fs::metadata(index_path(&log)).unwrap().len() as usize);
    assert!(index_bytes * 1000 <= log_bytes * 2 + (seconds + 2) * ENTRY * 3 * 1000, "{index_bytes} of {log_bytes}");
    let blocks = blocks(&log);
    // Shorter ones end at a flush, at a second or at the close.
    let short = blocks.iter().filter(|block| block.length < 64 * KIB).count();
    assert!(short <= 3 * (seconds + 1), "{short} short blocks in {seconds} s");
    let long = blocks.iter().filter(|block| block.length > 65 * KIB).count();
    assert!(long <= blocks.len() / 50, "{long} of {} blocks are longer than 64 KiB", blocks.len());
    let verified = log.reader().verify(|_| true).unwrap();
    assert_eq!((verified.problem, verified.checked), (None, 48 << 10));
}

#[test]
fn a_slow_log_has_an_entry_a_second_one_at_each_checkpoint_and_one_at_the_close() {
    let log = Log::new();
    let mut writer = log.writer_options().durability(Durability::Buffered).open(&log.path).unwrap();
    let begin = Instant::now();
    let mut appended = 0;
    while begin.elapsed() < Duration::from_millis(3300) {
        writer.append(b"now and then").unwrap();
        appended += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    let seconds = blocks(&log).len();
    assert!((2..=begin.elapsed().as_secs() as usize + 1).contains(&seconds), "{seconds} entries");
    assert!(!Image::take(&log).entries().iter().any(|entry| entry.is(DURABLE)), "nothing was flushed");
    writer.sync().unwrap();
    let checkpoint = *Image::take(&log).entries().last().unwrap();
    assert!(checkpoint.is(DURABLE) && !checkpoint.is(CLOSED) && checkpoint.end().0 == appended);
    writer.append(b"the last").unwrap();
    writer.close().unwrap();
    let last = *Image::take(&log).entries().last().unwrap();
    assert!(last.is(DURABLE) && last.is(CLOSED) && last.end() == (appended + 1, log.bytes().len() as u64));
}

#[test]
fn while_a_writer_runs_only_the_last_block_is_uncovered() {
    let all = records(1000);
    let log = Log::new();
    let mut writer = log.writer_options().durability(Durability::Buffered).open(&log.path).unwrap();
    append(&mut writer, &all);
    let (reader, end) = (log.reader(), *positions(&all).last().unwrap());
    until("whole blocks are covered", || {
        let verified = reader.verify(|_| true).unwrap();
        assert_eq!((verified.problem, verified.records, verified.index), (None, 1000, IndexState::Ok));
        end - positions(&all)[verified.checked as usize] < 64 * KIB + 100_008
    });
    until("a second later the rest is, too", || reader.verify(|_| true).unwrap().checked == 1000);
    writer.append(b"the last").unwrap();
    writer.close().unwrap();
    assert_eq!(reader.verify(|_| true).unwrap().checked, 1001, "a close covers all");
}

/// Readers find every record by a walk; the next writer makes the index anew, and tells that it was lost.
fn heals(log: &Log, records: &[Vec<u8>], lost: bool, probes: &[usize]) {
    let reader = log.reader();
    let history = reader.stat().unwrap().history_id;
    let before = log.bytes();
    agrees(&reader, records, probes.iter().copied());
    let writer = log.writer();
    let stat = writer.stat().unwrap();
    assert_eq!(stat.recovery.as_ref().unwrap().index_rebuilt, lost, "{:?}", stat.recovery);
    assert_eq!(writer.notices(), []);
    writer.close().unwrap();
    assert!(log.bytes() == before, "the log stays as it is: {:?}", stat.recovery);
    let verified = reader.verify(|_| true).unwrap();
    assert_eq!((verified.problem, verified.index, verified.checked), (None, IndexState::Ok, records.len() as u64));
    if !lost {
        assert_eq!(stat.history_id, history);
    }
    agrees(&reader, records, probes.iter().copied());
}

#[test]
fn an_index_that_is_lost_damaged_or_of_another_log_loses_no_record() {
    let all = records(500);
    let (log, other) = (closed(&all), closed(&records(490)));
    let (image, history) = (Image::take(&log), log.reader().stat().unwrap().history_id);
    let index = index_path(&log);
    let state = |state| {
        assert_eq!(log.reader().verify(|_| true).map(|found| (found.problem, found.index)).unwrap(), (None, state))
    };
    let lay: [(&str, IndexState, &dyn Fn()); 8] = [
        ("missing", IndexState::Missing, &|| {}),
        ("empty", IndexState::Damaged, &|| drop(std::fs::write(&index, b""))),
        ("garbage", IndexState::Damaged, &|| drop(std::fs::write(&index, vec![0xa5; 5000]))),
        ("zeros", IndexState::Damaged, &|| drop(std::fs::write(&index, vec![0; 5000]))),
        ("another log's", IndexState::Missing, &|| drop(std::fs::copy(index_path(&other), &index))),
        ("a link", IndexState::Missing, &|| {
            std::fs::write(other.dir.path().join("copy"), &image.index).unwrap();
            symlink(other.dir.path().join("copy"), &index).unwrap();
        }),
        ("a pipe", IndexState::Missing, &|| nix::unistd::mkfifo(&index, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("another user's", IndexState::Missing, &|| {
            std::fs::write(&index, &image.index).unwrap();
            // Where that is not allowed there is nothing to be seen.
            chown(&index, Some(65534), None).unwrap_or_else(|_| std::fs::remove_file(&index).unwrap());
        }),
    ];
    for (what, expected, lay) in lay {
        image.put(&log);
        std::fs::remove_file(&index).unwrap();
        lay();
        println!("{what}");
        state(expected);
        heals(&log, &all, true, &[0, 250, 499, 500]);
        assert_ne!(log.reader().stat().unwrap().history_id, history, "{what}: a lost index is another history");
        assert!(index.symlink_metadata().unwrap().is_file());
        std::fs::remove_file(&index).unwrap();
    }
    assert_eq!(
        std::fs::read(other.dir.path().join("copy")).unwrap(),
        image.index,
        "nothing was written where a link led"
    );
}

#[test]
fn an_index_that_was_cut_anywhere_loses_no_record() {
    let all = records(400);
    let log = closed(&all);
    let image = Image::take(&log);
    let reader = log.reader();
    for len in 0..image.index.len() {
        std::fs::write(index_path(&log), &image.index[..len]).unwrap();
        for n in [201, 399] {
            assert_eq!(reader.get(n as u64).unwrap().as_ref(), all.get(n), "get({n}) with {len} bytes of index");
        }
    }
    for len in (0..image.index.len()).filter(|len| len % ENTRY == 0 || [1, 63, 65, 200].contains(len)) {
        image.put(&log);
        std::fs::OpenOptions::new().write(true).open(index_path(&log)).unwrap().set_len(len as u64).unwrap();
        heals(&log, &all, len < ENTRY, &[399]);
    }
}

#[test]
fn without_an_index_if_that_is_wanted() {
    let all = records(300);
    let log = closed(&all);
    let mut writer = log.writer_options().index(false).open(&log.path).unwrap();
    assert!(!index_path(&log).exists(), "one that is not kept up would lie");
    assert_eq!(writer.notices(), [], "it is what was asked for");
    writer.append(b"one more").unwrap();
    writer.sync().unwrap();
    assert_eq!(writer.durable(), 301);
    writer.close().unwrap();
    assert!(!index_path(&log).exists());
    assert_eq!(log.reader().verify(|_| true).unwrap().index, IndexState::Missing);
    heals(&log, &[&all[..], &[b"one more".to_vec()]].concat(), true, &[0, 299, 300, 301]);
}

/// A directory has the name: it can be neither opened nor replaced.
#[test]
fn an_index_that_cannot_be_made_is_done_without() {
    let all = records(300);
    let log = closed(&all);
    std::fs::remove_file(index_path(&log)).unwrap();
    std::fs::create_dir(index_path(&log)).unwrap();
    std::fs::write(index_path(&log).join("file"), b"").unwrap();
    let mut writer = log.writer();
    let notices = writer.notices();
    assert!(matches!(notices, [Notice::NoIndex { .. }]), "{notices:?}");
    assert!(notices[0].to_string().contains("no index"), "{}", notices[0]);
    writer.append(b"one more").unwrap();
    writer.sync().unwrap();
    writer.close().unwrap();
    assert!(index_path(&log).join("file").exists(), "it is not ours to remove");
    let names: Vec<_> = std::fs::read_dir(log.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "the log, the directory, the control directory, and nothing left behind: {names:?}");
    std::fs::remove_dir_all(index_path(&log)).unwrap();
    heals(&log, &[&all[..], &[b"one more".to_vec()]].concat(), true, &[0, 299, 300, 301]);
}

/// The log has its space, the index does not get any.
#[test]
fn a_disk_that_is_full_for_the_index_alone() {
    if !is_root() {
        return;
    }
    let mount = Mount::tmpfs(16 << 20);
    let log = Log::at(mount.dir.join("events.log"));
    let mut writer = log.writer_options().reserve(8 << 20).open(&log.path).unwrap();
    let filler = mount.fill();
    // Larger than what one page of index covers.
    let all: Vec<_> = (0..7000u64).map(|n| vec![n as u8; 1016]).collect();
    append(&mut writer, &all);
    writer.sync().unwrap();
    assert_eq!(writer.durable(), 7000);
    let verified = log.reader().verify(|_| true).unwrap();
    assert_eq!(
        (verified.problem, verified.index, verified.records),
        (None, IndexState::Missing, 7000),
        "one that lies is taken away"
    );
    writer.close().unwrap();
    assert_eq!(log.bytes(), encode(&all));
    // Not even a new one: its writer goes on without.
    let inode = std::fs::metadata(&log.path).unwrap().ino();
    std::fs::remove_file(filler).unwrap();
    heals(&log, &all, true, &[6999]);
    assert_eq!(std::fs::metadata(&log.path).unwrap().ino(), inode);
}
