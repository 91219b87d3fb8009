//! Processes that go to another directory, or become another user, after they have opened a log.

use std::path::{Path, PathBuf};
use std::time::Duration;

use immuta::{ReaderOptions, Tailer, WriterOptions};

use crate::limits::{read_in_threads, verdict};
use crate::{Args, listen, say};

const LIMIT: Duration = Duration::from_secs(30);

/// Goes to where the log's directory lies; returns the log's name and that of its control directory as seen from there.
fn go_beside(args: &Args) -> (PathBuf, PathBuf) {
    let dir = Path::new(args.text("log")).parent().expect("a log lies in a directory");
    let beside = dir.parent().expect("and that in another");
    std::env::set_current_dir(beside).expect("to go there");
    let relative = |key: &str| Path::new(args.text(key)).strip_prefix(beside).expect("it lies below").to_owned();
    (relative("log"), relative("control"))
}

/// Asked for it, waits for the next record: `record SEQUENCE SLEEPS`, or `failed …`.
fn next_on_demand(mut tailer: Tailer) {
    while listen().is_some() {
        match tailer.next_timeout(LIMIT).map(|record| record.expect("nobody stops it").sequence()) {
            Ok(sequence) => say(format_args!("record {sequence} {}", tailer.wait_counts().sleeps)),
            Err(error) => say(format_args!("failed {error}")),
        }
    }
}

/// Opens the log by a relative name, goes to another directory, and follows.
pub fn follow_from_elsewhere(args: &Args) {
    let (log, control) = go_beside(args);
    let reader = ReaderOptions::new().control_dir(control).open(log).expect("the log opens");
    let tailer = reader.tail(0).expect("a tailer");
    std::env::set_current_dir("/").expect("to go elsewhere");
    say(format_args!("ready"));
    next_on_demand(tailer);
}

/// Opens the log by a relative name, goes to another directory, and writes: `sync VERDICT`, `close VERDICT`.
pub fn write_from_elsewhere(args: &Args) {
    let (log, control) = go_beside(args);
    let mut writer = WriterOptions::new().control_dir(control).open(log).expect("the log opens");
    std::env::set_current_dir("/").expect("to go elsewhere");
    writer.append(b"from elsewhere").expect("a record");
    say(format_args!("sync {}", verdict(writer.sync())));
    say(format_args!("close {}", verdict(writer.close())));
}

/// Opens the log, becomes the user `uid`, and follows; at the end eight threads read all of it: `read RECORDS`.
pub fn follow_with_fewer_rights(args: &Args) {
    let reader = args.reader().open(args.text("log")).expect("the log opens");
    let tailer = reader.tail(0).expect("a tailer");
    args.become_user();
    say(format_args!("ready"));
    next_on_demand(tailer);
    say(format_args!("read {}", read_in_threads(&reader)));
}

/// A writer without a helper thread: the user `uid` may have no more threads. Says `notices …`, then appends what it is told, and says
/// `durable N` to an empty line.
pub fn write_alone(args: &Args) {
    use nix::sys::resource::{Resource, setrlimit};
    args.become_user();
    setrlimit(Resource::RLIMIT_NPROC, 0, 0).expect("a limit");
    let mut writer = args.writer().open(args.text("log")).expect("the log opens");
    say(format_args!("notices {:?}", writer.notices()));
    while let Some(line) = listen() {
        if line.is_empty() {
            say(format_args!("durable {}", writer.durable()));
        } else {
            writer.append(line.as_bytes()).expect("a record");
        }
    }
    writer.close().expect("a clean close");
}
