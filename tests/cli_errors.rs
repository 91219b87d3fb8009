//! The injury: a bad input that is told by a panic, a hang, a wrong exit code, or by nothing at all; or that is "repaired".

mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::cli::{Running, fails, immuta, is_failure, ok, on_a_terminal, run, run_with, text};
use support::mount::Mount;
use support::{Log, bounded, encode, is_root, until};

/// Files that are no logs, and what is wrong with them: the sequence, the position.
fn damaged() -> Vec<(Vec<u8>, Option<u64>, u64)> {
    let sound = encode(&["abc", "defgh"]);
    let with = |at: usize, number: u64| {
        let mut bytes = sound.clone();
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        bytes
    };
    let mut files: Vec<_> = (1..8).map(|len| (vec![0; len], None, 0)).collect();
    files.push((with(0, 1 << 40), None, 0));
    files.push((with(0, u64::MAX), None, 0));
    files.push((with(8, u64::MAX), Some(0), 8));
    files.push((with(8, u64::MAX - 7), Some(0), 8));
    files.push((with(19, 6), Some(1), 19));
    files.push((sound[..sound.len() - 1].to_vec(), Some(1), 19));
    files
}

#[test]
fn damage_is_told_and_left_as_it_is() {
    for (bytes, sequence, position) in damaged() {
        let log = Log::new();
        std::fs::write(&log.path, &bytes).unwrap();
        for args in [
            &["cat", "events.log"][..],
            &["tail", "-n", "+0", "events.log"],
            &["get", "events.log", "1"],
            &["append", "events.log"],
        ] {
            let output = run(&log, args);
            is_failure(&output, 5, &["events.log", &format!("position {position}")]);
            assert_eq!(log.bytes(), bytes, "{args:?} changed the file");
        }
        let output = run(&log, &["verify", "--json", "events.log"]);
        assert_eq!(output.status.code(), Some(5));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&report["ok"], &report["problem"]["sequence"], &report["problem"]["position"]),
            (&json!(false), &json!(sequence), &json!(position))
        );
        assert_eq!(report["records"], json!(sequence.unwrap_or(0)));
        assert_eq!(run(&log, &["verify", "events.log"]).status.code(), Some(5));
        assert_eq!(log.bytes(), bytes);
    }
}

#[test]
fn a_sound_log_is_verified_and_described() {
    let log = Log::new();
    ok(&log, &["append", "events.log"], b"abc\ndefgh\n");
    let report: Value = serde_json::from_str(&text(&log, &["verify", "--json", "events.log"])).unwrap();
    assert_eq!(report, json!({"ok": true, "records": 2, "end": 32, "problem": null, "index": "ok"}));
    assert!(text(&log, &["verify", "events.log"]).contains("ok, 2 records"));
    let stat = |log: &Log| serde_json::from_str::<Value>(&text(log, &["stat", "--json", "events.log"])).unwrap();
    let closed = json!({"path": "events.log", "records": 2, "end": 32, "file_bytes": 32, "durable_records": 2,
        "writer": {"state": "closed", "pid": null}});
    assert_eq!(stat(&log), closed);
    let mut append = Running::start(&log, &["append", "events.log"]);
    append.say("more");
    until("it is there", || log.reader().stat().is_ok_and(|stat| stat.records == 3));
    let alive = stat(&log);
    assert_eq!((&alive["writer"], &alive["end"]), (&json!({"state": "alive", "pid": append.id()}), &json!(44)));
    assert!(alive["file_bytes"].as_u64() > Some(44), "space is reserved ahead");
    append.signal(Signal::SIGKILL);
    append.end();
    assert_eq!(stat(&log)["writer"], json!({"state": "gone", "pid": null}));
    assert!(text(&log, &["stat", "events.log"]).contains("gone"));
    // The empty file is a log without records.
    let empty = Log::new();
    std::fs::write(&empty.path, b"").unwrap();
    assert_eq!(stat(&empty)["records"], 0);
    assert_eq!(text(&empty, &["cat", "events.log"]), "");
    assert!(text(&empty, &["verify", "events.log"]).contains("ok, 0 records"));
}

#[test]
fn verifying_a_large_log_shows_its_progress_on_a_terminal_only() {
    let log = Log::new();
    let sizes = [64u64 << 20, 64 << 20];
    let mut file = std::fs::File::create(&log.path).unwrap();
    let mut at = 8;
    // A log with holes: it takes no room on the disk.
    std::io::Write::write_all(&mut file, &(sizes.len() as u64).to_le_bytes()).unwrap();
    for size in sizes {
        std::os::unix::fs::FileExt::write_all_at(&file, &size.to_le_bytes(), at).unwrap();
        at += 8 + size;
    }
    file.set_len(at).unwrap();
    assert!(text(&log, &["verify", "events.log"]).starts_with("events.log: ok, 2 records"));
    let Some(shown) = on_a_terminal(&log, "verify events.log") else { return };
    assert!(shown.contains("of 128.00 MiB") && shown.contains("events.log: ok, 2 records"), "{shown}");
}

