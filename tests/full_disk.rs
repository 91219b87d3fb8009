//! The injury: the disk is full, and the writer is ended by a SIGBUS, loses what it had published, or publishes what has no space;
//! or it never recovers once there is room. On small file systems of the test's own, so it needs root.

mod support;

use immuta::{Appended, Claim, Error, Result, Writer};
use support::mount::Mount;
use support::{Log, drain, encode, is_root, skip, take};

const MIB: u64 = 1 << 20;

/// On a small tmpfs and on a small ext4, with a mapping and without; the first argument is a file that can be removed to make room.
fn on_small_disks(test: impl Fn(&std::path::Path, &Log, Writer)) {
    if !is_root() {
        return;
    }
    for mapped in [true, false] {
        let disks = [Some(Mount::tmpfs(8 * MIB)), Mount::ext4(24 * MIB)];
        for mount in disks {
            let Some(mount) = mount else {
                skip("no ext4 in a file can be mounted here");
                continue;
            };
            let log = Log::at(mount.dir.join("events.log"));
            let spare = mount.dir.join("spare");
            std::fs::write(&spare, vec![1; 4 * MIB as usize]).unwrap();
            let writer = log.writer_options().mapped(mapped).open(&log.path).unwrap();
            test(&spare, &log, writer);
        }
    }
}

#[track_caller]
fn is_full<T: std::fmt::Debug>(result: Result<T>) {
    match result {
        Err(error @ Error::Io { .. }) => {
            let Error::Io { source, .. } = &error else { unreachable!() };
            assert_eq!(source.raw_os_error(), Some(libc::ENOSPC), "{error}");
            assert!(error.to_string().contains("space"), "it says what to do: {error}");
        }
        other => panic!("there is no space, but: {other:?}"),
    }
}

fn free(path: &std::path::Path) -> u64 {
    let stat = nix::sys::statvfs::statvfs(path).unwrap();
    stat.blocks_available() * stat.fragment_size()
}

fn record(n: u64) -> Vec<u8> {
    vec![n as u8; 1000 + n as usize % 3000]
}

/// Appends until the disk is full; returns how many records there were room for.
fn append_all(mut append: impl FnMut(&[u8]) -> Result<Appended>) -> u64 {
    for n in 0..100_000 {
        match append(&record(n)) {
            Ok(appended) => assert_eq!(appended.sequence, n),
            full => {
                is_full(full);
                // And again: no byte of it came to be published.
                is_full(append(&vec![9; 8 * MIB as usize]));
                return n;
            }
        }
    }
    panic!("the disk is never full");
}

/// The log holds the records 0 to n − 1, then `more`; live, for a new reader, and after a close.
fn holds(log: &Log, writer: Writer, n: u64, more: &[&[u8]]) {
    let expected: Vec<_> = (0..n).map(record).chain(more.iter().map(|payload| payload.to_vec())).collect();
    assert!(drain(&mut log.reader().tail(0).unwrap()) == expected, "a new reader");
    writer.close().unwrap();
    assert!(log.bytes() == encode(&expected), "after a close");
}

#[test]
fn appending_goes_on_once_there_is_room() {
    on_small_disks(|spare, log, mut writer| {
        let mut live = log.reader().tail(0).unwrap();
        let n = append_all(|payload| writer.append(payload));
        assert!(n > 100);
        assert_eq!(take(&mut live, n as usize).len() as u64, n, "what was published stays");
        assert!(live.try_next().unwrap().is_none());
        std::fs::remove_file(spare).unwrap();
        writer.append(b"there is room").unwrap();
        assert_eq!(support::next(&mut live).payload(), b"there is room");
        holds(log, writer, n, &[b"there is room"]);
    });
}

