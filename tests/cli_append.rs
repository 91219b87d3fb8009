//! The injury: a line that is lost, joined with another, or published late; an input that ends badly and leaves half a record.

mod support;

use nix::sys::signal::Signal;
use support::cli::{Running, fails, immuta, is_failure, ok, run_with, text};
use support::mount::Mount;
use support::{Log, bounded, encode, is_root, parse, skip, until};

fn records(input: &[u8], options: &[&str]) -> Vec<Vec<u8>> {
    let log = Log::new();
    let args: Vec<&str> = ["append", "events.log"].iter().chain(options).copied().collect();
    assert!(ok(&log, &args, input).is_empty(), "nothing is printed");
    assert_eq!(log.bytes(), encode(&parse(&log.bytes())), "the file ends with its last record");
    log.parse()
}

#[test]
fn a_line_is_a_record() {
    assert_eq!(records(b"a\nbc\n", &[]), [b"a".to_vec(), b"bc".to_vec()]);
    assert_eq!(records(b"a\n\nunterminated", &[]), [&b"a"[..], b"", b"unterminated"]);
    assert_eq!(records(b"\n", &[]), [b""]);
    assert_eq!(records(b"\xff\r\n", &[]), [b"\xff\r"]);
    assert!(records(b"", &[]).is_empty());
}

#[test]
fn records_may_end_otherwise() {
    assert_eq!(records(b"a\nb\0c\0", &["-0"]), [&b"a\nb"[..], b"c"]);
    assert_eq!(records(b"a,b\n,c", &["--delimiter", ","]), [&b"a"[..], b"b\n", b"c"]);
    assert_eq!(records(b"a\tb", &["--delimiter", "\\t"]), [b"a", b"b"]);
    assert_eq!(records(b"a\x1eb", &["--delimiter", "\\x1e"]), [b"a", b"b"]);
}

#[test]
fn the_whole_input_may_be_one_record() {
    let large: Vec<u8> = (0..5_000_000u32).map(|n| (n / 3) as u8).collect();
    assert_eq!(records(&large, &["--whole"]), [large]);
    assert_eq!(records(b"", &["--whole"]), [b""]);
    assert_eq!(records(b"a\nb\n", &["--whole"]), [b"a\nb\n"]);
}

#[test]
fn many_lines_keep_their_order_across_reads() {
    let lines: Vec<Vec<u8>> = (0..100_000u32).map(|n| vec![b'x'; (n % 97) as usize]).collect();
    let input: Vec<u8> = lines.iter().flat_map(|line| line.iter().copied().chain([b'\n'])).collect();
    assert!(records(&input, &[]) == lines);
    let long = vec![b'y'; 3 << 20];
    assert_eq!(records(&[&long[..], b"z"].join(&b'\n'), &[]), [&long[..], b"z"]);
}

#[test]
fn frames_go_from_log_to_log_byte_for_byte() {
    let (a, b) = (Log::new(), Log::new());
    let mut writer = a.writer();
    for payload in [&b""[..], b"\n", b"\0\xff", &[7; 70_000], &[8; 3 << 20], b"last"] {
        writer.append(payload).unwrap();
    }
    writer.close().unwrap();
    let frames = ok(&a, &["cat", "-o", "frames", "events.log"], b"");
    ok(&b, &["append", "--frames", "events.log"], &frames);
    assert_eq!(a.bytes(), b.bytes());
    ok(&b, &["append", "--frames", "events.log"], b"");
    assert_eq!(a.bytes(), b.bytes());
}

#[test]
fn a_frame_that_is_cut_short_or_lies_is_not_appended() {
    let whole = [&3u64.to_le_bytes()[..], b"abc"].concat();
    let cut: [&[u8]; 4] = [&[1, 0, 0], &3u64.to_le_bytes(), &[&9u64.to_le_bytes()[..], b"abc"].concat(), &[0xff; 20]];
    for tail in cut {
        let log = Log::new();
        let output = run_with(&log, &["append", "--frames", "events.log"], &[&whole[..], tail].concat());
        is_failure(&output, 1, &["standard input", "frame 1", "not appended"]);
        assert_eq!(log.bytes(), encode(&["abc"]));
    }
}

#[test]
fn json_says_where_the_records_are() {
    let log = Log::new();
    let printed = ok(&log, &["append", "--json", "events.log"], b"abc\n\nde");
    let lines: Vec<serde_json::Value> = printed
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let expected = [(0, 8, 3), (1, 19, 0), (2, 27, 2)].map(
        |(sequence, position, size)| serde_json::json!({"sequence": sequence, "position": position, "size": size}),
    );
    assert_eq!(lines, expected);
}

#[test]
fn a_file_may_be_named_and_a_log_is_appended_to() {
    let log = Log::new();
    std::fs::write(log.dir.path().join("input"), "one\ntwo\n").unwrap();
    ok(&log, &["append", "events.log", "input"], b"");
    ok(&log, &["append", "events.log"], b"three");
    assert_eq!(log.parse(), [&b"one"[..], b"two", b"three"]);
    let fresh = Log::new();
    fails(&fresh, &["append", "events.log", "none"], 1, &["none", "No such file"]);
    assert!(!fresh.path.exists(), "no log without an input");
}

