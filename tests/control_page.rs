//! The injury: the control page is full, missing, squatted, stale or another log's, and the writer fails, or a record is lost,
//! or its followers hang. The file is the authority: all of them go on, more slowly.

mod support;

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::time::{Duration, Instant};

use immuta::{Notice, Start, Writer, WriterState};
use support::mount::Mount;
use support::process::Helper;
use support::{Log, drain, is_root, next, take, until};

/// The writer says once that it has no page; it appends, and readers follow, attached ones and new ones.
fn goes_on_without_a_page(log: &Log, mut writer: Writer) {
    let notices: Vec<_> =
        writer.notices().iter().filter(|notice| matches!(notice, Notice::NoControlPage { .. })).collect();
    assert_eq!(notices.len(), 1, "it says so once: {:?}", writer.notices());
    assert!(notices[0].to_string().contains("control page"), "{}", notices[0]);
    let mut attached = log.reader().tail(0).unwrap();
    for n in 0..10u8 {
        writer.append(&[n]).unwrap();
        assert_eq!(next(&mut attached).payload(), [n]);
    }
    let reader = log.reader();
    assert_eq!(reader.writer().unwrap(), WriterState::Alive);
    assert_eq!(reader.stat().unwrap().records, 10);
    assert_eq!(take(&mut reader.tail(Start::Last(3)).unwrap(), 3), [[7], [8], [9]]);
    let mut end = reader.tail(Start::End).unwrap();
    let mut batch = writer.batch();
    batch.append(b"together").unwrap();
    batch.append(b"at last").unwrap();
    batch.commit().unwrap();
    assert_eq!(take(&mut end, 2), [&b"together"[..], b"at last"]);
    writer.close().unwrap();
    assert_eq!(reader.writer().unwrap(), WriterState::Closed);
    assert_eq!(log.parse().len(), 12);
}

/// The names of a log that exists and is closed.
fn closed() -> Log {
    let log = Log::new();
    log.writer().close().unwrap();
    log
}

#[test]
fn a_control_directory_that_is_missing() {
    let log = closed();
    std::fs::remove_dir(&log.control).unwrap();
    goes_on_without_a_page(&log, log.writer());
}

/// Half of the records come in that time, however busy the machine is: DESIGN says 50 ms, for each.
#[test]
fn without_a_page_a_record_is_seen_within_50_ms() {
    let log = closed();
    std::fs::remove_dir(&log.control).unwrap();
    let mut writer = log.writer();
    let mut tailer = log.reader().tail(0).unwrap();
    const ROUNDS: usize = 10;
    let late = (0..ROUNDS).filter(|n| {
        // Appended while the follower waits, long enough that it looks as seldom as it ever does.
        let delay = std::thread::scope(|scope| {
            let append = scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(150));
                writer.append(&n.to_le_bytes()).unwrap();
                Instant::now()
            });
            assert_eq!(next(&mut tailer).payload(), n.to_le_bytes());
            let seen = Instant::now();
            seen.saturating_duration_since(append.join().unwrap())
        });
        delay > Duration::from_millis(50)
    });
    let late = late.count();
    assert!(late <= ROUNDS / 2, "{late} of {ROUNDS} records were seen after 50 ms");
}

#[test]
fn a_control_directory_that_is_a_file() {
    let log = closed();
    std::fs::remove_dir(&log.control).unwrap();
    std::fs::write(&log.control, b"not a directory").unwrap();
    goes_on_without_a_page(&log, log.writer());
}

#[test]
fn a_control_directory_that_is_full() {
    if !is_root() {
        return;
    }
    let mount = Mount::tmpfs(64 << 10);
    let mut log = closed();
    log.control = mount.dir.clone();
    mount.fill();
    goes_on_without_a_page(&log, log.writer());
    assert_eq!(std::fs::read_dir(&log.control).unwrap().count(), 1, "nothing but the filler is left behind");
}