#[test]
fn a_disk_that_is_full_in_the_midst_of_a_batch_leaves_the_batch_as_it_was() {
    on_small_disks(|spare, log, mut writer| {
        let mut live = log.reader().tail(0).unwrap();
        let mut batch = writer.batch();
        let n = append_all(|payload| batch.append(payload));
        assert!(live.try_next().unwrap().is_none(), "nothing of it is visible");
        std::fs::remove_file(spare).unwrap();
        assert_eq!(batch.append(b"there is room").unwrap().sequence, n);
        assert_eq!(batch.commit().unwrap(), 0..n + 1);
        assert_eq!(take(&mut live, n as usize + 1).len() as u64, n + 1);
        holds(log, writer, n, &[b"there is room"]);
    });
}

#[test]
fn a_batch_that_found_no_space_can_be_committed_as_far_as_it_came() {
    on_small_disks(|_, log, mut writer| {
        let mut batch = writer.batch();
        let n = append_all(|payload| batch.append(payload));
        assert_eq!(batch.commit().unwrap(), 0..n);
        holds(log, writer, n, &[]);
    });
}

#[test]
fn a_batch_that_found_no_space_can_be_dropped() {
    on_small_disks(|spare, log, mut writer| {
        writer.append(&record(0)).unwrap();
        let mut batch = writer.batch();
        while batch.append(&[7; 5000]).is_ok() {}
        drop(batch);
        std::fs::remove_file(spare).unwrap();
        let claim = writer.claim(10_000).unwrap();
        assert!(claim.iter().all(|byte| *byte == 0), "what the batch left is not seen");
        drop(claim);
        writer.append(&record(1)).unwrap();
        holds(log, writer, 2, &[]);
    });
}

#[test]
fn a_payload_larger_than_the_disk_publishes_nothing_and_hinders_nothing() {
    on_small_disks(|_, log, mut writer| {
        writer.append(&record(0)).unwrap();
        let large = vec![9; 40 * MIB as usize];
        is_full(writer.append(&large));
        is_full(writer.append_from(&large[..]));
        is_full(writer.append_from(std::io::repeat(9)));
        // With pwrite a claim takes its space when it is committed.
        is_full(writer.claim(large.len() as u64).and_then(Claim::commit));
        is_full(writer.batch().append(&large));
        assert_eq!(writer.stat().unwrap().records, 1);
        writer.append(&record(1)).unwrap();
        writer.append_from(&record(2)[..]).unwrap();
        holds(log, writer, 3, &[]);
    });
}

/// The helper thread works ahead; what it finds is no error of an append that needs no more space.
#[test]
fn small_appends_use_the_last_bytes_of_a_disk() {
    on_small_disks(|_, log, mut writer| {
        let before = std::fs::metadata(&log.path).unwrap().len();
        let mut count = 0;
        while writer.append(&[5; 100]).is_ok() {
            count += 1;
        }
        let bytes = count * 108;
        assert!(bytes > before, "{count} records");
        let free = free(&log.path);
        assert!(free < 256 << 10, "an append failed although {free} bytes are free; {bytes} were appended");
        writer.close().unwrap();
        assert!(log.bytes() == encode(&vec![[5; 100]; count as usize]));
    });
}

/// What the helper thread tries to get ahead takes all that is left for an instant, in which the index is refused what it needs, and is
/// given up for good.
#[test]
fn the_index_is_not_given_up_while_there_is_room_for_it() {
    if !is_root() {
        return;
    }
    let mount = Mount::tmpfs(64 * MIB);
    let log = Log::at(mount.dir.join("events.log"));
    let mut writer = log.writer();
    let mut count = 0;
    while free(&mount.dir) > 4 * MIB {
        for _ in 0..20 {
            writer.append(&[5; 1000]).unwrap();
        }
        writer.sync().unwrap();
        count += 20;
    }
    assert!(count > 40_000, "{count} records");
    writer.close().unwrap();
    let index = std::fs::metadata(mount.dir.join("events.log.idx")).map_or(0, |metadata| metadata.len());
    assert!(index > count / 20 * 64, "the index is gone or begins anew: {index} bytes");
}
