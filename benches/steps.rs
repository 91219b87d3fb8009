//! Where each nanosecond of an append and of a read goes: bare loops that do one step more each, and at the end the library, by turns, so
//! that all meet the same weather. docs/performance.md explains the figures.
//!
//! ```sh
//! cargo bench --bench steps
//! ```
//!
//! Prints medians and quartiles of nanoseconds a record.

mod support;

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use immuta::{Durability, Reader, Start, Writer, WriterOptions};
use support::{
    HEADER_BYTES, MIB, Mapped, SIZE_BYTES, SIZES, discard, new_file, payload, quartiles, scaled, shown, sum,
};

/// Does a step over and over in the file, with this payload; nanoseconds a record.
type Step = fn(&Path, &[u8]) -> f64;

/// Turns of each; an odd number has a median.
const TURNS: u64 = 9;
/// What a reader takes in one step.
const CHUNK: usize = 256 << 10;
/// Where the bare loops keep what stands for the control page: a page of its own.
const PAGE: u64 = 4096;

fn main() {
    let dir = support::scratch();
    let path = dir.path().join("steps.log");
    for size in SIZES {
        let bytes = payload(size);
        let appends: [(&str, Step); 8] = [
            ("store size and payload", |path, bytes| bare_append(path, bytes, 0)),
            ("+ the count", |path, bytes| bare_append(path, bytes, 1)),
            ("+ slot, end, commit", |path, bytes| bare_append(path, bytes, 2)),
            ("+ full fence, doorbell", |path, bytes| bare_append(path, bytes, 3)),
            ("+ pages first mapped here", |path, bytes| bare_append(path, bytes, 4)),
            ("append, prepared", |path, bytes| append(path, bytes, true, false)),
            ("append, and the index", |path, bytes| append(path, bytes, true, true)),
            ("append, growing", |path, bytes| append(path, bytes, false, true)),
        ];
        by_turns(&format!("append, {size} B"), &path, &bytes, &appends);
        let writer = make_log(&path, &bytes);
        let reads: [(&str, Step); 5] = [
            ("pread of 256 KiB", |path, bytes| bare_read(path, bytes, 0)),
            ("+ walk the sizes", |path, bytes| bare_read(path, bytes, 1)),
            ("+ touch all bytes", |path, bytes| bare_read(path, bytes, 2)),
            ("a new mapping, walk, touch", mapped_read),
            ("next, all touched", |path, _| next(path)),
        ];
        by_turns(&format!("read, {size} B"), &path, &bytes, &reads);
        discard(writer, &path);
    }
}

fn by_turns(what: &str, path: &Path, bytes: &[u8], steps: &[(&str, Step)]) {
    let mut times = vec![Vec::new(); steps.len()];
    for _ in 0..scaled(TURNS, 1) {
        for (times, (_, step)) in times.iter_mut().zip(steps) {
            times.push(step(path, bytes));
        }
    }
    println!("\n{what}: ns a record");
    for (times, (name, _)) in times.into_iter().zip(steps) {
        println!("{name:26} {}", shown(quartiles(times)));
    }
}

fn total() -> u64 {
    scaled(256 * MIB, 2 * MIB)
}

fn each(time: Duration, records: u64) -> f64 {
    time.as_nanos() as f64 / records as f64
}

/// The stores of an append into a file that has its pages, up to `step`. All of them were touched before, but in the last step, where they
/// lie in the page cache and the loop's first store to each maps it: what the library finds in space that was prepared.
fn bare_append(path: &Path, bytes: &[u8], step: u32) -> f64 {
    let record = SIZE_BYTES + bytes.len() as u64;
    let records = total() / record;
    let file = new_file(path, PAGE + total() + PAGE);
    let map = Mapped::new(&file, PAGE + total() + PAGE);
    if step < 4 {
        (0..total() / PAGE + 2).for_each(|page| map.store(page * PAGE, &[0]));
    }
    let (end, commit, bell) = (map.word(384), map.word(392), map.word(2048));
    let begin = Instant::now();
    let mut at = PAGE;
    for n in 1..=records {
        map.store(at, &(bytes.len() as u64).to_le_bytes());
        map.store(at + SIZE_BYTES, black_box(bytes));
        at += record;
        if step >= 1 {
            map.word(0).store(n, Ordering::Release);
        }
        if step >= 2 {
            let slot = 512 + n % 32 * 32;
            map.word(slot).store(0, Ordering::Relaxed);
            map.word(slot + 8).store(n, Ordering::Relaxed);
            map.word(slot + 16).store(at, Ordering::Relaxed);
            end.store(at, Ordering::Release);
            commit.store(n, Ordering::Release);
        }
        if step >= 3 {
            fence(Ordering::SeqCst);
            black_box(bell.load(Ordering::Relaxed));
        }
    }
    let time = begin.elapsed();
    std::fs::remove_file(path).expect("the file can be removed");
    each(time, records)
}