#[test]
fn a_page_name_that_is_taken_by_a_directory() {
    let log = closed();
    std::fs::create_dir(log.page()).unwrap();
    std::fs::write(log.page().join("file"), b"").unwrap();
    goes_on_without_a_page(&log, log.writer());
    assert!(log.page().join("file").exists(), "it is not ours to remove");
}

#[test]
fn a_page_name_that_is_taken_by_a_link() {
    let log = closed();
    let victim = log.dir.path().join("victim");
    std::fs::write(&victim, vec![7; 8192]).unwrap();
    symlink(&victim, log.page()).unwrap();
    goes_on_without_a_page(&log, log.writer());
    assert_eq!(std::fs::read(&victim).unwrap(), vec![7; 8192], "nothing was written where it leads");
}

#[test]
fn a_page_name_that_is_taken_by_a_named_pipe() {
    let log = closed();
    nix::unistd::mkfifo(&log.page(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (path, options) = (log.path.clone(), log.writer_options());
    goes_on_without_a_page(&log, support::bounded("opening beside a pipe", move || options.open(path).unwrap()));
}

#[test]
fn a_page_name_that_is_taken_by_another_user() {
    if !is_root() {
        return;
    }
    for bell in [false, true] {
        let log = closed();
        let name = if bell { log.bell() } else { log.page() };
        std::fs::write(&name, vec![7; 4096]).unwrap();
        chown(&name, Some(65534), Some(65534)).unwrap();
        std::fs::set_permissions(&name, PermissionsExt::from_mode(0o666)).unwrap();
        goes_on_without_a_page(&log, log.writer());
        assert_eq!(std::fs::read(&name).unwrap(), vec![7; 4096], "it is not ours to write to");
    }
}

/// As a squatter would: a page that looks right in all but its owner, and says that nothing was ever published.
#[test]
fn a_page_of_another_user_is_not_believed() {
    if !is_root() {
        return;
    }
    let log = Log::new();
    let mut writer = log.writer();
    let page = std::fs::read(log.page()).unwrap();
    (0..5u8).for_each(|n| assert_eq!(writer.append(&[n]).unwrap().sequence, n.into()));
    std::fs::remove_file(log.page()).unwrap();
    std::fs::write(log.page(), page).unwrap();
    chown(log.page(), Some(65534), Some(65534)).unwrap();
    let reader = log.reader();
    assert_eq!(reader.stat().unwrap().records, 5);
    assert_eq!(drain(&mut reader.tail(0).unwrap()).len(), 5);
    assert!(drain(&mut reader.tail(Start::End).unwrap()).is_empty());
}

#[test]
fn a_page_that_is_deleted_while_it_is_followed() {
    let log = Log::new();
    let mut writer = log.writer();
    let mut attached = log.reader().tail(0).unwrap();
    writer.append(b"before").unwrap();
    assert_eq!(next(&mut attached).payload(), b"before");
    std::fs::remove_file(log.page()).unwrap();
    let mut late = log.reader().tail(0).unwrap();
    assert_eq!(next(&mut late).payload(), b"before");
    for n in 0..10u8 {
        writer.append(&[n]).unwrap();
        assert_eq!(next(&mut attached).payload(), [n]);
        assert_eq!(next(&mut late).payload(), [n]);
    }
    assert_eq!(log.reader().writer().unwrap(), WriterState::Alive);
    writer.close().unwrap();
    assert_eq!(std::fs::read_dir(&log.control).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_doorbell_that_is_deleted_while_it_is_used() {
    let log = Log::new();
    let mut writer = log.writer();
    let mut attached = log.reader().tail(0).unwrap();
    std::fs::remove_file(log.bell()).unwrap();
    let mut late = log.reader().tail(0).unwrap();
    for n in 0..10u8 {
        writer.append(&[n]).unwrap();
        assert_eq!(next(&mut attached).payload(), [n]);
        assert_eq!(next(&mut late).payload(), [n]);
    }
}

#[test]
fn a_page_of_another_log_is_not_believed() {
    let (log, other) = (Log::new(), Log::new());
    let mut writer = log.writer();
    let mut others = other.writer();
    (0..100u8).for_each(|n| assert_eq!(others.append(&[n]).unwrap().sequence, n.into()));
    (0..5u8).for_each(|n| assert_eq!(writer.append(&[n]).unwrap().sequence, n.into()));
    let mut attached = log.reader().tail(0).unwrap();
    std::fs::remove_file(log.page()).unwrap();
    std::fs::copy(other.page(), log.page()).unwrap();
    let reader = log.reader();
    assert_eq!(reader.stat().unwrap().records, 5);
    let mut late = reader.tail(0).unwrap();
    assert_eq!(drain(&mut late).len(), 5);
    writer.append(b"one more").unwrap();
    assert_eq!(take(&mut attached, 6)[5], b"one more");
    assert_eq!(next(&mut late).payload(), b"one more");
    drop(writer);
    // The next writer puts its own in place of it, or goes on without.
    let mut writer = log.writer();
    writer.append(b"and more").unwrap();
    assert_eq!(next(&mut attached).payload(), b"and more");
    assert_eq!(next(&mut late).payload(), b"and more");
}

/// A log that was deleted and written anew has other records; the page of the old one says how many that had.
#[test]
fn a_page_that_counts_more_than_the_file_is_not_believed() {
    let log = Log::new();
    let mut dead = Helper::start("hold", &log, "records=100");
    dead.expect("holding");
    dead.kill();
    let records: Vec<_> = (0..3u8).map(|n| [n]).collect();
    std::fs::write(&log.path, support::encode(&records)).unwrap();
    let reader = log.reader();
    assert_eq!(reader.stat().unwrap().records, 3);
    assert_eq!(drain(&mut reader.tail(0).unwrap()), records);
    assert_eq!(reader.tail(Start::End).unwrap().sequence(), 3);
}

#[test]
fn nothing_is_left_behind_after_a_close() {
    let log = Log::new();
    let mut writer = log.writer();
    assert_eq!(std::fs::read_dir(&log.control).unwrap().count(), 2, "a page and a doorbell");
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(log.page()) & 0o444, mode(log.path.clone()) & 0o444, "whoever may read the log may read its page");
    assert_eq!(mode(log.page()) & 0o022, 0, "nobody else may write it");
    assert_eq!(mode(log.bell()), 0o600);
    let mut tailer = log.reader().tail(0).unwrap();
    writer.append(b"one").unwrap();
    assert_eq!(next(&mut tailer).payload(), b"one");
    writer.close().unwrap();
    assert_eq!(std::fs::read_dir(&log.control).unwrap().count(), 0);
    until("the follower sees it", || tailer.writer().unwrap() == WriterState::Closed);
}

fn names(log: &Log) -> Vec<String> {
    let entries = std::fs::read_dir(&log.control).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn name(path: std::path::PathBuf) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_page_that_cannot_be_made_leaves_no_doorbell_behind() {
    let log = closed();
    let obstacle = log.page().with_extension("new");
    std::fs::create_dir(&obstacle).unwrap();
    goes_on_without_a_page(&log, log.writer());
    assert_eq!(names(&log), [name(obstacle)]);
}

/// In a sticky directory, as /dev/shm is, nobody can put his file in place of root's.
#[test]
fn a_page_that_cannot_be_put_in_place_leaves_no_doorbell_behind() {
    if !is_root() {
        return;
    }
    let log = closed();
    chown(&log.path, Some(65534), Some(65534)).unwrap();
    std::fs::set_permissions(log.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&log.control, PermissionsExt::from_mode(0o1777)).unwrap();
    std::fs::write(log.page(), vec![7; 4096]).unwrap();
    let helper = Helper::start("open", &log, "uid=65534");
    helper.expect("reader");
    assert_eq!(helper.expect("writer"), ["ok", "0"], "it goes on without a page");
    helper.succeeds();
    assert_eq!(names(&log), [name(log.page())], "root's page, and nothing of its own");
}
