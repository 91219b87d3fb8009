//! The injury: a demo that fills the disk of whoever tries it, or that leaves processes, files or shared memory behind.

mod support;

use std::process::Output;

use nix::sys::signal::Signal;
use support::cli::on_a_terminal;
use support::crew::Crew;
use support::{Log, until};

/// A demo with a temporary directory of its own.
fn start(args: &[&str]) -> Crew {
    Crew::start("demo", args)
}

fn run(args: &[&str]) -> Output {
    start(args).end()
}

/// Returns once the demo has a log with something in it.
fn until_it_runs(demo: &Crew) {
    until("the demo runs", || demo.parts().len() > 1 && demo.bytes_of("demo.log") > 64 << 10);
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn it_ends_with_a_summary_and_leaves_nothing() {
    let output = run(&["--seconds", "1", "--readers", "2"]);
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
        let output = run(&["--seconds", "0.3", "--readers", "1", "--size", size, "--max-bytes", "64MiB"]);
        assert!(output.status.success(), "size {size}: {output:?}");
        assert!(stdout(&output).contains("consumer 1"), "size {size}");
    }
}

#[test]
fn the_log_stays_below_the_limit() {
    let mut demo = start(&["--seconds", "1", "--readers", "1", "--max-bytes", "16MiB"]);
    let mut largest = 0;
    until("the demo has ended", || {
        largest = largest.max(demo.bytes_of("demo.log"));
        demo.has_ended()
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
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn a_signal_ends_it_with_what_was_measured() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let demo = start(&["--seconds", "60", "--readers", "2", "--max-bytes", "256MiB"]);
        until_it_runs(&demo);
        demo.signal(signal);
        let output = demo.end();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(stdout(&output).contains("consumer 2"), "{output:?}");
    }
}

#[test]
fn nothing_outlives_a_demo_that_is_killed() {
    let demo = start(&["--seconds", "60", "--readers", "2", "--max-bytes", "256MiB"]);
    until_it_runs(&demo);
    demo.signal(Signal::SIGKILL);
    demo.end();
}
