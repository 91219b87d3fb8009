//! The command line where it is about trust: what a recovery did, durability, repair, verification by checksums, times.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use immuta::{Durability, Writer};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::cli::{Running, fails, immuta, is_failure, ok, run, run_with, text};
use support::content::payload;
use support::forge::{Image, index_path, number};
use support::{Log, bounded, encode, is_root, positions, until};

fn records(n: u64) -> Vec<Vec<u8>> {
    (0..n).map(|sequence| payload(9, sequence, 3000)).collect()
}

fn append(writer: &mut Writer, records: &[Vec<u8>]) {
    for record in records {
        writer.append(record).unwrap();
    }
}

/// In one block of the index, unless a flush of the helper thread's ends another one in the midst: where the last block bears out, a clean
/// close is believed, and damage before it is for `verify` to find.
fn closed(log: &Log, records: &[Vec<u8>]) -> Image {
    let mut writer = log.writer_options().durability(Durability::Buffered).open(&log.path).unwrap();
    append(&mut writer, records);
    writer.close().unwrap();
    Image::take(log)
}

/// As a machine that went down leaves it: the first `durable` records flushed, all covered by the index.
fn crashed(log: &Log, records: &[Vec<u8>], durable: usize) -> Image {
    let mut writer = log.writer_options().durability(Durability::Buffered).open(&log.path).unwrap();
    append(&mut writer, &records[..durable]);
    writer.sync().unwrap();
    append(&mut writer, &records[durable..]);
    until("all is covered", || Image::take(log).entries().last().unwrap().end().0 == records.len() as u64);
    let image = Image::take(log);
    writer.close().unwrap();
    image.of_another_boot()
}

