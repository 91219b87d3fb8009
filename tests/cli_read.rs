//! The injury: an output that another program cannot read back, a record too few at either end, a follower that misses one,
//! never ends, or ends without a word.

mod support;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::cli::{Running, fails, immuta, ok, on_a_terminal, run, text};
use support::{Log, bounded, until};

/// A log with the records "0" to "19".
fn twenty() -> Log {
    let log = Log::new();
    let mut writer = log.writer();
    for n in 0..20 {
        writer.append(n.to_string().as_bytes()).unwrap();
    }
    writer.close().unwrap();
    log
}

fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|n| format!("{n}\n")).collect()
}

/// The signals that a process has handlers for, a bit each, the first for signal 1.
fn caught_signals(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(mask.trim(), 16).unwrap()
}

#[test]
fn the_last_records_are_chosen_by_number_or_by_sequence() {
    let log = twenty();
    for (start, expected) in [
        (&[][..], 10..20),
        (&["-n", "3"], 17..20),
        (&["-n", "0"], 0..0),
        (&["-n", "1000"], 0..20),
        (&["-n", "+0"], 0..20),
        (&["-n", "+18"], 18..20),
        (&["-n", "+20"], 0..0),
        (&["-n", "+1000"], 0..0),
        (&["-n", "5", "--count", "2"], 15..17),
        (&["-n", "5", "--count", "0"], 0..0),
    ] {
        let args: Vec<&str> = ["tail", "events.log"].iter().chain(start).copied().collect();
        assert_eq!(text(&log, &args), lines(expected), "{args:?}");
    }
    assert_eq!(text(&log, &["cat", "events.log"]), lines(0..20));
    assert_eq!(text(&log, &["get", "events.log", "7"]), "7\n");
    fails(&log, &["get", "events.log", "20"], 3, &["no record 20", "20"]);
}

#[test]
fn every_command_prints_every_format() {
    let log = Log::new();
    let mut writer = log.writer();
    writer.append("ä\n\u{1b}\"".as_bytes()).unwrap();
    writer.append(b"\xff\0").unwrap();
    writer.close().unwrap();
    let frames = [&5u64.to_le_bytes()[..], "ä\n\u{1b}\"".as_bytes(), &2u64.to_le_bytes(), b"\xff\0"].concat();
    let all: [(&str, &[u8]); 4] = [
        ("text", "ä\n\u{1b}\"\n".as_bytes().iter().chain(b"\xff\0\n").copied().collect::<Vec<u8>>().leak()),
        ("raw", "ä\n\u{1b}\"".as_bytes().iter().chain(b"\xff\0").copied().collect::<Vec<u8>>().leak()),
        ("hex", b"c3a40a1b22\nff00\n"),
        ("frames", frames.leak()),
    ];
    for (format, expected) in all {
        assert_eq!(ok(&log, &["cat", "-o", format, "events.log"], b""), expected, "{format}");
        assert_eq!(ok(&log, &["tail", "-o", format, "events.log"], b""), expected, "{format}");
        let each = ["0", "1"].map(|n| ok(&log, &["get", "-o", format, "events.log", n], b"")).concat();
        assert_eq!(each, expected, "{format}");
    }
    let printed = text(&log, &["cat", "-o", "json", "events.log"]);
    let objects: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        objects,
        [
            json!({"sequence": 0, "position": 8, "size": 5, "payload": "ä\n\u{1b}\""}),
            json!({"sequence": 1, "position": 21, "size": 2, "payload_base64": "/wA="}),
        ]
    );
}

#[test]
fn a_terminal_gets_control_characters_escaped() {
    let log = Log::new();
    let mut writer = log.writer();
    writer.append("\x1b[31mred\n\u{9b}".as_bytes()).unwrap();
    writer.close().unwrap();
    for (format, expected) in [
        ("text", "\\x1b[31mred\\n\\u{9b}\r\n"),
        ("json", "{\"sequence\":0,\"position\":8,\"size\":11,\"payload\":\"\\u001b[31mred\\n\\u009b\"}\r\n"),
    ] {
        let Some(printed) = on_a_terminal(&log, &format!("cat -o {format} events.log")) else { return };
        assert_eq!(printed, expected);
    }
}

#[test]
fn a_follower_goes_on_across_a_restart_of_the_writer() {
    let log = twenty();
    let follower = Running::start(&log, &["tail", "-f", "-n", "2", "events.log"]);
    assert_eq!([follower.line(), follower.line()], ["18", "19"]);
    for n in 20..23 {
        let mut writer = log.writer();
        writer.append(n.to_string().as_bytes()).unwrap();
        assert_eq!(follower.line(), n.to_string());
        writer.close().unwrap();
    }
    assert!(!follower.has_line());
    follower.signal(Signal::SIGINT);
    assert_eq!(follower.end(), (Some(130), String::new()));
}

