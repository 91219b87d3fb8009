//! The injury: one reader of another user, who may do no more than read, keeps the writer or the other readers from their work: it takes
//! the lock, moves sleepers away, rings without end, has the names that the writer needs, stops in the midst of a read. While it is at
//! it, each append returns and an honest reader gets each record. Needs root, to become other users.

mod support;

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use immuta::{Error, Notice, Writer};
use nix::sys::signal::Signal;
use support::forge::index_path;
use support::process::Helper;
use support::{Log, drain, is_root, take};

const NOBODY: u32 = 65534;
const WRITER: u32 = 65533;

/// A record takes no longer than this on its way. A sleep is bounded by 200 ms; the rest is for a machine that is busy.
const IN_TIME: Duration = Duration::from_secs(5);

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// A log that all may read, in directories in which all may make files, and nobody may take those of others away.
fn open_to_all() -> Log {
    let log = Log::new();
    set_mode(log.dir.path(), 0o1777);
    set_mode(&log.control, 0o1777);
    log
}

fn writer(log: &Log) -> Writer {
    log.writer_options().mode(0o644).open(&log.path).unwrap()
}

/// A hostile reader that is at it.
fn hostile(log: &Log, act: &str) -> Helper {
    let hostile = Helper::start("hostile", log, &format!("uid={NOBODY} act={act}"));
    hostile.expect("acting");
    hostile
}

/// Appends 30 records, with pauses in which an honest reader falls asleep; each append returns and each record comes, in time.
#[track_caller]
fn goes_on(log: &Log, writer: &mut Writer) {
    let sleeper = Helper::start("follow", log, "start=-1 wait=park report=1 until=30");
    let other = Helper::start("follow", log, &format!("start=-1 wait=park report=1 until=30 uid={NOBODY}"));
    sleeper.expect("ready");
    other.expect("ready");
    for n in 1..=30 {
        std::thread::sleep(Duration::from_millis(if n % 10 == 0 { 30 } else { 2 }));
        let begin = Instant::now();
        writer.append(&[n as u8; 100]).unwrap();
        assert!(begin.elapsed() < IN_TIME, "an append takes {:?}", begin.elapsed());
        assert_eq!((sleeper.numbers("at"), other.numbers("at")), (vec![n], vec![n]));
        assert!(begin.elapsed() < IN_TIME, "a record takes {:?}", begin.elapsed());
    }
    sleeper.expect("done");
    other.expect("done");
    sleeper.succeeds();
    other.succeeds();
}

