//! The injury: a bit of a file that nobody writes any more flips, on the disk or on the way to it, and readers hand out what was never
//! appended, or a recovery believes it. Every single bit of a small, cleanly closed log and of its index is flipped in turn.
//!
//! In the log every bit is found. What lies behind the count is covered by a CRC32C, which finds every single flipped bit; the count itself
//! by the walk, which does not end within the file where it is higher, and by the durable checkpoint, which says more where it is lower.
//!
//! In the index every bit is found as well, since the header and each entry have a CRC32C of their own, and it is provably harmless: an
//! entry that does not fit its checksum is no entry, so that all answers are those of an index without it, which are those of a walk; and
//! a recovery that lacks its proof takes the records for unproven, as without an index, and discards none.

mod support;

use std::time::{Duration, SystemTime};

use immuta::{Error, Evidence, IndexState, Reader, Start};
use support::forge::{Image, index_path};
use support::{Log, drain, rounds};

/// Two runs, with some records of each size, none of them zeros alone at the end.
fn records() -> Vec<Vec<u8>> {
    let sizes = [5, 0, 1, 16, 0, 0, 9, 30, 2, 64, 7, 12];
    sizes.iter().enumerate().map(|(n, size)| vec![0x41 + n as u8; *size]).collect()
}

/// More, since the first 200 are walked to without an index.
fn many() -> Vec<Vec<u8>> {
    (0..260u32).map(|n| if n % 3 == 0 { n.to_le_bytes().to_vec() } else { Vec::new() }).collect()
}

/// Two runs, in memory, where flushes cost nothing.
fn closed(records: &[Vec<u8>]) -> (Log, Image) {
    let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let log = Log::within(place);
    for part in records.chunks(records.len() / 2 + 1) {
        let mut writer = log.writer();
        for record in part {
            writer.append(record).unwrap();
        }
        writer.sync().unwrap();
        writer.append(b"").unwrap();
        writer.append(b"last of a run").unwrap();
        writer.close().unwrap();
    }
    let image = Image::take(&log);
    (log, image)
}

fn flip(bytes: &mut [u8], bit: usize) {
    bytes[bit / 8] ^= 1 << (bit % 8);
}

#[test]
fn every_bit_of_the_log_is_found() {
    let (log, image) = closed(&records());
    let verified = log.reader().verify(|_| true).unwrap();
    assert_eq!((verified.problem, verified.checked), (None, image.count()));
    let last = image.entries().iter().rfind(|entry| entry.records > 0).unwrap().position as usize;
    for bit in 0..image.log.len() * 8 {
        let mut flipped = image.clone();
        flip(&mut flipped.log, bit);
        flipped.put(&log);
        match log.reader_options().open(&log.path) {
            Ok(reader) => {
                let verified = reader.verify(|_| true).unwrap();
                let problem = verified.problem.unwrap_or_else(|| panic!("bit {bit} is not found"));
                assert!(
                    problem.position <= bit as u64 / 8 || bit < 64,
                    "bit {bit}: it lies before {}",
                    problem.position
                );
                assert_eq!(verified.index, IndexState::Ok, "the index is sound");
            }
            Err(Error::Damaged { position: 0, .. }) => assert!(bit < 64, "bit {bit} is not of the count"),
            Err(other) => panic!("bit {bit}: {other}"),
        }
        // Nor does a writer go on behind it, where it looks: a log that was closed is believed for the last block and the count.
        if (64..last * 8).contains(&bit) {
            continue;
        }
        match log.writer_options().open(&log.path) {
            Err(Error::Damaged { position, .. }) => assert!(position <= bit as u64 / 8 || bit < 64),
            Err(other) => panic!("bit {bit}: {other}"),
            Ok(writer) => panic!("bit {bit} is believed by a recovery: {:?}", writer.stat()),
        }
        assert!(log.bytes() == flipped.log, "a log that is refused stays as it is");
    }
}

/// Some of all that a reader can be asked.
fn answers(reader: &Reader) -> Vec<Vec<Vec<u8>>> {
    let count = reader.stat().unwrap().records;
    let mut answers = vec![[201, 230, count - 1, count].into_iter().filter_map(|n| reader.get(n).unwrap()).collect()];
    for start in [Start::Sequence(250), Start::Last(3), Start::Last(count - 210), Start::SkipAtMost(count), Start::End]
    {
        answers.push(drain(&mut reader.tail(start).unwrap()));
    }
    answers
}

#[test]
fn every_bit_of_the_index_is_found_and_changes_no_answer() {
    let (log, image) = closed(&many());
    let reader = log.reader();
    let (expected, durable) = (answers(&reader), image.count());
    let times = [0, 3600].map(|ago| SystemTime::now() - Duration::from_secs(ago));
    let since = |time| reader.tail(Start::Time(time)).map(|tailer| tailer.sequence());
    let right = times.map(|time| since(time).unwrap());
    for bit in 0..image.index.len() * 8 {
        let mut flipped = image.clone();
        flip(&mut flipped.index, bit);
        // Not by `put`, which writes the header anew.
        std::fs::write(index_path(&log), &flipped.index).unwrap();
        let verified = reader.verify(|_| true).unwrap();
        assert_eq!((verified.problem, verified.index), (None, IndexState::Damaged), "bit {bit}");
        // Which bit of an entry it is makes no difference to what follows: it is none.
        if bit % rounds(17, 1) as usize != 0 {
            continue;
        }
        assert!(answers(&reader) == expected, "bit {bit} changes an answer");
        assert!(reader.stat().unwrap().durable_records.is_none_or(|records| records <= durable));
        for (time, right) in times.into_iter().zip(right) {
            match since(time) {
                Ok(first) => assert!(first <= right, "bit {bit}: records that came since then are left out"),
                Err(Error::NoTimes { .. }) => {}
                Err(other) => panic!("bit {bit}: {other}"),
            }
        }
    }
}

/// By what is left of the index, in the same boot and after the machine was started anew. An entry of which a bit is flipped is none,
/// whichever bit it is, so that a few of each do.
#[test]
fn a_recovery_discards_nothing_for_a_bit_of_the_index() {
    let (log, image) = closed(&many());
    for boot in [false, true] {
        let image = if boot { image.clone().of_another_boot() } else { image.clone() };
        for bit in (0..image.index.len() * 8).step_by(rounds(127, 13) as usize) {
            image.put(&log);
            let mut index = std::fs::read(index_path(&log)).unwrap();
            flip(&mut index, bit);
            std::fs::write(index_path(&log), index).unwrap();
            let writer = log.writer();
            let recovery = writer.stat().unwrap().recovery.unwrap();
            assert_eq!((recovery.discarded, recovery.cut_bytes), (None, 0), "bit {bit}, boot {boot}");
            assert_ne!(recovery.evidence, Evidence::New);
            writer.close().unwrap();
            assert!(log.bytes() == image.log, "bit {bit}, boot {boot}");
            let verified = log.reader().verify(|_| true).unwrap();
            let found = (verified.problem, verified.index, verified.checked);
            assert_eq!(found, (None, IndexState::Ok, image.count()), "the writer has made the index anew");
        }
    }
}
