//! The injury: a program opens a log by a relative name and then, as a daemon does, goes to another directory or gives up its rights;
//! and is told that the log was replaced, or that it cannot be flushed or read.

mod support;

use support::process::Helper;
use support::{Log, is_root};

#[test]
fn a_follower_that_goes_to_another_directory_goes_on() {
    let log = Log::new();
    let mut writer = log.writer();
    let mut reader = Helper::start("follow_from_elsewhere", &log, "");
    reader.expect("ready");
    for n in 0..5 {
        reader.say("next");
        std::thread::sleep(std::time::Duration::from_millis(20));
        writer.append(b"one more").unwrap();
        assert_eq!(reader.numbers("record")[0], n);
    }
    reader.say("next");
    std::thread::sleep(std::time::Duration::from_millis(500));
    writer.append(b"the last").unwrap();
    let last = reader.numbers("record");
    assert_eq!(last[0], 5);
    assert!(last[1] > 0, "it still finds the control page: {last:?}");
    reader.succeeds();
}

#[test]
fn a_writer_that_goes_to_another_directory_can_still_flush_and_clean_up() {
    let log = Log::new();
    let writer = Helper::start("write_from_elsewhere", &log, "");
    assert_eq!(writer.expect("sync"), ["ok", "0"]);
    assert_eq!(writer.expect("close"), ["ok", "0"]);
    writer.succeeds();
    assert_eq!(log.parse(), [b"from elsewhere"]);
    assert_eq!(std::fs::read_dir(&log.control).unwrap().count(), 0, "nothing is left behind");
}

/// A daemon that opens its files as root and then becomes somebody who may not even look at their directory.
#[test]
fn a_follower_that_gives_up_its_rights_goes_on() {
    if !is_root() {
        return;
    }
    let log = Log::new();
    std::fs::set_permissions(log.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let mut writer = log.writer_options().mode(0o600).open(&log.path).unwrap();
    let mut reader = Helper::start("follow_with_fewer_rights", &log, "uid=65534");
    reader.expect("ready");
    for n in 0..2 {
        reader.say("next");
        std::thread::sleep(std::time::Duration::from_millis(500));
        writer.append(b"one more").unwrap();
        assert_eq!(reader.numbers("record")[0], n);
    }
    for n in 2..2000u64 {
        writer.append(&vec![7; (n * 997 % 9000) as usize]).unwrap();
    }
    // No further descriptor can be opened; its threads share the one that there is.
    reader.hush();
    assert_eq!(reader.numbers("read"), [8 * 2000]);
    reader.succeeds();
}
