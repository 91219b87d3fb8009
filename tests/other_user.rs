//! The injury: whoever only wants to read needs rights to write, as with so many others; or follows without them, and takes a core
//! for it. Needs root, to become another user.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::process::Helper;
use support::{Log, is_root, until};

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// A log of root's that everybody may read and nobody else may write, in directories that nobody else may write.
fn readable() -> Log {
    let log = Log::new();
    set_mode(log.dir.path(), 0o755);
    set_mode(&log.control, 0o755);
    log
}

fn is_asleep(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('S'))
}

/// What a follower says once it is done: records, checksum, sleeps, polls, lost wake-ups.
fn follow_five(log: &Log, options: &str) -> Vec<u64> {
    let mut writer = log.writer_options().mode(0o644).open(&log.path).unwrap();
    writer.append(b"0").unwrap();
    let reader = Helper::start("follow", log, &format!("uid=65534 until=5 report=1 {options}"));
    reader.expect("ready");
    for n in 1..5 {
        assert_eq!(reader.numbers("at"), [n]);
        if !options.contains("spin") {
            // Only then is it about how it waits.
            until("the follower waits", || is_asleep(reader.id()));
        }
        writer.append(&[n as u8]).unwrap();
    }
    assert_eq!(reader.numbers("at"), [5]);
    let done = reader.numbers("done");
    reader.succeeds();
    done
}

#[test]
fn another_user_follows_by_reading_alone() {
    if !is_root() {
        return;
    }
    for wait in ["park", "both", "spin"] {
        let done = follow_five(&readable(), &format!("wait={wait}"));
        assert_eq!((done[0], done[2]), (5, 0), "it cannot announce a sleep");
        assert!(wait == "spin" || done[3] > 0, "so it looks at intervals: {done:?}");
    }
}

#[test]
fn another_user_follows_where_the_control_page_is_out_of_reach() {
    if !is_root() {
        return;
    }
    let log = readable();
    set_mode(&log.control, 0o700);
    let done = follow_five(&log, "wait=park");
    assert_eq!((done[0], done[2]), (5, 0));
    assert!(done[3] > 0, "it looks at intervals: {done:?}");
}

#[test]
fn a_doorbell_that_is_open_to_others_lets_them_sleep() {
    if !is_root() {
        return;
    }
    let log = readable();
    let mut writer = log.writer_options().mode(0o644).doorbell_mode(0o666).open(&log.path).unwrap();
    let reader = Helper::start("follow", &log, "uid=65534 wait=park until=50 report=1");
    reader.expect("ready");
    for n in 1..=50 {
        if n % 10 == 0 {
            // On a busy machine the record would always be there first.
            until("the follower waits", || is_asleep(reader.id()));
        }
        writer.append(b"one more").unwrap();
        assert_eq!(reader.numbers("at"), [n]);
    }
    let done = reader.numbers("done");
    assert!(done[2] > 0, "it sleeps: {done:?}");
    assert_eq!((done[3], done[4]), (0, 0), "it never looks at intervals and loses no wake-up: {done:?}");
    reader.succeeds();
}

#[test]
fn another_user_is_told_who_writes() {
    if !is_root() {
        return;
    }
    let log = readable();
    let mut writer = log.writer_options().mode(0o644).open(&log.path).unwrap();
    writer.append(b"0").unwrap();
    let mut asker = Helper::start("ask", &log, "uid=65534 threads=1");
    assert_eq!(asker.expect("ready"), ["Alive"]);
    asker.hush();
    asker.expect("asked");
    asker.succeeds();
}

#[test]
fn whoever_may_not_read_is_told_so() {
    if !is_root() {
        return;
    }
    let log = readable();
    log.writer_options().mode(0o600).open(&log.path).unwrap().close().unwrap();
    let helper = Helper::start("open", &log, "uid=65534");
    let refused = ["Io".to_owned(), libc::EACCES.to_string()];
    assert_eq!(helper.expect("reader"), refused);
    assert_eq!(helper.expect("writer"), refused);
    helper.succeeds();
    assert_eq!(std::fs::metadata(&log.path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn whoever_may_only_read_cannot_become_the_writer() {
    if !is_root() {
        return;
    }
    let log = readable();
    log.writer_options().mode(0o644).open(&log.path).unwrap().close().unwrap();
    let helper = Helper::start("open", &log, "uid=65534");
    assert_eq!(helper.expect("reader"), ["ok", "0"]);
    assert_eq!(helper.expect("writer"), ["Io".to_owned(), libc::EACCES.to_string()]);
    helper.succeeds();
}

/// Processor time of a follower that waits for two seconds in vain, in microseconds: DESIGN allows 1 % of a core where it has to look at
/// intervals, and this test three times that, for a machine that is busy with other things.
#[test]
fn an_idle_follower_uses_next_to_nothing() {
    let nobody = if is_root() { "uid=65534" } else { "" };
    for (what, options, most_us, page) in [
        ("with all rights", "", 20_000, true),
        ("without the doorbell", nobody, 60_000, true),
        ("without a control page", nobody, 60_000, false),
    ] {
        let log = readable();
        let mut writer = log.writer_options().mode(0o644).open(&log.path).unwrap();
        writer.append(b"before").unwrap();
        if !page {
            set_mode(&log.control, 0o700);
        }
        let helper = Helper::start("idle", &log, &format!("{options} start=-1"));
        let idle_us = helper.numbers("idle")[0];
        assert!(idle_us <= most_us, "{what} it used {idle_us} µs of two seconds");
        writer.append(b"after").unwrap();
        assert_eq!(helper.numbers("seen"), [1]);
        helper.succeeds();
    }
}