#[test]
fn a_line_that_is_typed_is_published_at_once() {
    let log = Log::new();
    let mut append = Running::start(&log, &["append", "events.log"]);
    append.say("first");
    until("it is there", || log.path.exists() && log.reader().stat().is_ok_and(|stat| stat.records == 1));
    append.say("second");
    assert_eq!(text(&log, &["tail", "-f", "-n", "+1", "--count", "1", "--timeout", "30s", "events.log"]), "second\n");
    assert_eq!(append.end(), (Some(0), String::new()));
    assert_eq!(log.bytes(), encode(&["first", "second"]));
}

#[test]
fn a_signal_ends_it_with_everything_kept_and_the_log_closed() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let log = Log::new();
        let mut append = Running::start(&log, &["append", "events.log"]);
        append.say("kept");
        until("it is there", || log.path.exists() && log.reader().stat().is_ok_and(|stat| stat.records == 1));
        append.signal(signal);
        // Its input stays open: it is the signal that ends it.
        let input = append.stdin.take();
        assert_eq!(append.end(), (Some(code), String::new()));
        drop(input);
        assert_eq!(log.bytes(), encode(&["kept"]));
        let stat: serde_json::Value = serde_json::from_str(&text(&log, &["stat", "--json", "events.log"])).unwrap();
        assert_eq!(stat["writer"]["state"], "closed");
    }
}

#[test]
fn what_it_has_appended_when_it_exits_survives_a_power_cut() {
    if !is_root() {
        return;
    }
    for signal in [None, Some(Signal::SIGINT), Some(Signal::SIGTERM)] {
        let Some(mount) = Mount::ext4(24 << 20) else { return skip("no ext4 in a file can be mounted here") };
        let log = Log::at(mount.dir.join("events.log"));
        let mut append = Running::start(&log, &["append", log.path.to_str().unwrap()]);
        append.say("kept");
        until("it is there", || log.path.exists() && log.reader().stat().is_ok_and(|stat| stat.records == 1));
        signal.iter().for_each(|signal| append.signal(*signal));
        let code = signal.map_or(0, |signal| 128 + signal as i32);
        assert_eq!(append.end(), (Some(code), String::new()));
        mount.cut_power();
        mount.restore_power();
        assert_eq!(log.bytes(), encode(&["kept"]), "{signal:?}");
    }
}

#[test]
fn a_signal_in_the_midst_of_a_whole_input_appends_nothing_of_it() {
    let log = Log::new();
    let mut append = Running::start(&log, &["append", "--whole", "events.log"]);
    append.say("half of it");
    until("the log is there", || log.path.exists() && log.bytes().windows(4).any(|bytes| bytes == b"half"));
    append.signal(Signal::SIGTERM);
    let input = append.stdin.take();
    assert_eq!(append.end().0, Some(143));
    drop(input);
    assert!(log.parse().is_empty());
}

#[test]
fn a_signal_ends_one_whose_report_nobody_takes() {
    let log = Log::new();
    std::fs::write(log.dir.path().join("input"), "a line of text\n".repeat(100_000)).unwrap();
    let append = Running::start_unread(&log, &["append", "--json", "events.log", "input"]);
    until("its pipe is full", || append.waits_for_a_file() && log.reader().stat().is_ok_and(|stat| stat.records > 0));
    append.signal(Signal::SIGTERM);
    assert_eq!(append.end(), (Some(143), String::new()));
    assert_eq!(log.bytes(), encode(&log.parse()), "it is closed all the same");
}

#[test]
fn a_named_pipe_is_waited_for_and_a_signal_ends_the_wait() {
    let log = Log::new();
    let pipe = log.dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let append = Running::start(&log, &["append", "events.log", "pipe"]);
    std::fs::write(&pipe, "one\ntwo\n").unwrap();
    assert_eq!(append.end(), (Some(0), String::new()));
    assert_eq!(log.parse(), [b"one", b"two"]);
    let waiting = Running::start(&log, &["append", "events.log", "pipe"]);
    until("it waits", || waiting.waits_for_a_file());
    waiting.signal(Signal::SIGINT);
    assert_eq!(waiting.end(), (Some(130), String::new()));
}

#[test]
fn a_log_is_not_appended_to_itself() {
    let log = Log::new();
    ok(&log, &["append", "events.log"], b"one\n");
    std::os::unix::fs::symlink("events.log", log.dir.path().join("link")).unwrap();
    for input in ["events.log", "link"] {
        fails(&log, &["append", "events.log", input], 2, &["events.log", "the log itself"]);
    }
    let mut command = immuta(&log, &["append", "events.log"]);
    command.stdin(std::fs::File::open(&log.path).unwrap());
    is_failure(&bounded("immuta", move || command.output().unwrap()), 2, &["the log itself"]);
    assert_eq!(log.bytes(), encode(&["one"]));
}

#[test]
fn a_missing_control_directory_is_told_once_and_hinders_nobody() {
    let mut log = Log::new();
    log.control = log.dir.path().join("none");
    let output = run_with(&log, &["append", "events.log"], b"one\ntwo\n");
    is_failure(&output, 0, &["warning", "no control page", "none"]);
    assert_eq!(text(&log, &["tail", "-f", "-n", "+0", "--count", "2", "events.log"]), "one\ntwo\n");
}

#[test]
fn a_second_writer_is_told_who_the_first_is() {
    let log = Log::new();
    let append = Running::start(&log, &["append", "events.log"]);
    until("it is there", || {
        log.path.exists() && log.reader().writer().is_ok_and(|state| state == immuta::WriterState::Alive)
    });
    let id = append.id().to_string();
    fails(&log, &["append", "events.log"], 4, &["events.log", &id]);
    assert_eq!(append.end().0, Some(0));
}
