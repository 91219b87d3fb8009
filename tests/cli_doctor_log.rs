//! `immuta doctor LOG`: a log, or the place where it would be.

#[path = "support/doctor.rs"]
mod report;
mod support;

use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt;

use fs2::FileExt;
use immuta::Reader;
use report::{NOBODY, doctor, doctor_as, killed, live, open_to_all, set_mode, text};
use serde_json::{Value, json};
use support::cli::{Running, immuta, ok};
use support::mount::Mount;
use support::{Log, is_root, skip, until};

#[test]
fn a_finding_has_four_fields() {
    let log = Log::new();
    ok(&log, &["append", "events.log"], b"abc\n");
    let report = doctor(&log, &["events.log"]);
    assert_eq!(
        (report.code, &report.object["ok"], &report.object["log"]),
        (Some(0), &json!(true), &json!("events.log"))
    );
    assert_eq!(report.object.as_object().unwrap().len(), 3);
    for finding in report.object["findings"].as_array().unwrap() {
        assert_eq!(finding.as_object().unwrap().len(), 4, "{finding}");
        assert!(finding["check"].is_string() && finding["found"].is_string(), "{finding}");
        assert_eq!(finding["level"] == "ok", finding["remedy"].is_null(), "{finding}");
    }
    report.has(0, "log", "ok", &["events.log", "records 1"]).has(0, "writer", "ok", &["none"]);
    report.has(0, "control_page", "ok", &[text(&log.page())]).has(0, "logrotate", "ok", &[]);
    assert_eq!(doctor(&log, &[]).object["log"], Value::Null);
}

#[test]
fn a_name_that_is_taken() {
    let log = Log::new();
    ok(&log, &["append", "events.log"], b"abc\n");
    std::fs::create_dir(log.page()).unwrap();
    let page = log.page();
    doctor(&log, &["events.log"]).has(1, "control_page", "problem", &["taken by no ordinary file", text(&page)]);
    std::fs::remove_dir(&page).unwrap();
    symlink("/etc/passwd", &page).unwrap();
    doctor(&log, &["events.log"]).has(1, "control_page", "problem", &["taken by no ordinary file"]);
    std::fs::remove_file(&page).unwrap();
    std::fs::write(&page, vec![0; 4096]).unwrap();
    doctor(&log, &["events.log"]).has(0, "control_page", "warning", &["does not hold a control page", "rm "]);
    if is_root() {
        set_mode(&page, 0o640);
        chown(&page, Some(NOBODY), None).unwrap();
        let words = ["a file of user 65534, mode 0640", text(&page), "remove it"];
        doctor(&log, &["events.log"]).has(1, "control_page", "problem", &words);
    }
}

#[test]
fn a_page_of_an_earlier_file() {
    let log = Log::new();
    killed(&log);
    let pages = [log.page(), log.bell()];
    let bytes = pages.each_ref().map(|path| std::fs::read(path).unwrap());
    std::fs::rename(&log.path, log.dir.path().join("earlier.log")).unwrap();
    ok(&log, &["append", "events.log"], b"abc\n");
    std::fs::write(log.page(), &bytes[0]).unwrap();
    doctor(&log, &["events.log"]).has(0, "control_page", "warning", &["stale", "an earlier file"]);
    for (at, words) in [(48, "before the machine was started"), (8, "another version"), (0, "does not hold")] {
        let mut page = bytes[0].clone();
        page[at] ^= 0x40;
        std::fs::write(log.page(), &page).unwrap();
        doctor(&log, &["events.log"]).has(0, "control_page", "warning", &[words]);
    }
}

