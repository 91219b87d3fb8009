//! The injury: a log on a file system that has less than ext4 cannot be opened at all, though it could be written more slowly.
//! On file systems of the test's own, so it needs root and loop devices.

mod support;

use immuta::Notice;
use support::mount::Mount;
use support::{Log, encode, is_root, next, skip};

/// It has ext4's magic number, and on kernels of today ext4's code, but no fallocate.
#[test]
fn a_log_on_ext2() {
    if !is_root() {
        return;
    }
    let Some(mount) = Mount::ext2(24 << 20) else { return skip("no ext2 in a file can be mounted here") };
    let log = Log::at(mount.dir.join("events.log"));
    for round in 0..2u8 {
        let mut writer = log.writer();
        let notices = writer.notices();
        assert!(matches!(notices, [Notice::NoReservedSpace { path }] if *path == log.path), "{notices:?}");
        let mut tailer = log.reader().tail(-1).unwrap();
        writer.append(&[round]).unwrap();
        assert_eq!(next(&mut tailer).payload(), [round]);
        writer.append_from(&[round; 5000][..]).unwrap();
        assert_eq!(next(&mut tailer).payload(), [round; 5000]);
        writer.close().unwrap();
    }
    let expected = [vec![0], vec![0; 5000], vec![1], vec![1; 5000]];
    assert!(log.bytes() == encode(&expected));
}