#[test]
fn what_is_missing_or_no_log_is_named() {
    let log = Log::new();
    let _socket = std::os::unix::net::UnixListener::bind(log.dir.path().join("socket")).unwrap();
    nix::unistd::mkfifo(&log.dir.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let commands = [&["cat"][..], &["tail"], &["tail", "-f"], &["stat"], &["verify"]];
    for command in commands {
        let with = |name| command.iter().copied().chain([name]).collect::<Vec<&str>>();
        fails(&log, &with("none"), 3, &["none", "no such log"]);
        for (name, kind) in
            [(".", "a directory"), ("socket", "a socket"), ("fifo", "a named pipe"), ("/dev/null", "a device")]
        {
            fails(&log, &with(name), 1, &[kind]);
            fails(&log, &["append", name], 1, &[kind]);
        }
    }
    fails(&log, &["get", "none", "0"], 3, &["no such log"]);
    fails(&log, &["append", "none/events.log"], 1, &["none/events.log"]);
}

#[test]
fn wrong_arguments_are_exit_code_2() {
    let log = Log::new();
    for args in [
        &["fly"][..],
        &[],
        &["cat"],
        &["cat", "events.log", "-o", "xml"],
        &["get", "events.log", "first"],
        &["get", "events.log", "-1"],
        &["tail", "-n", "x", "events.log"],
        &["tail", "-n", "+", "events.log"],
        &["tail", "--timeout", "soon", "events.log"],
        &["append", "--delimiter", "ab", "events.log"],
        &["append", "-0", "--whole", "events.log"],
        &["append", "--frames", "--delimiter", ",", "events.log"],
        &["completions", "fishnet"],
    ] {
        let output = run(&log, args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}: {output:?}");
    }
    assert!(!log.path.exists());
}

#[test]
fn help_has_an_example_for_every_command() {
    let log = Log::new();
    for command in ["append", "cat", "tail", "get", "stat", "verify", "demo", "bench", "completions"] {
        let help = text(&log, &[command, "--help"]);
        assert!(help.contains("Example") && help.contains(&format!("immuta {command}")), "{help}");
    }
    assert!(text(&log, &["--help"]).contains("Exit codes"));
    assert_eq!(text(&log, &["--version"]), concat!("immuta ", env!("CARGO_PKG_VERSION"), "\n"));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = text(&log, &["completions", shell]);
        assert!(script.contains("verify") && script.contains("max-bytes") && script.contains("version"), "{shell}");
        let hidden = script.contains("demo-part") || script.contains("bench-part");
        assert!(!hidden, "{shell}: what nobody is to type is not offered");
    }
}

#[test]
fn a_file_without_the_rights_to_it_is_told_so() {
    if !is_root() {
        return;
    }
    let log = Log::new();
    ok(&log, &["append", "events.log"], b"secret");
    std::fs::set_permissions(log.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&log.path, PermissionsExt::from_mode(0o600)).unwrap();
    for args in [&["cat", "events.log"][..], &["append", "events.log"]] {
        let mut command = immuta(&log, args);
        command.uid(65534);
        let output = bounded("immuta", move || command.output().unwrap());
        is_failure(&output, 1, &["events.log", "Permission denied"]);
    }
}

#[test]
fn a_read_only_file_system_is_read_and_not_appended_to() {
    if !is_root() {
        return;
    }
    let mount = Mount::tmpfs(1 << 20);
    let log = Log::at(mount.dir.join("events.log"));
    let path = log.path.to_str().unwrap();
    ok(&log, &["append", path], b"before\n");
    mount.make_read_only();
    fails(&log, &["append", path], 1, &["events.log", "Read-only file system"]);
    assert_eq!(text(&log, &["cat", path]), "before\n");
}

#[test]
fn a_full_disk_is_an_error_and_appending_goes_on_once_there_is_room() {
    if !is_root() {
        return;
    }
    let mount = Mount::tmpfs(4 << 20);
    let log = Log::at(mount.dir.join("events.log"));
    let path = log.path.to_str().unwrap();
    ok(&log, &["append", path], b"before\n");
    let filler = mount.fill();
    let lines = b"a line of text\n".repeat(1 << 18);
    is_failure(&run_with(&log, &["append", path], &lines), 1, &["events.log", "No space left"]);
    let kept = log.parse();
    assert_eq!(kept[0], b"before");
    std::fs::remove_file(filler).unwrap();
    ok(&log, &["append", path], b"after\n");
    assert_eq!(log.parse(), [&kept[..], &[b"after".to_vec()]].concat());
}

#[test]
fn the_limit_of_the_file_size_is_an_error_and_no_signal() {
    let log = Log::new();
    ok(&log, &["append", "events.log"], b"before\n");
    let line = format!("ulimit -f 1024; exec {} append --whole events.log /dev/zero", env!("CARGO_BIN_EXE_immuta"));
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &line]).current_dir(log.dir.path()).env("IMMUTA_CONTROL_DIR", &log.control);
    let output = bounded("immuta", move || shell.output().unwrap());
    is_failure(&output, 1, &["events.log", "File too large"]);
    assert_eq!(log.bytes(), encode(&["before"]));
}