fn said(log: &Log) -> String {
    let output = run_with(log, &["append", "events.log"], b"one more\n");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

#[track_caller]
fn says(log: &Log, words: &[&str]) {
    let said = said(log);
    assert!(said.starts_with("immuta: events.log: ") && said.lines().count() == 1, "one line: {said}");
    words.iter().for_each(|word| assert!(said.contains(word), "{word:?} is not in: {said}"));
}

#[test]
fn append_says_what_it_recovered() {
    let (log, all) = (Log::new(), records(60));
    assert_eq!(said(&log), "", "a new log is no news");
    assert_eq!(said(&log), "", "nor is one that was closed");
    let mut append = Running::start(&log, &["append", "events.log"]);
    append.say("a record");
    until("it is there", || log.reader().stat().unwrap().records == 3);
    append.signal(Signal::SIGKILL);
    append.end();
    says(&log, &["the last writer died", "were cut"]);
    std::fs::remove_file(index_path(&log)).unwrap();
    says(&log, &["no index"]);

    let log = Log::new();
    let mut image = crashed(&log, &all, 30);
    image.put(&log);
    says(&log, &["the machine", "checksums"]);
    image.log[positions(&all)[50] as usize..].fill(0);
    image.put(&log);
    says(&log, &["set aside in", "events.log.lost-", "from position", "checksum"]);
    let kept = log.parse();
    assert!((31..=51).contains(&kept.len()) && kept.last().unwrap() == b"one more");
    assert_eq!(said(&log), "", "it is said once");
}

#[test]
fn a_log_that_is_refused_is_left_as_it_is() {
    let (log, all) = (Log::new(), records(60));
    let mut image = crashed(&log, &all, 30);
    let refused = |image: &Image, words: &[&str]| {
        image.put(&log);
        let (bytes, index) = (log.bytes(), std::fs::read(index_path(&log)).unwrap());
        let output = run_with(&log, &["append", "events.log"], b"never\n");
        is_failure(&output, 5, words);
        assert!(log.bytes() == bytes && std::fs::read(index_path(&log)).unwrap() == index);
    };
    let sound = image.clone();
    image.log[positions(&all)[10] as usize + 8] ^= 1;
    refused(&image, &["damaged at position", "checksum", "immuta repair"]);
    image = sound;
    image.set_count(29);
    refused(&image, &["damaged at position 0", "29", "30 were durable"]);
}

#[test]
fn repair_of_a_sound_log_has_nothing_to_do() {
    let log = Log::new();
    fails(&log, &["repair", "--yes", "none.log"], 3, &["none.log"]);
    assert!(!log.dir.path().join("none.log").exists(), "a repair creates nothing");
    closed(&log, &records(10));
    let bytes = log.bytes();
    for how in ["--dry-run", "--yes"] {
        assert!(text(&log, &["repair", how, "events.log"]).contains("sound, 10 records"), "{how}");
    }
    assert!(log.bytes() == bytes);
    for wrong in [&["repair", "events.log"][..], &["repair", "--yes", "--dry-run", "events.log"]] {
        assert_eq!(run(&log, wrong).status.code(), Some(2), "it asks for consent: {wrong:?}");
    }
}

#[test]
fn repair_cuts_what_a_dead_writer_had_reserved() {
    let log = Log::new();
    let mut append = Running::start(&log, &["append", "events.log"]);
    append.say("a record");
    until("it is there", || log.path.exists() && log.reader().stat().is_ok_and(|stat| stat.records == 1));
    for how in ["--dry-run", "--yes"] {
        fails(&log, &["repair", how, "events.log"], 4, &[&append.id().to_string()]);
    }
    append.signal(Signal::SIGKILL);
    append.end();
    let bytes = log.bytes();
    assert!(bytes.len() > 24);
    let dry = text(&log, &["repair", "--dry-run", "events.log"]);
    assert!(dry.contains("would be cut") && dry.contains("1 records"), "{dry}");
    assert!(log.bytes() == bytes, "a dry run changes nothing");
    let object: Value = serde_json::from_str(&text(&log, &["repair", "--yes", "--json", "events.log"])).unwrap();
    let expected = json!({"problem": null, "records": 1, "end": 24, "discarded_records": 0,
        "discarded_bytes": bytes.len() - 24, "side_file": null});
    assert_eq!(object, expected);
    assert_eq!(log.bytes(), encode(&["a record"]), "the Go package may open it now");
    assert!(text(&log, &["repair", "--yes", "events.log"]).contains("nothing to do"));
}

/// What kinds of damage there are, and how many records of 40 can be kept at the least.
#[test]
fn repair_keeps_what_can_be_kept_of_a_damaged_log() {
    let all = records(40);
    let at = positions(&all);
    let [first, last] = [20, 39].map(|n| at[n] as usize);
    type Damage<'a> = &'a dyn Fn(&mut Image);
    let kinds: [(&str, usize, Damage); 6] = [
        ("a count beyond the file", 40, &|image| image.set_count(1 << 50)),
        ("a count beyond the records", 40, &|image| image.set_count(41)),
        ("a size beyond the file", 20, &|image| image.log[first..first + 8].fill(0xff)),
        ("the last record cut short", 39, &|image| image.log.truncate(last + 9)),
        ("the tail is gone", 20, &|image| image.log.truncate(first)),
        ("not even a count", 0, &|image| image.log.truncate(7)),
    ];
    for (what, most, damage) in kinds {
        for index in [true, false] {
            let log = Log::new();
            let mut image = closed(&log, &all);
            damage(&mut image);
            image.put(&log);
            if !index {
                std::fs::remove_file(index_path(&log)).unwrap();
            }
            let bytes = log.bytes();
            let refused = run_with(&log, &["append", "events.log"], b"never\n");
            assert_eq!(refused.status.code(), Some(5), "{what}, index {index}: {refused:?}");
            is_failure(&refused, 5, &["damaged"]);
            let dry = run(&log, &["repair", "--dry-run", "events.log"]);
            let told = String::from_utf8(dry.stdout).unwrap();
            assert_eq!(dry.status.code(), Some(5), "{what}: {told}");
            assert!(told.contains("damaged at position") && told.contains("would be kept"), "{what}: {told}");
            assert!(log.bytes() == bytes, "a dry run changes nothing");

            let output = run(&log, &["repair", "--yes", "--json", "events.log"]);
            assert!(output.status.success(), "{what}, index {index}: {output:?}");
            let object: Value = serde_json::from_slice(&output.stdout).unwrap();
            let kept = object["records"].as_u64().unwrap() as usize;
            assert!(object["problem"].as_str().unwrap().contains("damaged"), "{what}: {object}");
            assert!(kept <= most && (index || kept == most), "{what}, index {index}: kept {kept} of {most}");
            assert_eq!(log.bytes(), encode(&all[..kept]), "{what}: an exact log is left");
            let side = std::fs::read(log.dir.path().join(object["side_file"].as_str().unwrap())).unwrap();
            let rest = if bytes.len() < 8 { &bytes } else { &bytes[at[kept] as usize..] };
            assert!(rest.starts_with(&side) && rest[side.len()..].iter().all(|byte| *byte == 0), "{what}");
            assert!(text(&log, &["verify", "events.log"]).contains("all checksums right"), "{what}");
            assert!(text(&log, &["repair", "--dry-run", "events.log"]).contains("nothing to do"), "{what}");
            assert_eq!(said(&log), "");
        }
    }
}

/// In a block that an opening writer does not look at: what verify finds, repair finds.
#[test]
fn repair_takes_all_checksums() {
    let (log, all) = (Log::new(), records(60));
    for part in all.chunks(20) {
        closed(&log, part);
    }
    let mut image = Image::take(&log);
    image.log[positions(&all)[30] as usize + 8] ^= 1;
    for boot in [false, true] {
        let image = if boot { image.clone().of_another_boot() } else { image.clone() };
        image.put(&log);
        assert_eq!(run(&log, &["verify", "events.log"]).status.code(), Some(5));
        assert_eq!(run(&log, &["repair", "--dry-run", "events.log"]).status.code(), Some(5));
        assert!(text(&log, &["repair", "--yes", "events.log"]).contains("20 records"));
        assert_eq!(log.bytes(), encode(&all[..20]));
        assert!(text(&log, &["verify", "events.log"]).contains("all checksums right"));
    }
}

#[test]
fn verify_tells_records_from_the_index() {
    let (log, all) = (Log::new(), records(40));
    let image = closed(&log, &all);
    let end = image.log.len();
    let verify = |code| {
        let output = run(&log, &["verify", "--json", "events.log"]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let text = run(&log, &["verify", "events.log"]);
        assert_eq!(text.status.code(), Some(code));
        (serde_json::from_slice::<Value>(&output.stdout).unwrap(), String::from_utf8(text.stdout).unwrap())
    };
    let sound = |index: &str| json!({"ok": true, "records": 40, "end": end, "problem": null, "index": index});
    let (object, told) = verify(0);
    assert_eq!(object, sound("ok"));
    assert!(told.contains("all checksums right"), "{told}");
    std::fs::remove_file(index_path(&log)).unwrap();
    let (object, told) = verify(0);
    assert_eq!(object, sound("missing"));
    assert!(told.contains("no index"), "{told}");
    let mut damaged = image.clone();
    *damaged.index.last_mut().unwrap() ^= 1;
    damaged.put(&log);
    let (object, told) = verify(0);
    assert_eq!(object, sound("damaged"), "a damaged index is no damaged record");
    assert!(told.contains("index damaged"), "{told}");
    // A bit of a payload: no walk sees it.
    let mut damaged = image.clone();
    damaged.log[positions(&all)[30] as usize + 8] ^= 4;
    damaged.put(&log);
    let (object, told) = verify(5);
    assert_eq!((&object["ok"], &object["index"]), (&json!(false), &json!("ok")));
    let problem = &object["problem"];
    assert!(problem["sequence"].as_u64().unwrap() <= 30 && problem["message"].as_str().unwrap().contains("checksum"));
    assert_eq!(problem["position"].as_u64().unwrap(), positions(&all)[problem["sequence"].as_u64().unwrap() as usize]);
    assert!(told.contains("damaged at position") && told.contains("(record "), "{told}");
    std::fs::remove_file(index_path(&log)).unwrap();
    assert_eq!(verify(0).0, sound("missing"), "without checksums nobody knows");
}

#[test]
fn tail_durable_shows_what_is_durable_and_says_when_it_cannot() {
    let log = Log::new();
    ok(&log, &["append", "events.log"], b"a\nb\n");
    fails(&log, &["tail", "--durable", "events.log"], 1, &["durable", "control page"]);
    let mut append = Running::start(&log, &["append", "--durability", "buffered", "events.log"]);
    until("there is a page", || log.page().exists());
    let tail = Running::start(&log, &["tail", "--durable", "-f", "-n", "+0", "events.log"]);
    assert_eq!((tail.line(), tail.line()), ("a".to_owned(), "b".to_owned()));
    append.say("c");
    until("it is published", || log.reader().stat().unwrap().records == 3);
    std::thread::sleep(Duration::from_millis(300));
    assert!(!tail.has_line(), "nobody has flushed it");
    assert_eq!(text(&log, &["tail", "--durable", "-n", "1", "events.log"]), "b\n");
    assert_eq!(append.end().0, Some(0));
    assert_eq!(tail.line(), "c");
}

#[test]
fn append_is_as_durable_as_it_is_told() {
    let log = Log::new();
    // Whether a record is durable within a second and a half. The first of a run is with any interval, so it is the second that tells.
    let is_durable = |durability: &str| {
        let count = || if log.path.exists() { log.reader().stat().map_or(0, |stat| stat.records) } else { 0 };
        let mut append = Running::start(&log, &["append", "--durability", durability, "events.log"]);
        let durable = || log.reader().stat().unwrap().durable_records == Some(count());
        let mut soon = false;
        for _ in 0..2 {
            let before = count();
            append.say("a record");
            until("it is counted", || count() == before + 1);
            let begin = Instant::now();
            while !durable() && begin.elapsed() < Duration::from_millis(1500) {
                std::thread::sleep(Duration::from_millis(10));
            }
            soon = durable();
        }
        assert_eq!(append.end().0, Some(0));
        assert!(durable(), "a close makes it durable");
        soon
    };
    for (durability, soon) in
        [("sync", true), ("buffered", false), ("interval=20ms", true), ("interval", true), ("interval=1h", false)]
    {
        assert_eq!(is_durable(durability), soon, "{durability}");
    }
    for wrong in ["interval=", "interval=soon", "never", "sync=1s", ""] {
        assert_eq!(run(&log, &["append", "--durability", wrong, "events.log"]).status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn tail_since_a_time() {
    let log = Log::new();
    let all: Vec<_> = (0..20).map(|n| format!("record {n}").into_bytes()).collect();
    let mut image = closed(&log, &all[..10]);
    // The first ten came an hour ago.
    for n in 0..image.entries().len() {
        image.edit(n, |entry| {
            let time = number(entry, 32) - 3_600_000_000_000;
            entry[32..40].copy_from_slice(&time.to_le_bytes());
        });
    }
    image.put(&log);
    closed(&log, &all[10..]);
    let lines = |args: &[&str]| text(&log, &[&["tail"], args, &["events.log"]].concat()).lines().count();
    assert_eq!(lines(&["--since", "10m"]), 10, "the default of -n does not count");
    assert_eq!((lines(&["--since", "2h"]), lines(&["--since", "1970-01-01T00:00:00Z"])), (20, 20));
    assert_eq!((lines(&["--since", "@32503680000"]), lines(&["--since", "2100-01-01T00:00:00Z"])), (0, 0));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(lines(&["--since", &format!("@{}", now - 1800)]), 10);
    assert_eq!(run(&log, &["tail", "--since", "10m", "-n", "3", "events.log"]).status.code(), Some(2));
    assert_eq!(run(&log, &["tail", "--since", "yesterday", "events.log"]).status.code(), Some(2));
    std::fs::remove_file(index_path(&log)).unwrap();
    fails(&log, &["tail", "--since", "10m", "events.log"], 1, &["index"]);
}

/// Who may write the log and not its directory.
#[test]
fn append_without_a_place_for_the_index_says_so() {
    if !is_root() {
        return;
    }
    let log = Log::new();
    let mode = |path: &std::path::Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    std::fs::write(&log.path, b"").unwrap();
    std::os::unix::fs::chown(&log.path, Some(65534), Some(65534)).unwrap();
    mode(log.dir.path(), 0o755);
    mode(&log.control, 0o1777);
    for _ in 0..2 {
        let mut command = immuta(&log, &["append", "events.log"]);
        command.uid(65534).gid(65534);
        let output = bounded("append", move || command.output().unwrap());
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("warning: no index"), "{said}");
    }
    assert!(!index_path(&log).exists());
}
