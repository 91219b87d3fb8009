//! `immuta doctor`: on a sound machine it finds no problem; of what is wrong it finds each, says what to do, and changes nothing.

#[path = "support/doctor.rs"]
mod report;
mod support;

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use fs2::FileExt;
use nix::sys::signal::Signal;
use report::{NOBODY, Report, doctor, doctor_as, killed, live, open_to_all, set_mode, text};
use support::cli::{Running, immuta, ok, run};
use support::mount::Mount;
use support::{Log, is_root, until};

#[test]
fn a_sound_machine_has_no_problem() {
    let log = Log::new();
    let output = run(&log, &["doctor"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    for line in lines.lines() {
        assert!(["ok       ", "warning  ", "         remedy: "].iter().any(|start| line.starts_with(start)), "{line}");
    }
    for check in ["control directory: ", "leftovers: none", "descriptors: ", "kernel: Linux"] {
        assert!(lines.contains(check), "{check} is not in {lines}");
    }
    if is_root() {
        let mut log = log;
        let mount = Mount::tmpfs(4 << 20);
        log.control = mount.dir.clone();
        doctor(&log, &[]).has(0, "control_directory_file_system", "ok", &["tmpfs"]);
    }
}

#[test]
fn a_control_directory_that_is_missing_or_none() {
    let log = Log::new();
    std::fs::remove_dir(&log.control).unwrap();
    let name = text(&log.control);
    doctor(&log, &[]).has(1, "control_directory", "problem", &[name, "No such file", "mkdir", "IMMUTA_CONTROL_DIR"]);
    std::fs::write(&log.control, b"").unwrap();
    doctor(&log, &[]).has(1, "control_directory", "problem", &[name, "no directory"]);
}

#[test]
fn a_control_directory_that_is_full() {
    if !is_root() {
        return;
    }
    let mount = Mount::tmpfs(64 << 10);
    let mut log = Log::new();
    log.control = mount.dir.clone();
    mount.fill();
    doctor(&log, &[]).has(1, "control_directory_space", "problem", &[text(&mount.dir), "16.0 KiB"]);
}

#[test]
fn a_control_directory_with_the_wrong_rights() {
    let log = open_to_all();
    set_mode(&log.control, 0o777);
    doctor(&log, &[]).has(0, "control_directory", "warning", &["sticky", "chmod +t"]);
    if is_root() {
        set_mode(&log.control, 0o755);
        let words = ["user 65534 can create nothing", "mode 0755", "chmod 1777"];
        doctor_as(NOBODY, &log, &[]).has(1, "control_directory", "problem", &words);
    }
}

#[test]
fn what_a_killed_writer_left_is_named() {
    let log = Log::new();
    let pid = killed(&log);
    let (page, bell, process) = (log.page(), log.bell(), format!("process {pid},"));
    let files = [&format!("{} (4.00 KiB)", text(&page)), &format!("{} (4.00 KiB)", text(&bell)), &process, "rm "];
    doctor(&log, &[]).has(0, "leftovers", "warning", &files.map(|word| word as &str));
    let report = doctor(&log, &["events.log"]);
    report.has(0, "leftovers", "ok", &["none"]);
    report.has(0, "control_page", "warning", &["dead writer", &process[..process.len() - 1], text(&page)]);
    report.has(0, "writer", "warning", &["died", "behind the end", "immuta append events.log </dev/null"]);
    // The remedy is one.
    let recovered = support::cli::run(&log, &["append", "events.log"]);
    assert!(String::from_utf8_lossy(&recovered.stderr).contains("recovered: the last writer died"), "{recovered:?}");
    doctor(&log, &["events.log"]).has(0, "writer", "ok", &["closed"]).has(0, "leftovers", "ok", &["none"]);
    // Half of it, and what was never finished; of a log that is gone.
    killed(&log);
    std::fs::remove_file(log.page()).unwrap();
    let unfinished = log.bell().with_extension("bell.new");
    std::fs::write(&unfinished, b"").unwrap();
    std::fs::remove_file(&log.path).unwrap();
    std::fs::write(log.control.join("immuta-not-ours"), b"").unwrap();
    let report = doctor(&log, &[]);
    report.has(0, "leftovers", "warning", &[text(&bell), text(&unfinished), "died"]);
    assert!(!report.object.to_string().contains("not-ours"), "{}", report.object);
}

#[test]
fn a_live_writer_leaves_nothing() {
    let log = Log::new();
    let append = live(&log);
    let process = format!("process {}", append.id());
    let report = doctor(&log, &["events.log"]);
    report.has(0, "leftovers", "ok", &["live writer: 1"]).has(0, "writer", "ok", &[&process]);
    report.has(0, "control_page", "ok", &[&process, "believed"]).has(0, "doorbell", "ok", &["woken"]);
    set_mode(&log.bell(), 0o666);
    doctor(&log, &["events.log"]).has(0, "doorbell", "warning", &["mode 0666", "chmod o-w"]);
    // Stopped, it still is the writer.
    append.signal(Signal::SIGSTOP);
    until("its heartbeat is old", || {
        let report = doctor(&log, &["events.log"]);
        report.has(0, "leftovers", "ok", &["live writer: 1"]);
        report.of_check("control_page").iter().any(|(level, found, _)| *level == "warning" && found.contains("no life"))
    });
    append.signal(Signal::SIGCONT);
    // A follower elsewhere, or a page that was deleted.
    std::fs::remove_file(log.page()).unwrap();
    doctor(&log, &["events.log"]).has(0, "control_page", "warning", &["the writer has none", "IMMUTA_CONTROL_DIR"]);
    append.end();
}

#[test]
fn limits_that_are_too_low() {
    let log = Log::new();
    ok(&log, &["append", "events.log"], &[b'x'; 2000]);
    let with = |limit: &str| {
        let mut command = Command::new("sh");
        let line = format!("ulimit {limit} && exec {} doctor --json events.log", env!("CARGO_BIN_EXE_immuta"));
        command.args(["-c", &line]).current_dir(log.dir.path()).env("IMMUTA_CONTROL_DIR", &log.control);
        Report::of(&command.output().unwrap())
    };
    with("-f 2").has(1, "file_size", "problem", &["nothing could be appended", "ulimit -f unlimited"]);
    with("-f 1000000").has(0, "file_size", "warning", &["no log can grow beyond"]);
    with("-n 32").has(0, "descriptors", "warning", &["32 (ulimit -n)"]);
    with("-n 12").has(1, "descriptors", "problem", &["12 (ulimit -n)"]);
    with("-v 4194304").has(0, "address_space", "warning", &["64.0 GiB is halved"]);
}

/// Whoever looks must not heal, and must not be in the way of a writer that starts.
#[test]
fn nothing_is_changed_and_no_lock_is_taken() {
    let log = Log::new();
    killed(&log);
    let state = || {
        let mut files: Vec<_> = [log.dir.path(), &log.control]
            .iter()
            .flat_map(|directory| std::fs::read_dir(directory).unwrap())
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| (std::fs::read(&path).unwrap(), path.metadata().unwrap().ctime_nsec(), path))
            .collect();
        files.sort_by(|a, b| a.2.cmp(&b.2));
        files
    };
    let before = state();
    assert_eq!(before.len(), 4, "the log, its index, its control page, its doorbell");
    for args in [&["doctor", "events.log"][..], &["doctor"], &["doctor", "events.log", "--json"]] {
        assert!(run(&log, args).status.success());
        assert!(state() == before, "{args:?} changed something");
    }
    let follow = Running::start(&log, &["tail", "-f", "events.log"]);
    assert_eq!(follow.line(), "a record");
    drop(follow);
    let (file, mut looks) = (std::fs::File::open(&log.path).unwrap(), 0);
    let doctors: Vec<_> = (0..10).map(|_| immuta(&log, &["doctor", "events.log"]).spawn().unwrap()).collect();
    for mut doctor in doctors {
        while doctor.try_wait().unwrap().is_none() {
            FileExt::try_lock_exclusive(&file).expect("nobody else takes it");
            FileExt::unlock(&file).unwrap();
            looks += 1;
        }
    }
    assert!(looks > 0);
}
