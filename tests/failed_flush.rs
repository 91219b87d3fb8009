//! The injury: a flush to the disk fails, the kernel marks the pages clean, and a writer that tries again is told that all
//! is well. A failed flush ends the writer, and its followers hear of it. On an ext4 of the test's own that is shut down
//! under the writer, so it needs root and loop devices.

mod support;

use std::time::Duration;

use immuta::{Durability, Error, Evidence, ReadMode, Start, WriterState};
use support::mount::Mount;
use support::{Log, is_root, skip, until};

#[test]
fn a_failed_flush_ends_the_writer_and_is_told_to_followers() {
    if !is_root() {
        return;
    }
    let Some(mount) = Mount::ext4(24 << 20) else { return skip("no ext4 in a file can be mounted here") };
    let log = Log::at(mount.dir.join("events.log"));
    // The helper thread does not flush, so that it is this flush that fails.
    let mut writer = log.writer_options().durability(Durability::Buffered).open(&log.path).unwrap();
    writer.append(b"published").unwrap();
    writer.sync().unwrap();
    let mut tailer = log.reader().tail(Start::Beginning).unwrap();
    assert_eq!(tailer.next().unwrap().unwrap().payload(), b"published");

    writer.append(b"published, not flushed").unwrap();
    mount.cut_power();
    match writer.sync() {
        Err(error @ Error::Io { .. }) => assert!(error.to_string().contains("flush"), "{error}"),
        other => panic!("a flush to a disk that is gone: {other:?}"),
    }
    assert_eq!(tailer.writer().unwrap(), WriterState::Failed);
    assert_eq!(writer.stat().map(|stat| stat.writer).ok(), Some(WriterState::Failed));
    // No second try, by whatever call.
    assert!(matches!(writer.sync(), Err(Error::Failed { .. })));
    assert!(matches!(writer.append(b"never"), Err(Error::Failed { .. })));
    assert!(matches!(writer.claim(8), Err(Error::Failed { .. })));
    let mut batch = writer.batch();
    assert!(matches!(batch.append(b"never"), Err(Error::Failed { .. })));
    assert!(matches!(batch.commit(), Err(Error::Failed { .. })));
    // What was published is still delivered, and nothing after it.
    assert_eq!(tailer.try_next().unwrap().unwrap().payload(), b"published, not flushed");
    // Where it looks at the file itself, the disk is gone for it as well.
    assert!(matches!(tailer.try_next(), Ok(None) | Err(Error::Io { .. })));
    assert!(matches!(writer.close(), Err(Error::Failed { .. })));
    assert_eq!(tailer.writer().unwrap(), WriterState::Failed);
}

/// Nobody has called anything: the flush that fails is the helper's. What the next writer believes is what the disk has.
#[test]
fn a_flush_that_fails_in_the_background_is_told_and_the_next_writer_asks_the_disk() {
    if !is_root() {
        return;
    }
    let Some(mount) = Mount::ext4(24 << 20) else { return skip("no ext4 in a file can be mounted here") };
    let log = Log::at(mount.dir.join("events.log"));
    let interval = Durability::Interval(Duration::from_millis(20));
    let mut writer = log.writer_options().durability(interval).open(&log.path).unwrap();
    writer.append(b"durable").unwrap();
    until("it is durable", || writer.durable() == 1);
    let mut tailer = log.reader().tail(Start::Beginning).unwrap();
    assert_eq!(tailer.next().unwrap().unwrap().payload(), b"durable");
    mount.cut_power();
    writer.append(b"published, and never durable").unwrap();
    until("the followers are told", || tailer.writer().unwrap() == WriterState::Failed);
    assert_eq!(writer.durable(), 1);
    assert!(matches!(writer.append(b"never"), Err(Error::Failed { .. })));
    assert!(matches!(writer.close(), Err(Error::Failed { .. })));
    drop(tailer);
    mount.restore_power();
    let writer = log.writer();
    let stat = writer.stat().unwrap();
    assert_eq!(stat.recovery.unwrap().evidence, Evidence::Verified);
    writer.close().unwrap();
    assert_eq!(log.parse(), [b"durable"], "what was durable is there, and nothing that was never appended");
}

/// A failed flush marks pages clean that the disk never got. Those that a follower has mapped stay in the cache, where they look well: a
/// recovery that takes them for what the disk has, and flushes nothing since nothing is dirty, loses them at the next power cut.
#[test]
fn what_a_recovery_keeps_after_a_failed_flush_is_on_the_disk() {
    if !is_root() {
        return;
    }
    let around = Mount::tmpfs(48 << 20);
    let Some(mount) = Mount::dense_ext4(&around.dir, 24 << 20) else {
        return skip("no ext4 in a file can be mounted here");
    };
    let log = Log::at(mount.dir.join("events.log"));
    let mut options = log.writer_options();
    let mut writer = options.durability(Durability::Buffered).reserve(2 << 20).open(&log.path).unwrap();
    // Where the loop device can write the first part of a piece it does not tell that the rest was refused. The cache holds the file in
    // pieces that begin at powers of two, so what has no blocks begins with one, and so does a record.
    const TAKEN: usize = 128 << 10;
    let payload = |n: u64| vec![n as u8 + 1; if n == 0 { TAKEN - 16 } else { 4000 }];
    writer.append(&payload(0)).unwrap();
    writer.sync().unwrap();
    let mut tailer =
        log.reader_options().read_mode(ReadMode::Mapped).open(&log.path).unwrap().tail(Start::Beginning).unwrap();

    // The kernel may flush in between.
    let filler = loop {
        mount.take_blocks(&log.path, TAKEN as u64);
        let blocks = mount.image_blocks();
        let filler = around.fill();
        if mount.image_blocks() == blocks {
            break filler;
        }
        around.give_back(&filler);
    };
    let records = 200;
    for n in 1..records {
        writer.append(&payload(n)).unwrap();
    }
    for n in 0..records {
        // Touches the pages, which so stay in the cache.
        assert_eq!(tailer.next().unwrap().unwrap().payload(), payload(n));
    }
    match writer.sync() {
        Err(error @ Error::Io { .. }) => assert!(error.to_string().contains("flush"), "{error}"),
        other => panic!("a flush to a disk that is full: {other:?}"),
    }
    drop(writer);
    around.give_back(&filler);

    let mut writer = log.writer();
    // There is nothing to be flushed, if one asks the kernel.
    writer.sync().unwrap();
    let stat = writer.stat().unwrap();
    assert_eq!((stat.records, stat.durable_records), (records, Some(records)), "{:?}", stat.recovery);
    drop(tailer);
    mount.cut_power();
    drop(writer);
    mount.restore_power();
    // The memory of the machine is gone, too.
    for page in [log.page(), log.bell()] {
        let _ = std::fs::remove_file(page);
    }
    let stat = log.writer().stat().unwrap();
    assert_eq!(stat.records, records, "{:?}", stat.recovery);
    assert_eq!(log.parse(), (0..records).map(payload).collect::<Vec<_>>());
}
