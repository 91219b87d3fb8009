//! The injury: after a crash the next writer drops records that were good, or hands out bytes that were never appended, or says
//! nothing of what it did. What is believed by which evidence, what is refused, what is set aside, and that it is told.

mod support;

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use immuta::{Durability, Error, Evidence, Recovery, Start, Writer};
use support::content::payload;
use support::forge::{CLOSED, DURABLE, Image, forget_pages, index_path, number};
use support::process::Helper;
use support::{Log, encode, next, parse, positions};

fn records(n: u64) -> Vec<Vec<u8>> {
    (0..n).map(|sequence| payload(7, sequence, 40_000)).collect()
}

fn append(writer: &mut Writer, records: &[Vec<u8>]) {
    for record in records {
        writer.append(record).unwrap();
    }
}

fn report(writer: &Writer) -> Recovery {
    writer.stat().unwrap().recovery.expect("a writer tells how it began")
}

fn history(log: &Log) -> u128 {
    log.reader().stat().unwrap().history_id.expect("an index or a page")
}

/// The log and its index as a writer that was killed leaves them: the first `durable` of the records flushed; all covered by the
/// index, and some bytes reserved behind them.
fn killed(log: &Log, records: &[Vec<u8>], durable: usize) -> Image {
    let mut writer = log.writer_options().durability(Durability::Buffered).open(&log.path).unwrap();
    append(&mut writer, &records[..durable]);
    writer.sync().unwrap();
    append(&mut writer, &records[durable..]);
    // Within a second the helper covers what there is.
    support::until("all is covered", || Image::take(log).entries().last().unwrap().end().0 == records.len() as u64);
    let image = Image::take(log);
    writer.close().unwrap();
    image
}

fn open(log: &Log) -> immuta::Result<Writer> {
    log.writer_options().open(&log.path)
}

