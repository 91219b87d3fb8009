//! `immuta doctor --json`, and what it finds. Not a part of `support`: with serde_json in scope, other tests need more types.
#![allow(dead_code, reason = "each test binary uses its part of this")]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::cli::{Running, immuta, run};
use crate::support::{Log, bounded, until};

/// A user with no rights but everybody's.
pub const NOBODY: u32 = 65534;

/// What doctor finds: its exit code, and the object that it prints.
pub struct Report {
    pub code: Option<i32>,
    pub object: Value,
}

impl Report {
    pub fn of(output: &Output) -> Report {
        assert!(output.stderr.is_empty(), "it says: {}", String::from_utf8_lossy(&output.stderr));
        let object = serde_json::from_slice(&output.stdout).expect("an object");
        Report { code: output.status.code(), object }
    }

    /// The findings of one check, as `(level, found, remedy)`.
    pub fn of_check(&self, check: &str) -> Vec<(&str, &str, &str)> {
        let findings = self.object["findings"].as_array().expect("findings");
        findings
            .iter()
            .filter(|finding| finding["check"] == check)
            .map(|finding| {
                let text = |field: &str| finding[field].as_str().unwrap_or_default();
                (text("level"), text("found"), text("remedy"))
            })
            .collect()
    }

    /// The exit code is this one, and one finding of this check and level has all of the words in it or in its remedy.
    #[track_caller]
    pub fn has(&self, code: i32, check: &str, level: &str, words: &[&str]) -> &Report {
        let all = || serde_json::to_string_pretty(&self.object).unwrap();
        assert_eq!(self.code, Some(code), "{}", all());
        assert_eq!(self.object["ok"], json!(code == 0));
        let fits = |(is, found, remedy): &(&str, &str, &str)| {
            *is == level && words.iter().all(|word| found.contains(word) || remedy.contains(word))
        };
        assert!(self.of_check(check).iter().any(fits), "no {level} of {check} with {words:?}: {}", all());
        self
    }
}

pub fn doctor(log: &Log, args: &[&str]) -> Report {
    Report::of(&run(log, &[&["doctor", "--json"], args].concat()))
}

/// As another user, who may search the log's directories.
pub fn doctor_as(user: u32, log: &Log, args: &[&str]) -> Report {
    let mut command = immuta(log, &[&["doctor", "--json"], args].concat());
    command.uid(user).gid(user);
    Report::of(&bounded("doctor", move || command.output().expect("immuta runs")))
}

/// A log whose directories all users may search.
pub fn open_to_all() -> Log {
    let log = Log::new();
    set_mode(log.dir.path(), 0o755);
    set_mode(&log.control, 0o1777);
    log
}

pub fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A writer that has appended a record.
pub fn live(log: &Log) -> Running {
    let records = || if log.path.exists() { log.reader().stat().map_or(0, |stat| stat.records) } else { 0 };
    let before = records();
    let mut append = Running::start(log, &["append", "events.log"]);
    append.say("a record");
    until("it is there", || records() > before);
    append
}

/// Kills a writer once it has appended a record.
pub fn killed(log: &Log) -> u32 {
    let append = live(log);
    append.signal(Signal::SIGKILL);
    let pid = append.id();
    append.end();
    pid
}
