//! The injury: a program forks while it has a writer, and the child, by writing, by dropping what it inherited or just by ending,
//! cuts the parent's log, takes its control page away or gives its lock back.

mod support;

use std::os::unix::fs::MetadataExt;

use support::process::Helper;
use support::{Log, next};

/// The parent has forked a child that did `child` and ended well.
fn forked(log: &Log, child: &str, options: &str) -> Helper {
    let helper = Helper::start("fork", log, &format!("child={child} {options}"));
    assert_eq!(helper.numbers("child"), [0], "the child that {child}");
    helper
}

/// The parent's log is as it was, and the parent goes on.
fn parent_goes_on(log: &Log, mut parent: Helper) {
    let size = std::fs::metadata(&log.path).unwrap().size();
    assert!(size > 29, "the space that the parent has reserved is still there, not {size} bytes");
    assert!(log.page().exists(), "so is its control page");
    assert!(
        log.control.join(format!("{}.bell", log.page().file_name().unwrap().display())).exists(),
        "and its doorbell"
    );
    match log.writer_options().open(&log.path) {
        Err(immuta::Error::Locked { pid, .. }) => assert_eq!(pid, Some(parent.id())),
        other => panic!("the parent holds its lock: {other:?}"),
    }
    let mut tailer = log.reader().tail(0).unwrap();
    assert_eq!(next(&mut tailer).payload(), b"by the parent");
    for n in 1..100u64 {
        parent.say(&format!("and again {n}"));
        assert_eq!(parent.numbers("appended"), [n]);
        assert_eq!(next(&mut tailer).payload(), format!("and again {n}").as_bytes());
    }
    parent.succeeds();
    assert_eq!(log.parse().len(), 100);
    assert_eq!(std::fs::read_dir(&log.control).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn every_method_fails_in_a_forked_child() {
    let log = Log::new();
    let parent = forked(&log, "calls", "");
    assert_eq!(log.parse(), [b"by the parent"], "the child has written nothing");
    parent_goes_on(&log, parent);
}

#[test]
fn dropping_a_writer_in_a_forked_child_does_nothing_to_the_log() {
    let log = Log::new();
    let parent = forked(&log, "drops", "");
    parent_goes_on(&log, parent);
}

#[test]
fn closing_a_writer_in_a_forked_child_does_nothing_to_the_log() {
    let log = Log::new();
    let parent = forked(&log, "closes", "");
    parent_goes_on(&log, parent);
}

/// The parent's helper thread does not run in the child, though all that it left in memory says so.
#[test]
fn a_forked_child_may_open_a_log_of_its_own() {
    let log = Log::new();
    let own = log.dir.path().join("own.log");
    let parent = forked(&log, "opens", &format!("own={}", own.display()));
    let records = support::parse(&std::fs::read(&own).unwrap());
    assert_eq!(records.len(), 40);
    assert!(records.iter().all(|record| *record == vec![3; 1 << 20]));
    parent_goes_on(&log, parent);
}

/// The child is a daemon, say, which the parent's death leaves alone.
#[test]
fn a_child_that_gave_its_writer_up_keeps_no_other_writer_from_the_log() {
    for child in ["drops", "closes"] {
        let log = Log::new();
        let mut parent = Helper::start("fork", &log, &format!("child={child} stays=1"));
        let left = parent.numbers("left");
        let is_there = || std::path::Path::new(&format!("/proc/{}", left[0])).exists();
        assert_eq!(left[1], 0, "descriptors of the log in the child that {child}");
        parent.kill();
        let mut writer = log.writer();
        assert!(is_there(), "the child lives on");
        writer.append(b"by the next").unwrap();
        writer.close().unwrap();
        assert_eq!(log.parse(), [&b"by the parent"[..], b"by the next"]);
        parent.hush();
        support::until("the child has ended", || !is_there());
    }
}

#[test]
fn a_claim_cannot_be_changed_in_a_forked_child() {
    let log = Log::new();
    let parent = Helper::start("fork_with_claim", &log, "");
    assert_eq!(parent.numbers("child"), [0]);
    parent.succeeds();
    assert_eq!(log.parse(), [b"by the parent"]);
}

#[test]
fn a_child_that_was_forked_within_append_from_publishes_nothing() {
    let log = Log::new();
    let parent = Helper::start("fork_in_source", &log, "");
    assert_eq!(parent.numbers("child"), [0]);
    parent.succeeds();
    assert_eq!(log.parse(), [b""], "the parent's record is empty");
}
