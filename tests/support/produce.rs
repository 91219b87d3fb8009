//! Writers.

use std::time::Duration;

use immuta::Writer;

use crate::content::{Checksum, Random, fill, payload};
use crate::{Args, listen, say};

/// Appends the stream `seed` on demand: `more N` appends N records (by one, in batches and by claims) and answers `at TOTAL CHECKSUM`; ends at the end of input.
pub fn produce(args: &Args) {
    let (seed, most) = (args.number("seed", 1), args.number("most", 1 << 16));
    let mut writer = args.writer().open(args.text("log")).expect("the log opens");
    let mut next = writer.stat().expect("stat").records;
    let mut sum = Checksum::default();
    let mut random = Random(seed);
    say(format_args!("ready {next}"));
    while let Some(line) = listen() {
        let more: u64 = line.strip_prefix("more ").expect("more N").parse().expect("a number");
        let until = next + more;
        while next < until {
            let take = if random.below(8) == 0 { (1 + random.below(50)).min(until - next) } else { 1 };
            let payloads: Vec<_> = (next..next + take).map(|sequence| payload(seed, sequence, most)).collect();
            payloads.iter().for_each(|payload| sum.add(payload));
            next += take;
            if take > 1 {
                let mut batch = writer.batch();
                for payload in &payloads {
                    batch.append(payload).expect("a record of a batch");
                }
                assert_eq!(batch.commit().expect("a batch").end, next);
            } else if random.below(4) == 0 {
                let mut claim = writer.claim(payloads[0].len() as u64).expect("space");
                claim.copy_from_slice(&payloads[0]);
                claim.commit().expect("a claim");
            } else {
                writer.append(&payloads[0]).expect("a record");
            }
        }
        say(format_args!("at {next} {}", sum.0));
    }
    writer.close().expect("a clean close");
}

/// Opens the log, appends `records` short ones, says `holding TOTAL`, and holds it until the end of input.
pub fn hold(args: &Args) {
    args.become_user();
    let mut writer = args.writer().open(args.text("log")).expect("the log opens");
    for n in 0..args.number("records", 0u64) {
        let mut record = format!("record {n}").into_bytes();
        record.resize(args.number("size", record.len()), b' ');
        writer.append(&record).expect("a record");
    }
    say(format_args!("holding {}", writer.stat().expect("stat").records));
    while let Some(line) = listen() {
        let appended = writer.append(line.as_bytes()).expect("a record");
        say(format_args!("appended {}", appended.sequence));
    }
    writer.close().expect("a clean close");
}

/// Writes until it is killed. A record says which run wrote it, and its place in its batch: `run`, `place`, `length`, bytes.
pub fn die(args: &Args) {
    let run: u64 = args.number("run", 0);
    let mut random = Random(run);
    let mut writer = args.writer().open(args.text("log")).expect("the next writer opens at once");
    say(format_args!("open {}", writer.stat().expect("stat").records));
    let mut bytes = Vec::new();
    for _ in 0..args.number("most", u64::MAX) {
        let length = if random.below(4) == 0 { 2 + random.below(20) } else { 1 };
        let mut write = |place: u64, random: &mut Random| {
            let size = if random.below(200) == 0 { 24 + random.below(40_000) } else { 24 + random.below(200) };
            bytes.resize(size as usize, 0);
            fill(&mut bytes[24..], random.next());
            for (field, number) in [run, place, length].into_iter().enumerate() {
                bytes[field * 8..][..8].copy_from_slice(&number.to_le_bytes());
            }
            bytes.clone()
        };
        if length > 1 {
            let mut batch = writer.batch();
            for place in 0..length {
                batch.append(&write(place, &mut random)).expect("a record of a batch");
            }
            if random.below(5) > 0 {
                batch.commit().expect("a batch");
            }
        } else if random.below(3) == 0 {
            let record = write(0, &mut random);
            let mut claim = writer.claim(record.len() as u64).expect("space");
            claim.copy_from_slice(&record);
            if random.below(5) > 0 {
                claim.commit().expect("a claim");
            }
        } else {
            writer.append(&write(0, &mut random)).expect("a record");
        }
    }
    // It has written enough; it is killed while it does nothing.
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// As many writers in one process as `writers`, in the directory `log`.d. Says `threads N`; at the end of input it closes them all.
pub fn thousand(args: &Args) {
    let dir = std::path::PathBuf::from(format!("{}.d", args.text("log")));
    std::fs::create_dir(&dir).expect("a directory");
    let (_, most) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).expect("the limit");
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, most, most).expect("all descriptors");
    let options = args.writer();
    let mut writers: Vec<Writer> =
        (0..args.number("writers", 1)).map(|n| options.open(dir.join(n.to_string())).expect("a writer")).collect();
    let mut records = 0;
    for round in 0..3 {
        for writer in &mut writers {
            writer.append(format!("{round}").as_bytes()).expect("a record");
            records += 1;
        }
    }
    let threads = std::fs::read_dir("/proc/self/task").expect("the list of threads").count();
    let notices: usize = writers.iter().map(|writer| writer.notices().len()).sum();
    say(format_args!("threads {threads} {records} {notices}"));
    listen();
    for writer in writers {
        writer.close().expect("a clean close");
    }
    say(format_args!("closed"));
}
