//! The injury: the control page of a writer that was killed is still there, and hides records, or has its followers sleep while another
//! writer appends. Whether a page is alive shows by its movement and the writer's lock, not by its name.

mod support;

use std::os::unix::fs::{PermissionsExt, chown};

use immuta::{Reader, Start, Tailer, Writer};
use support::process::Helper;
use support::{Log, drain, is_root, next, take, until};

/// A log with 3 records and the page of a writer that was killed, after which somebody else appended 4 more without it.
fn with_a_stale_page(attach: impl FnOnce(&Reader) -> Option<Tailer>) -> (Log, Log, Writer, Option<Tailer>) {
    let log = Log::new();
    let mut dead = Helper::start("hold", &log, "records=3");
    dead.expect("holding");
    let attached = attach(&log.reader());
    dead.kill();
    assert!(log.page().exists(), "a writer that is killed leaves its page");
    // Its page is elsewhere.
    let elsewhere = Log::at(log.path.clone());
    let mut writer = elsewhere.writer();
    (0..4u8).for_each(|n| assert_eq!(writer.append(&[n]).unwrap().sequence, 3 + u64::from(n)));
    (log, elsewhere, writer, attached)
}

#[test]
fn a_stale_page_hides_no_record_from_those_who_come() {
    let (log, _elsewhere, mut writer, _) = with_a_stale_page(|_| None);
    let reader = log.reader();
    assert_eq!(reader.stat().unwrap().records, 7);
    assert_eq!(reader.get(6).unwrap().unwrap(), [3]);
    let mut end = reader.tail(Start::End).unwrap();
    assert_eq!(end.sequence(), 7, "what was published before is not new");
    let mut beginning = reader.tail(0).unwrap();
    assert_eq!(take(&mut beginning, 7)[3..], [[0], [1], [2], [3]]);
    writer.append(b"one more").unwrap();
    assert_eq!(next(&mut end).payload(), b"one more");
    assert_eq!(next(&mut beginning).payload(), b"one more");
}

#[test]
fn a_stale_page_hides_no_record_from_those_who_are_there() {
    let (_log, _elsewhere, mut writer, attached) = with_a_stale_page(|reader| Some(reader.tail(0).unwrap()));
    let mut attached = attached.unwrap();
    assert_eq!(take(&mut attached, 7)[3..], [[0], [1], [2], [3]]);
    writer.append(b"one more").unwrap();
    assert_eq!(next(&mut attached).payload(), b"one more");
}

#[test]
fn the_next_writer_replaces_a_stale_page_and_its_followers_notice() {
    let log = Log::new();
    let mut dead = Helper::start("hold", &log, "records=3");
    dead.expect("holding");
    let mut attached = log.reader().tail(0).unwrap();
    assert_eq!(take(&mut attached, 3).len(), 3);
    dead.kill();
    let mut writer = log.writer();
    assert!(writer.notices().is_empty(), "{:?}", writer.notices());
    writer.append(b"one more").unwrap();
    assert_eq!(next(&mut attached).payload(), b"one more");
    writer.close().unwrap();
    assert_eq!(std::fs::read_dir(&log.control).unwrap().count(), 0, "nothing is left behind");
}

/// The page of a dead writer is still there when another writer, which has none there, is alive: whoever comes must not sleep on it.
#[test]
fn nobody_sleeps_on_the_page_of_a_dead_writer_while_another_one_writes() {
    let log = Log::new();
    let mut dead = Helper::start("hold", &log, "records=3");
    dead.expect("holding");
    dead.kill();
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let elsewhere = Log::at(log.path.clone());
    let mut writer = elsewhere.writer();
    let reader = log.reader();
    let mut tailer = reader.tail(0).unwrap();
    assert_eq!(take(&mut tailer, 3).len(), 3);
    for n in 0..20u8 {
        let appends = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(10));
            writer.append(&[n]).map(|_| writer)
        });
        assert_eq!(next(&mut tailer).payload(), [n]);
        writer = appends.join().unwrap().unwrap();
    }
    let counts = tailer.wait_counts();
    assert_eq!(counts.sleeps, 0, "{counts:?}");
    assert_eq!(reader.stat().unwrap().pid, Some(std::process::id()), "not the dead writer's");
}

/// The records lie behind what the page of a dead writer says, and do not fit into one step of reading.
#[test]
fn the_page_of_a_dead_writer_hides_nothing_of_a_long_log() {
    let (log, _elsewhere, mut writer, _) = with_a_stale_page(|_| None);
    (0..2000u32).for_each(|n| assert_eq!(writer.append(&[n as u8; 1000]).unwrap().sequence, 7 + u64::from(n)));
    writer.close().unwrap();
    for mode in [immuta::ReadMode::Auto, immuta::ReadMode::Mapped, immuta::ReadMode::Pread] {
        let reader = log.reader_options().read_mode(mode).open(&log.path).unwrap();
        assert_eq!(drain(&mut reader.tail(0).unwrap()).len(), 2007, "{mode:?}: all of it is published");
    }
}

/// A writer that was refused a helper thread stores no heartbeat while it appends nothing: its followers see by its records that it lives.
#[test]
fn a_writer_without_a_helper_thread_is_followed_by_its_page() {
    if !is_root() {
        return;
    }
    let log = Log::new();
    std::fs::set_permissions(log.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&log.control, PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::write(&log.path, b"").unwrap();
    chown(&log.path, Some(65534), Some(65534)).unwrap();
    let mut writer = Helper::start("write_alone", &log, "uid=65534");
    let notices = writer.expect("notices").join(" ");
    // The directory is another user's, so that it has no index either.
    assert!(notices.contains("NoHelper") && !notices.contains("NoControlPage"), "{notices}");
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let mut tailer =
        log.reader_options().wait_strategy(immuta::WaitStrategy::Park).open(&log.path).unwrap().tail(0).unwrap();
    for n in 0..300u32 {
        writer.say(&n.to_string());
        assert_eq!(next(&mut tailer).payload(), n.to_string().as_bytes());
    }
    until("it sleeps on the page", || {
        let nothing = tailer.next_timeout(std::time::Duration::from_millis(30));
        assert!(matches!(nothing, Err(immuta::Error::TimedOut { .. })));
        tailer.wait_counts().sleeps > 0
    });
    writer.succeeds();
}