#[test]
fn a_user_who_may_not() {
    if !is_root() {
        return;
    }
    let log = open_to_all();
    ok(&log, &["append", "events.log"], b"abc\n");
    set_mode(&log.path, 0o644);
    let report = doctor_as(NOBODY, &log, &["events.log"]);
    report.has(
        1,
        "permissions",
        "problem",
        &["user 65534 may follow it, but not append", "user 0, mode 0644", "chmod"],
    );
    report.has(1, "directory", "warning", &["neither an index nor side files"]);
    set_mode(&log.path, 0o600);
    doctor_as(NOBODY, &log, &["events.log"]).has(1, "permissions", "problem", &["cannot read it", "mode 0600"]);
    set_mode(&log.path, 0o666);
    doctor_as(NOBODY, &log, &["events.log"]).has(0, "permissions", "warning", &["anybody may cut it", "chmod o-w"]);
    doctor_as(NOBODY, &log, &["none.log"]).has(1, "directory", "problem", &["cannot create the log"]);
    set_mode(log.dir.path(), 0o700);
    let output = immuta(&log, &["doctor", text(&log.path)]).current_dir("/").uid(NOBODY).gid(NOBODY).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn a_user_who_follows_a_live_log() {
    if !is_root() {
        return;
    }
    let log = open_to_all();
    let append = live(&log);
    set_mode(&log.path, 0o644);
    let report = doctor_as(NOBODY, &log, &["events.log"]);
    report.has(0, "permissions", "ok", &["user 65534 may follow it"]);
    report.has(0, "doorbell", "warning", &["not woken", "mode 0600", "doorbell_mode"]);
    assert_eq!(append.end().0, Some(0));
}

#[test]
fn a_log_on_a_read_only_or_a_full_file_system() {
    if !is_root() {
        return;
    }
    let mount = Mount::tmpfs(4 << 20);
    let log = Log::at(mount.dir.join("events.log"));
    ok(&log, &["append", text(&log.path)], b"abc\n");
    let report = doctor(&log, &[text(&log.path)]);
    report.has(0, "file_system", "warning", &["tmpfs", "in memory"]).has(0, "free_space", "warning", &["little"]);
    let filler = mount.fill();
    doctor(&log, &[text(&log.path)]).has(1, "free_space", "problem", &["are needed", text(&mount.dir)]);
    std::fs::remove_file(filler).unwrap();
    mount.make_read_only();
    let report = doctor(&log, &[text(&log.path)]);
    report.has(1, "permissions", "problem", &["Read-only file system", "not append", "remount,rw"]);
    let other = mount.dir.join("other.log");
    doctor(&log, &[text(&other)]).has(1, "directory", "problem", &["cannot create the log", "Read-only"]);
}

#[test]
fn a_log_in_a_lower_layer() {
    if !is_root() {
        return;
    }
    let place = Mount::tmpfs(4 << 20);
    let Some(mount) = Mount::overlay(&place.dir) else { return skip("overlayfs cannot be mounted") };
    std::fs::write(place.dir.join("lower/old.log"), b"").unwrap();
    let log = Log::new();
    let (old, new) = (mount.dir.join("old.log"), mount.dir.join("new.log"));
    std::fs::write(&new, b"").unwrap();
    doctor(&log, &[text(&old)]).has(0, "file_system", "warning", &["overlay", "lies in a lower layer", "volume"]);
    doctor(&log, &[text(&new)]).has(0, "file_system", "warning", &["overlay", "upper layer"]);
    let layer = "upper/old.log";
    assert!(!place.dir.join(layer).exists(), "looking copies nothing up");
    let mut append = Running::start(&log, &["append", text(&old)]);
    append.say("a record");
    until("it is there", || Reader::open(&old).is_ok_and(|reader| reader.stat().is_ok_and(|stat| stat.records == 1)));
    let report = doctor(&log, &[text(&old)]);
    report.has(0, "file_system", "warning", &["upper layer"]).has(0, "leftovers", "ok", &["live writer: 1"]);
    append.end();
}

#[test]
fn a_log_that_does_not_exist_yet() {
    let log = Log::new();
    let report = doctor(&log, &["events.log"]);
    report.has(0, "log", "ok", &["does not exist yet", "."]).has(0, "directory", "ok", &["may create files in ."]);
    doctor(&log, &["none/events.log"]).has(1, "log", "problem", &["cannot be created", "mkdir -p none"]);
    symlink("none/events.log", log.dir.path().join("link")).unwrap();
    doctor(&log, &["link"]).has(1, "log", "problem", &["link that leads nowhere"]);
    doctor(&log, &["."]).has(1, "log", "problem", &["not an ordinary file"]);
    assert!(!log.path.exists());
}

#[test]
fn a_log_that_is_damaged_locked_or_was_cut() {
    let log = Log::new();
    std::fs::write(&log.path, 9u64.to_le_bytes()).unwrap();
    doctor(&log, &["events.log"]).has(1, "log", "problem", &["damaged at position 0", "immuta verify events.log"]);
    std::fs::write(&log.path, b"").unwrap();
    let file = std::fs::File::open(&log.path).unwrap();
    FileExt::lock_exclusive(&file).unwrap();
    let process = format!("process {}", std::process::id());
    doctor(&log, &["events.log"]).has(1, "writer", "problem", &[&process, "no writer can start"]);
    FileExt::unlock(&file).unwrap();
    std::fs::write(log.dir.path().join("events.log.lost-1700000000"), b"x").unwrap();
    doctor(&log, &["events.log"]).has(0, "side_files", "warning", &["events.log.lost-1700000000", "rm "]);
}

#[test]
fn logrotate_that_is_told_to_cut_the_log() {
    let log = Log::new();
    ok(&log, &["append", "events.log"], b"abc\n");
    let etc = log.dir.path().join("etc");
    let rules = etc.join("logrotate.d");
    std::fs::create_dir_all(&rules).unwrap();
    std::fs::write(etc.join("logrotate.conf"), format!("weekly\ninclude {}\n", rules.display())).unwrap();
    let rule = |directives: &str| {
        let rule = format!("/other/*.log {}/*.log\n{{\n  daily\n{directives}}}\n", log.dir.path().display());
        std::fs::write(rules.join("app"), rule).unwrap();
        doctor(&log, &["events.log", "--etc", text(&etc)])
    };
    let file = rules.join("app");
    rule("  copytruncate\n").has(1, "logrotate", "problem", &[text(&file), "copytruncate", "SIGBUS", "*.log"]);
    rule("  create\n").has(0, "logrotate", "warning", &[text(&file), "renamed"]);
    std::fs::write(etc.join("logrotate.conf"), "copytruncate\n").unwrap();
    rule("  rotate 4\n").has(1, "logrotate", "problem", &["copytruncate"]);
    rule("  nocopytruncate\n").has(0, "logrotate", "warning", &["renamed"]);
    std::fs::remove_file(&file).unwrap();
    doctor(&log, &["events.log", "--etc", text(&etc)]).has(0, "logrotate", "ok", &["no configuration"]);
}