/// The next writer refuses, names the place, and changes nothing.
#[track_caller]
fn is_refused(log: &Log, at: u64, words: &str) {
    let (before, index) = (log.bytes(), std::fs::read(index_path(log)).ok());
    match open(log) {
        Err(error @ Error::Damaged { .. }) => {
            assert_eq!((error.path(), error.position()), (&*log.path, Some(at)), "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        other => panic!("not refused: {:?}", other.map(|writer| report(&writer))),
    }
    assert!(log.bytes() == before, "a log that is refused stays as it is");
    assert_eq!(std::fs::read(index_path(log)).ok(), index, "and so does its index");
    assert_eq!(side_files(log), [] as [PathBuf; 0]);
}

/// All that lies beside the log but the index.
fn side_files(log: &Log) -> Vec<PathBuf> {
    let names = std::fs::read_dir(log.dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> =
        names.filter(|name| name.is_file() && *name != log.path && *name != index_path(log)).collect();
    names.sort();
    names
}

/// Opens and closes once more: nothing is left to be done, and nothing is changed.
fn settles(log: &Log, records: &[Vec<u8>]) {
    assert!(log.parse() == records);
    let history = history(log);
    let writer = open(log).unwrap();
    assert_eq!(report(&writer).evidence, Evidence::Closed);
    assert_eq!((report(&writer).cut_bytes, report(&writer).discarded), (0, None));
    writer.close().unwrap();
    assert!(log.bytes() == encode(records), "a second recovery changes nothing");
    assert_eq!(self::history(log), history);
    let verified = log.reader().verify(|_| true).unwrap();
    assert_eq!((verified.problem, verified.checked), (None, records.len() as u64));
}

#[test]
fn a_new_log_and_one_that_was_closed() {
    let log = Log::new();
    let mut writer = log.writer();
    let is = |writer: &Writer, evidence| {
        let recovery = report(writer);
        assert_eq!((recovery.evidence, recovery.cut_bytes, &recovery.discarded), (evidence, 0, &None));
        assert!(!recovery.index_rebuilt);
    };
    is(&writer, Evidence::New);
    let first = writer.stat().unwrap().history_id;
    append(&mut writer, &records(10));
    writer.close().unwrap();
    assert_eq!(log.reader().stat().unwrap().recovery, None, "a reader recovers nothing");
    let mut writer = log.writer();
    is(&writer, Evidence::Closed);
    assert_eq!(writer.stat().unwrap().history_id, first, "the same history goes on");
    assert_eq!(writer.durable(), 10, "what was closed is durable");
    append(&mut writer, &records(10));
    writer.close().unwrap();
    // Also after a start of the machine.
    Image::take(&log).of_another_boot().put(&log);
    is(&log.writer(), Evidence::Closed);
    settles(&log, &[records(10), records(10)].concat());
}

#[test]
fn a_process_that_was_killed() {
    let log = Log::new();
    let mut writer = Helper::start("hold", &log, "records=300");
    writer.expect("holding");
    let history = history(&log);
    writer.kill();
    let kept = log.parse();
    let writer = log.writer();
    let recovery = report(&writer);
    assert_eq!((recovery.evidence, recovery.discarded), (Evidence::ProcessCrash, None));
    assert!(recovery.cut_bytes > 0, "what it had reserved");
    assert_eq!(writer.stat().unwrap().history_id, Some(history));
    writer.close().unwrap();
    assert_eq!(kept.len(), 300);
    settles(&log, &kept);
}

/// As a process crash, but nothing of what the kernel holds is to be believed.
#[test]
fn a_machine_that_went_down_and_left_all() {
    let (log, all) = (Log::new(), records(100));
    let image = killed(&log, &all, 60);
    let history = history(&log);
    image.clone().of_another_boot().put(&log);
    let writer = log.writer();
    let recovery = report(&writer);
    assert_eq!((recovery.evidence, recovery.discarded), (Evidence::Verified, None));
    assert_eq!(recovery.cut_bytes, image.log.len() as u64 - positions(&all)[100]);
    assert_eq!(writer.stat().unwrap().history_id, Some(history), "nothing is gone");
    writer.close().unwrap();
    settles(&log, &all);
}

/// The boot is the same, but the file system was mounted anew since: its cache is gone as well.
#[test]
fn a_file_system_that_was_mounted_anew() {
    let (log, all) = (Log::new(), records(50));
    let mut image = killed(&log, &all, 20);
    let run = image.entries().iter().rposition(|entry| entry.is_run()).unwrap();
    if number(&image.index, (run + 1) * 64 + 48) == 0 {
        return support::skip("this kernel does not tell one mount from another (statx, Linux 6.8)");
    }
    image.edit(run, |entry| entry[48] ^= 1);
    image.log[positions(&all)[40] as usize + 8] ^= 1;
    image.put(&log);
    let recovery = report(&log.writer());
    assert_eq!(recovery.evidence, Evidence::Verified);
    assert!(recovery.discarded.is_some(), "a flipped bit would have been believed");
}

#[test]
fn damage_beyond_the_last_checkpoint_is_set_aside() {
    let (log, all) = (Log::new(), records(100));
    let mut image = killed(&log, &all, 60);
    let at = positions(&all);
    // Nothing of record 80 and of what follows came to the disk.
    image.log[at[80] as usize..at[100] as usize].fill(0);
    image.of_another_boot().put(&log);
    let (before, inode, history) = (log.bytes(), std::fs::metadata(&log.path).unwrap().ino(), history(&log));
    let mut follower = log.reader().tail(Start::Sequence(60)).unwrap();
    let mut writer = log.writer();
    let recovery = report(&writer);
    assert_eq!((recovery.evidence, recovery.cut_bytes), (Evidence::Verified, 0));
    let discarded = recovery.discarded.expect("records that cannot be kept");
    let kept = writer.stat().unwrap().records as usize;
    assert!((60..=80).contains(&kept), "whole blocks are proven: {kept}");
    assert_eq!((discarded.records, discarded.position), (100 - kept as u64, at[kept]));
    assert!(discarded.reason.contains("checksum"), "{}", discarded.reason);
    // The bytes, without the zeros behind them, in a file of its own.
    let side = std::fs::read(&discarded.path).unwrap();
    assert_eq!(side_files(&log), std::slice::from_ref(&discarded.path));
    assert!(discarded.path.file_name().unwrap().to_str().unwrap().starts_with("events.log.lost-"));
    assert!(
        before[at[kept] as usize..].starts_with(&side)
            && before[at[kept] as usize + side.len()..] == vec![0; before.len() - at[kept] as usize - side.len()]
    );
    assert_eq!(std::fs::metadata(&discarded.path).unwrap().mode(), std::fs::metadata(&log.path).unwrap().mode());
    // Another file, and another history: whoever followed the old one can tell.
    assert_ne!(std::fs::metadata(&log.path).unwrap().ino(), inode);
    assert_ne!(writer.stat().unwrap().history_id, Some(history));
    let told = support::bounded("the follower is told", move || {
        loop {
            match follower.next() {
                Ok(Some(_)) => {}
                other => return other.map(|record| record.is_some()),
            }
        }
    });
    assert!(matches!(told, Err(Error::Replaced { .. })), "{told:?}");
    writer.append(b"it goes on").unwrap();
    assert_eq!(next(&mut log.reader().tail(Start::Last(1)).unwrap()).sequence(), kept as u64);
    writer.close().unwrap();
    settles(&log, &[&all[..kept], &[b"it goes on".to_vec()]].concat());
}

#[test]
fn damage_before_the_last_checkpoint_is_refused() {
    let (log, all) = (Log::new(), records(100));
    let image = killed(&log, &all, 60);
    let at = positions(&all);
    for (record, byte) in [(0, 0), (0, 8), (30, 3), (59, 8)] {
        let mut image = image.clone();
        image.log[at[record] as usize + byte] ^= 0x10;
        image.of_another_boot().put(&log);
        let (sequence, position) = match open(&log) {
            Err(Error::Damaged { sequence: Some(sequence), position, .. }) => (sequence, position),
            other => panic!("record {record}: {other:?}"),
        };
        assert!(sequence <= record as u64 && position == at[sequence as usize], "the block in which it lies");
        is_refused(&log, position, "checksum");
    }
}

#[test]
fn a_count_that_falls_short_of_what_was_durable_is_refused() {
    let (log, all) = (Log::new(), records(100));
    let image = killed(&log, &all, 60);
    for (count, boot) in [(59, false), (59, true), (0, false), (0, true)] {
        let mut image = image.clone();
        image.set_count(count);
        let image = if boot { image.of_another_boot() } else { image };
        image.put(&log);
        is_refused(&log, 0, "60 were durable");
    }
    // Beyond the checkpoint it may fall short: the count is the last to come to the disk.
    let mut image = image;
    image.set_count(70);
    image.of_another_boot().put(&log);
    let writer = log.writer();
    assert_eq!((report(&writer).evidence, report(&writer).discarded), (Evidence::Verified, None));
    writer.close().unwrap();
    settles(&log, &all[..70]);
}

/// The same of a clean close: the count of a backup that was put over it.
#[test]
fn a_closed_log_whose_count_is_lower_is_refused() {
    let (log, all) = (Log::new(), records(40));
    let mut writer = log.writer();
    append(&mut writer, &all);
    writer.close().unwrap();
    let mut image = Image::take(&log);
    assert!(image.entries().last().unwrap().is(CLOSED | DURABLE));
    image.set_count(39);
    image.put(&log);
    is_refused(&log, 0, "40 were durable");
}

#[test]
fn what_another_program_appended_after_a_close_is_taken_for_unproven() {
    let (log, all) = (Log::new(), records(40));
    let mut writer = log.writer();
    append(&mut writer, &all[..30]);
    writer.close().unwrap();
    let image = Image::take(&log);
    let history = history(&log);
    for boot in [false, true] {
        let image = if boot { image.clone().of_another_boot() } else { image.clone() };
        image.put(&log);
        std::fs::write(&log.path, encode(&all)).unwrap();
        let writer = log.writer();
        assert_eq!((report(&writer).evidence, report(&writer).cut_bytes), (Evidence::Unproven, 0));
        assert_eq!(writer.stat().unwrap().history_id, Some(history), "no record became another");
        writer.close().unwrap();
        settles(&log, &all);
    }
    // Nothing but empty records, with something behind them: zeros that a crash left under a count that came to the disk.
    image.put(&log);
    let file = OpenOptions::new().read(true).append(true).open(&log.path).unwrap();
    (&file).write_all(&[0; 100]).unwrap();
    let file = OpenOptions::new().write(true).open(&log.path).unwrap();
    file.write_all_at(&35u64.to_le_bytes(), 0).unwrap();
    is_refused(&log, positions(&all)[30], "empty");
    // Empty records that end where the file does may have been appended.
    file.set_len(positions(&all)[30] + 5 * 8).unwrap();
    let writer = log.writer();
    assert_eq!((report(&writer).evidence, writer.stat().unwrap().records), (Evidence::Unproven, 35));
}

#[test]
fn without_an_index_the_walk_decides() {
    let (log, all) = (Log::new(), records(40));
    let mut image = killed(&log, &all, 20);
    let history = history(&log);
    let put = |image: &Image| {
        image.put(&log);
        std::fs::remove_file(index_path(&log)).unwrap();
    };
    put(&image);
    let writer = log.writer();
    let recovery = report(&writer);
    assert_eq!((recovery.evidence, recovery.discarded, recovery.index_rebuilt), (Evidence::Unproven, None, true));
    assert_ne!(writer.stat().unwrap().history_id, Some(history), "what was stored of places may be of other records");
    writer.close().unwrap();
    settles(&log, &all);
    // All counted and all zero.
    image.log[positions(&all)[25] as usize..].fill(0);
    put(&image);
    is_refused(&log, positions(&all)[25], "empty");
    // A count that the walk cannot reach.
    image.set_count(1 << 40);
    put(&image);
    is_refused(&log, 0, "count");
}

/// The zeros that a writer reserves look like empty records: no repair keeps them.
#[test]
fn a_repair_keeps_no_record_that_was_never_appended() {
    let (log, all) = (Log::new(), [records(40), vec![b"the last".to_vec()]].concat());
    let mut image = killed(&log, &all, 20);
    image.set_count(1 << 40);
    for image in [image.clone(), image.of_another_boot()] {
        for index in [true, false] {
            image.put(&log);
            if !index {
                std::fs::remove_file(index_path(&log)).unwrap();
            }
            assert!(
                matches!(open(&log), Err(Error::Damaged { .. })) || index,
                "such a count is refused, or not believed"
            );
            let repair = log.writer_options().repair(&log.path, false).unwrap();
            assert_eq!((repair.records, log.parse().len()), (41, 41), "index {index}: {repair:?}");
            assert!(log.bytes() == encode(&all));
        }
    }
}

/// In `Sync` the count on the disk never leads, so it proves what the index does not cover.
#[test]
fn the_count_of_a_sync_writer_proves_its_records() {
    let (log, all) = (Log::new(), records(30));
    let mut writer = log.writer_options().durability(Durability::Sync).open(&log.path).unwrap();
    append(&mut writer, &all);
    let mut image = Image::take(&log);
    writer.close().unwrap();
    let run = image.entries().iter().rposition(|entry| entry.is_run()).unwrap();
    image.cut_entries(run + 1);
    image.of_another_boot().put(&log);
    let writer = log.writer();
    assert_eq!((report(&writer).evidence, report(&writer).discarded), (Evidence::Verified, None));
    writer.close().unwrap();
    settles(&log, &all);
}

/// A page of this boot says that a process crashed, whatever became of the index.
#[test]
fn the_control_page_of_a_killed_writer_stands_in_for_a_lost_index() {
    let log = Log::new();
    let mut writer = Helper::start("hold", &log, "records=20");
    writer.expect("holding");
    writer.kill();
    std::fs::remove_file(index_path(&log)).unwrap();
    let writer = log.writer();
    assert_eq!((report(&writer).evidence, report(&writer).index_rebuilt), (Evidence::ProcessCrash, true));
    writer.close().unwrap();
    forget_pages(&log);
    settles(&log, &parse(&log.bytes()));
}