#[test]
fn a_follower_waits_for_its_log() {
    let log = Log::new();
    fails(&log, &["tail", "-f", "events.log"], 3, &["events.log", "no such log"]);
    let follower = Running::start(&log, &["tail", "-f", "--retry", "-n", "+0", "--count", "1", "events.log"]);
    let mut writer = log.writer();
    writer.append(b"at last").unwrap();
    assert_eq!(follower.line(), "at last");
    assert_eq!(follower.end(), (Some(0), String::new()));
    let other = Log::new();
    let waiting = Running::start(&other, &["tail", "-f", "--retry", "events.log"]);
    until("it catches the signal", || caught_signals(waiting.id()) & 1 << (Signal::SIGTERM as u32 - 1) != 0);
    waiting.signal(Signal::SIGTERM);
    assert_eq!(waiting.end(), (Some(143), String::new()));
}

#[test]
fn a_follower_ends_after_a_number_or_a_silence() {
    let log = twenty();
    let args = ["tail", "-f", "-n", "+0", "--count", "3", "events.log"];
    assert_eq!(text(&log, &args), lines(0..3));
    let output = run(&log, &["tail", "-f", "-n", "1", "--timeout", "200ms", "events.log"]);
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(6), &b"19\n"[..]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("200ms"));
    fails(&Log::new(), &["tail", "-f", "--retry", "--timeout", "50ms", "events.log"], 6, &["50ms"]);
}

#[test]
fn only_what_is_new_when_nothing_else_is_asked_for() {
    let log = twenty();
    let follower = Running::start(&log, &["tail", "-f", "-n", "0", "--count", "2", "events.log"]);
    until("it follows", || {
        std::fs::read_to_string(format!("/proc/{}/wchan", follower.id())).is_ok_and(|at| at.contains("futex"))
    });
    let mut writer = log.writer();
    writer.append(b"new").unwrap();
    writer.append(b"newer").unwrap();
    assert_eq!([follower.line(), follower.line()], ["new", "newer"]);
    assert_eq!(follower.end(), (Some(0), String::new()));
}

#[test]
fn a_closed_pipe_is_a_quiet_end() {
    let log = twenty();
    let mut writer = log.writer();
    // One that has much to print, one that gets records all the time, and one that gets none.
    for args in [
        &["cat", "events.log"][..],
        &["tail", "-f", "-n", "+0", "events.log"],
        &["tail", "-f", "-n", "0", "events.log"],
    ] {
        let mut child = immuta(&log, args).spawn().unwrap();
        drop(child.stdout.take());
        if args[0] == "cat" {
            writer.append(&[b'x'; 1 << 20]).unwrap();
        }
        let output = bounded("its end", move || child.wait_with_output().unwrap());
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]), "{args:?}");
    }
}

#[test]
fn a_signal_ends_a_command_whose_output_nobody_takes() {
    let log = Log::new();
    let mut writer = log.writer();
    writer.append(&[b'x'; 1 << 20]).unwrap();
    for args in [&["cat", "events.log"][..], &["tail", "-f", "events.log"], &["get", "events.log", "0"]] {
        let unread = Running::start_unread(&log, args);
        until("its pipe is full", || unread.waits_for_a_file());
        unread.signal(Signal::SIGTERM);
        assert_eq!(unread.end(), (Some(143), String::new()), "{args:?}");
    }
}

#[test]
fn a_log_that_is_replaced_is_an_end_after_what_is_readable() {
    let log = twenty();
    let follower = Running::start(&log, &["tail", "-f", "-n", "1", "events.log"]);
    assert_eq!(follower.line(), "19");
    let other = log.dir.path().join("other");
    std::fs::copy(&log.path, &other).unwrap();
    std::fs::rename(&other, &log.path).unwrap();
    let (code, said) = follower.end();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("removed or replaced"), "{said}");
}

#[test]
fn a_log_that_goes_away_is_an_end_after_what_is_readable() {
    let log = twenty();
    let follower = Running::start(&log, &["tail", "-f", "-n", "1", "events.log"]);
    assert_eq!(follower.line(), "19");
    std::fs::remove_file(&log.path).unwrap();
    let (code, said) = follower.end();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("removed or replaced"), "{said}");
}