fn append(path: &Path, bytes: &[u8], prepared: bool, index: bool) -> f64 {
    let records = total() / (SIZE_BYTES + bytes.len() as u64);
    let mut options = WriterOptions::new();
    options.durability(Durability::Buffered).index(index);
    if prepared {
        options.reserve(total() + 64 * MIB);
    }
    nix::unistd::sync();
    let mut writer = options.open(path).expect("a new log");
    let begin = Instant::now();
    for _ in 0..records {
        writer.append(black_box(bytes)).expect("append");
    }
    let time = begin.elapsed();
    discard(writer, path);
    each(time, records)
}

/// A log with its writer, as for a follower that is behind.
fn make_log(path: &Path, bytes: &[u8]) -> Writer {
    let mut writer = WriterOptions::new().durability(Durability::Buffered).index(false).open(path).expect("a new log");
    for _ in 0..total() / (SIZE_BYTES + bytes.len() as u64) {
        writer.append(bytes).expect("append");
    }
    writer
}

/// Maps a log, walks over its sizes, and touches all bytes.
fn mapped_read(path: &Path, bytes: &[u8]) -> f64 {
    let record = SIZE_BYTES + bytes.len() as u64;
    let (records, mut result) = (total() / record, 0u64);
    let end = HEADER_BYTES + records * record;
    let file = File::options().read(true).write(true).open(path).expect("the log");
    let begin = Instant::now();
    let map = Mapped::new(&file, end);
    let mut rest = &map.bytes(end)[HEADER_BYTES as usize..];
    while let Some((size, behind)) = rest.split_first_chunk() {
        let Some((payload, behind)) = behind.split_at_checked(u64::from_le_bytes(*size) as usize) else { break };
        result = result.wrapping_add(sum(payload));
        rest = behind;
    }
    drop(map);
    black_box(result);
    each(begin.elapsed(), records)
}

/// Reads a log in large steps, and does with the records what `step` says.
fn bare_read(path: &Path, bytes: &[u8], step: u32) -> f64 {
    let record = SIZE_BYTES as usize + bytes.len();
    let records = total() / record as u64;
    let file = File::open(path).expect("the log");
    let mut chunk = vec![0; CHUNK];
    let (mut at, mut seen, mut result) = (HEADER_BYTES, 0, 0u64);
    let begin = Instant::now();
    while seen < records {
        let len = file.read_at(&mut chunk, at).expect("the log can be read");
        if step == 0 {
            // Where a record is cut, the next step begins with it.
            seen += (len / record) as u64;
            at += (len / record * record) as u64;
            continue;
        }
        let mut rest = &chunk[..len];
        while let Some((size, behind)) = rest.split_first_chunk() {
            let size = u64::from_le_bytes(*size) as usize;
            let Some((payload, behind)) = behind.split_at_checked(size) else { break };
            if step >= 2 {
                result = result.wrapping_add(sum(payload));
            }
            (rest, seen, at) = (behind, seen + 1, at + SIZE_BYTES + size as u64);
        }
    }
    black_box(result);
    each(begin.elapsed(), records)
}

fn next(path: &Path) -> f64 {
    let reader = Reader::open(path).expect("the log");
    let mut tailer = reader.tail(Start::Beginning).expect("a tailer");
    let (mut records, mut result) = (0, 0u64);
    let begin = Instant::now();
    while let Some(record) = tailer.try_next().expect("a sound log") {
        result = result.wrapping_add(sum(record.payload()));
        records += 1;
    }
    black_box(result);
    each(begin.elapsed(), records)
}