#[test]
fn it_wants_the_lock() {
    if !is_root() {
        return;
    }
    let log = open_to_all();
    let mut first = writer(&log);
    // While there is a writer it cannot have it.
    let refused = Helper::start("hostile", &log, &format!("uid={NOBODY} act=lock"));
    assert_eq!(refused.expect("refused"), [libc::EAGAIN.to_string()]);
    let waits = hostile(&log, "wait_for_lock");
    goes_on(&log, &mut first);
    first.close().unwrap();
    waits.expect("acting");
    // Now it can, and keep a writer from starting, which says who it is.
    let begin = Instant::now();
    match log.writer_options().open(&log.path) {
        Err(error @ Error::Locked { pid, .. }) => {
            assert_eq!(pid, Some(waits.id()), "{error}");
            assert!(error.to_string().contains(&waits.id().to_string()), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(begin.elapsed() < IN_TIME, "it does not wait for long");
    assert_eq!(log.reader().stat().unwrap().records, 30, "readers need no lock");
    drop(waits);
    goes_on(&log, &mut writer(&log));
}

#[test]
fn it_locks_the_byte_that_tells_of_a_writer() {
    if !is_root() {
        return;
    }
    let log = open_to_all();
    let mut first = writer(&log);
    let refused = Helper::start("hostile", &log, &format!("uid={NOBODY} act=lock_byte"));
    assert_eq!(refused.expect("refused"), [libc::EAGAIN.to_string()]);
    goes_on(&log, &mut first);
    first.close().unwrap();
    let locks = hostile(&log, "lock_byte");
    assert_ne!(log.reader().writer().unwrap(), immuta::WriterState::Alive, "a reader's lock looks like no writer's");
    let begin = Instant::now();
    assert!(matches!(log.writer_options().open(&log.path), Err(Error::Locked { .. })));
    assert!(begin.elapsed() < IN_TIME);
    drop(locks);
    goes_on(&log, &mut writer(&log));
}

#[test]
fn it_moves_sleepers_away_or_wakes_them_all_the_time() {
    if !is_root() {
        return;
    }
    for act in ["requeue", "wake"] {
        let log = open_to_all();
        let mut writer = writer(&log);
        let _hostile = hostile(&log, act);
        goes_on(&log, &mut writer);
    }
}

#[test]
fn it_may_not_ring_and_where_it_may_it_rings_without_end() {
    if !is_root() {
        return;
    }
    let log = open_to_all();
    let mut first = writer(&log);
    for act in ["ring", "cut_bell"] {
        let refused = Helper::start("hostile", &log, &format!("uid={NOBODY} act={act}"));
        assert_eq!(refused.expect("refused"), [libc::EACCES.to_string()]);
    }
    goes_on(&log, &mut first);
    first.close().unwrap();
    let mut writer = log.writer_options().doorbell_mode(0o666).open(&log.path).unwrap();
    let _rings = hostile(&log, "ring");
    goes_on(&log, &mut writer);
}

/// What the documentation of `doorbell_mode` warns of, and that even then no record is lost.
#[test]
fn it_can_end_a_writer_only_where_the_doorbell_was_opened_to_it() {
    if !is_root() {
        return;
    }
    let log = open_to_all();
    writer(&log).close().unwrap();
    let mut victim = Helper::start("hold", &log, "records=10 bell_mode=438");
    victim.expect("holding");
    let mut honest = log.reader().tail(0).unwrap();
    let _cuts = hostile(&log, "cut_bell");
    victim.say("the last");
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(victim.wait().signal(), Some(libc::SIGBUS));
    // The record was published before the doorbell was looked at.
    assert_eq!(take(&mut honest, 11)[10], b"the last");
    goes_on(&log, &mut writer(&log));
}

/// Every name that a writer will need, taken by files, links, directories and pipes of another user. The writer is an ordinary user.
#[test]
fn it_has_the_names_that_the_writer_needs() {
    if !is_root() {
        return;
    }
    for kind in ["file", "link", "directory", "pipe"] {
        let log = open_to_all();
        std::fs::write(&log.path, b"").unwrap();
        chown(&log.path, Some(WRITER), Some(WRITER)).unwrap();
        set_mode(&log.path, 0o644);
        let victim = log.dir.path().join("victim");
        std::fs::write(&victim, vec![7; 8192]).unwrap();
        chown(&victim, Some(WRITER), Some(WRITER)).unwrap();
        let behind = |path: &Path, suffix: &str| std::path::PathBuf::from(format!("{}{suffix}", path.display()));
        let names = [log.page(), behind(&log.page(), ".new"), log.bell(), behind(&log.bell(), ".new")];
        let beside = [".idx", ".idx.new", ".recovered", ".lost.new"].map(|suffix| behind(&log.path, suffix));
        for name in names.iter().chain(&beside) {
            match kind {
                "file" => std::fs::write(name, vec![9; 4096]).unwrap(),
                "link" => symlink(&victim, name).unwrap(),
                "directory" => std::fs::create_dir(name).unwrap(),
                _ => nix::unistd::mkfifo(name, nix::sys::stat::Mode::S_IRWXU).unwrap(),
            }
            nix::unistd::fchownat(
                nix::fcntl::AT_FDCWD,
                name,
                Some(NOBODY.into()),
                Some(NOBODY.into()),
                nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
            )
            .unwrap();
        }
        let mut holder = Helper::start("hold", &log, &format!("uid={WRITER} records=5"));
        assert_eq!(holder.expect("holding"), ["5"], "{kind}");
        let sleeper = Helper::start("follow", &log, "report=1 until=8");
        sleeper.expect("ready");
        for n in 1..=8u64 {
            if n > 5 {
                holder.say("one more");
                holder.expect("appended");
            }
            assert_eq!(sleeper.numbers("at"), [n], "{kind}");
        }
        sleeper.expect("done");
        sleeper.succeeds();
        holder.succeeds();
        assert_eq!(log.reader().verify(|_| true).unwrap().problem, None);
        assert_eq!(std::fs::read(&victim).unwrap(), vec![7; 8192], "nothing was written where a link led");
        for name in names.iter().chain(&beside) {
            assert!(name.symlink_metadata().is_ok(), "{kind}: it is not the writer's to remove: {}", name.display());
        }
        // Root may take them away, but needs not believe them.
        let root = log.writer_options().open(&log.path).unwrap();
        assert!(
            root.notices().iter().all(|notice| matches!(notice, Notice::NoControlPage { .. } | Notice::NoIndex { .. }))
        );
        assert_eq!(root.stat().unwrap().records, 8);
    }
}

/// An index that looks right in all but its owner.
#[test]
fn it_forges_an_index() {
    if !is_root() {
        return;
    }
    let log = open_to_all();
    let mut first = writer(&log);
    for n in 0..500u64 {
        first.append(&n.to_le_bytes()).unwrap();
    }
    first.close().unwrap();
    let mut image = support::forge::Image::take(&log);
    // It says that all was closed at half of the log.
    let last = image.entries().len() - 1;
    image.edit(last, |entry| entry[24..32].copy_from_slice(&250u64.to_le_bytes()));
    std::fs::write(index_path(&log), &image.index).unwrap();
    chown(index_path(&log), Some(NOBODY), Some(NOBODY)).unwrap();
    assert_eq!(log.reader().get(400).unwrap(), Some(400u64.to_le_bytes().to_vec()));
    let verified = log.reader().verify(|_| true).unwrap();
    assert_eq!((verified.problem, verified.index), (None, immuta::IndexState::Missing));
    assert_eq!(drain(&mut writer_and_reader(&log)).len(), 500);
}

fn writer_and_reader(log: &Log) -> immuta::Tailer {
    writer(log).close().unwrap();
    log.reader().tail(0).unwrap()
}

#[test]
fn it_stops_in_the_midst_of_a_read() {
    if !is_root() {
        return;
    }
    for read in ["mapped", "pread"] {
        let log = open_to_all();
        let mut first = writer(&log);
        let stopped = Helper::start("follow", &log, &format!("uid={NOBODY} read={read} report=1000 until=200060"));
        stopped.expect("ready");
        for n in 0..100_000u32 {
            first.append(&n.to_le_bytes()).unwrap();
        }
        assert_eq!(stopped.numbers("at"), [1000]);
        stopped.signal(Signal::SIGSTOP);
        goes_on(&log, &mut first);
        // It is cut, closed and opened again under its eyes.
        first.close().unwrap();
        let mut second = writer(&log);
        goes_on(&log, &mut second);
        for n in 0..100_000u32 {
            second.append(&n.to_le_bytes()).unwrap();
        }
        second.close().unwrap();
        stopped.signal(Signal::SIGCONT);
        for n in 2..=200 {
            assert_eq!(stopped.numbers("at"), [n * 1000]);
        }
        assert_eq!(stopped.numbers("done")[0], 200_060);
        stopped.succeeds();
    }
}

#[test]
fn it_holds_a_thousand_descriptors() {
    if !is_root() {
        return;
    }
    let log = open_to_all();
    writer(&log).close().unwrap();
    let _holds = hostile(&log, "descriptors");
    let mut first = writer(&log);
    goes_on(&log, &mut first);
    first.close().unwrap();
    goes_on(&log, &mut writer(&log));
}
