//! The injury: a service is killed and started anew, in a container or a mount namespace of its own, or a log is reached by another
//! path through a bind mount; the next writer takes that for a new mount of the file system, as after the loss of its disk, and
//! sets aside what was published. Needs root, to mount.

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use immuta::{Durability, Evidence};
use support::process::Helper;
use support::{Log, is_root, skip};

/// A writer that appended five records, of which nothing was flushed, and was killed.
fn killed(log: &Log) {
    let mut writer = Helper::start("hold", log, "records=5 durability=buffered");
    writer.expect("holding");
    writer.kill();
}

/// What the next writer finds.
fn evidence(log: &Log, path: &Path) -> (Evidence, u64) {
    let writer = log.writer_options().durability(Durability::Buffered).open(path).unwrap();
    let stat = writer.stat().unwrap();
    let recovery = stat.recovery.unwrap();
    assert_eq!(recovery.discarded, None);
    (recovery.evidence, stat.records)
}

struct Bound<'a>(&'a Path);

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_log_that_is_reached_through_a_bind_mount_keeps_what_was_published() {
    if !is_root() {
        return;
    }
    let log = Log::new();
    killed(&log);
    let (place, dir) = (log.path.parent().unwrap(), log.control.join("bound"));
    std::fs::create_dir(&dir).unwrap();
    let bound = Command::new("mount").arg("--bind").args([place, &dir]).status();
    if !bound.is_ok_and(|status| status.success()) {
        return skip("no bind mount can be made here");
    }
    let _bound = Bound(&dir);
    assert_eq!(evidence(&log, &dir.join("events.log")), (Evidence::ProcessCrash, 5));
}

#[test]
fn a_service_that_is_started_anew_in_a_namespace_of_its_own_keeps_what_was_published() {
    if !is_root() {
        return;
    }
    let log = Log::new();
    let immuta = env!("CARGO_BIN_EXE_immuta");
    // Each in a namespace of its own; inode numbers of namespaces are given again at once.
    let append = |input: &str| {
        let mut command = Command::new("unshare");
        command.args(["-m", immuta, "append", "--durability", "buffered"]).arg(&log.path);
        command.env("IMMUTA_CONTROL_DIR", &log.control).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        use std::io::Write;
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        (child, stdin)
    };
    for round in 1..=3u64 {
        let (mut child, _stdin) = append("a\nb\nc\n");
        support::until("they are published", || {
            log.path.exists() && log.reader().stat().is_ok_and(|stat| stat.records == 3 * round)
        });
        // `unshare` has become the writer.
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("set aside"), "{said}");
        assert!(round == 1 || said.contains("the last writer died"), "{said}");
    }
    assert_eq!(evidence(&log, &log.path), (Evidence::ProcessCrash, 9));
}
