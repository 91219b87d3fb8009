//! The injury: a demo that fills the disk of whoever tries it, or that leaves processes, files or shared memory behind.

mod support;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::cli::on_a_terminal;
use support::{Log, bounded, until};
use tempfile::TempDir;

/// A demo with a temporary directory of its own; killed if the test ends before it.
struct Demo {
    place: TempDir,
    control: TempDir,
    child: Option<Child>,
}

impl Demo {
    fn start(args: &[&str]) -> Demo {
        let (place, control) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_immuta"));
        command.arg("demo").args(args).env("TMPDIR", place.path()).env("IMMUTA_CONTROL_DIR", control.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Demo { child: Some(command.spawn().unwrap()), place, control }
    }

    fn run(args: &[&str]) -> Output {
        Demo::start(args).end()
    }

    fn id(&self) -> i32 {
        self.child.as_ref().unwrap().id() as i32
    }

    /// The processes that work in its directory, or did before it was removed.
    fn parts(&self) -> Vec<i32> {
        let place = self.place.path().as_os_str().as_encoded_bytes();
        let processes =
            std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        let works_here = |id: &i32| {
            let arguments = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            arguments.windows(place.len()).any(|bytes| bytes == place)
        };
        processes.filter(works_here).collect()
    }

    /// Returns once the demo has a log with something in it.
    fn until_it_runs(&self) {
        until("the demo runs", || self.parts().len() > 1 && log_bytes(self.place.path()) > 64 << 10);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id()), signal).unwrap();
    }

    /// Waits for its end, and looks for what it left behind.
    fn end(mut self) -> Output {
        let child = self.child.take().unwrap();
        let output = bounded("the end of the demo", move || child.wait_with_output().unwrap());
        until("its processes have ended", || self.parts().is_empty());
        for place in [&self.place, &self.control] {
            let left: Vec<_> = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect();
            assert!(left.is_empty(), "left behind: {left:?}");
        }
        output
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
        // By their ids; those that it left are the failure that is being reported.
        for id in self.parts() {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

/// The size of the demo's log, or 0.
fn log_bytes(place: &Path) -> u64 {
    let directories = std::fs::read_dir(place).into_iter().flatten().filter_map(Result::ok);
    directories
        .filter_map(|entry| std::fs::metadata(entry.path().join("demo.log")).ok())
        .map(|metadata| metadata.len())
        .sum()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn it_ends_with_a_summary_and_leaves_nothing() {
    let output = Demo::run(&["--seconds", "1", "--readers", "2"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let summary = stdout(&output);
    for part in ["producer ", "consumer 1 ", "consumer 2 ", "records/s", "p99.9", "it is removed"] {
        assert!(summary.contains(part), "{part:?} is not in: {summary}");
    }
    assert!(!summary.contains("consumer 3") && !summary.contains('\x1b'), "{summary}");
}

#[test]
fn a_terminal_gets_a_live_table_before_the_summary() {
    let log = Log::new();
    let Some(shown) = on_a_terminal(&log, "demo --seconds 1 --readers 1 --max-bytes 64MiB") else { return };
    let (table, summary) = shown.split_once("1 producer and 1 consumer process").expect("a summary");
    assert!(
        table.matches("producer ").count() > 1 && table.contains("consumer 1"),
        "it is drawn again and again: {shown}"
    );
    assert!(table.contains("p99") && summary.contains("p99.9"), "{shown}");
    assert_eq!(
        std::fs::read_dir(log.dir.path()).unwrap().count(),
        1,
        "the control directory of this test and nothing else"
    );
}

#[test]
fn records_of_every_size_will_do() {
    for size in ["0", "1", "8", "4096", "1MiB"] {
        let output = Demo::run(&["--seconds", "0.3", "--readers", "1", "--size", size, "--max-bytes", "64MiB"]);
        assert!(output.status.success(), "size {size}: {output:?}");
        assert!(stdout(&output).contains("consumer 1"), "size {size}");
    }
}

#[test]
fn the_log_stays_below_the_limit() {
    let mut demo = Demo::start(&["--seconds", "1", "--readers", "1", "--max-bytes", "16MiB"]);
    let mut largest = 0;
    until("the demo has ended", || {
        largest = largest.max(log_bytes(demo.place.path()));
        demo.child.as_mut().unwrap().try_wait().unwrap().is_some()
    });
    assert!((1 << 20..=16 << 20).contains(&largest), "{largest}");
    let output = demo.end();
    assert!(output.status.success() && stdout(&output).contains("ended the flat-out phase early"), "{output:?}");
}

#[test]
fn what_cannot_be_is_refused() {
    for args in
        [["--max-bytes", "much"], ["--max-bytes", "1k"], ["--seconds", "-1"], ["--readers", "0"], ["--size", "1TiB"]]
    {
        let output = Demo::run(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn a_signal_ends_it_with_what_was_measured() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let demo = Demo::start(&["--seconds", "60", "--readers", "2", "--max-bytes", "256MiB"]);
        demo.until_it_runs();
        demo.signal(signal);
        let output = demo.end();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(stdout(&output).contains("consumer 2"), "{output:?}");
    }
}

#[test]
fn nothing_outlives_a_demo_that_is_killed() {
    let demo = Demo::start(&["--seconds", "60", "--readers", "2", "--max-bytes", "256MiB"]);
    demo.until_it_runs();
    demo.signal(Signal::SIGKILL);
    demo.end();
}
