//! How fast a log is read that is there already, every byte touched, and beside it bare reads of the same bytes: through a
//! new mapping, and by `pread`.
//!
//! ```sh
//! cargo bench --bench read
//! cargo bench --bench read -- auto
//! ```
//!
//! An iteration is a pass over a log of 256 MiB in the page cache. `auto`, `mapped` and `pread` are the read modes, while a
//! writer has the log open; `closed` is `auto` on a log that no writer has open. `read/get` fetches one record by its
//! sequence: it walks from the first record, so its cost grows with the sequence.

mod support;

use std::fs::{File, remove_file};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use immuta::{ReadMode, Reader, ReaderOptions, Start, Writer};
use support::{HEADER_BYTES, MIB, Mapped, SIZE_BYTES, SIZES, payload, scaled, sum, throughput};

/// What one bare read takes (FACTS: the fastest are 128 to 256 KiB).
const STEP_BYTES: usize = 256 << 10;

/// A log, and what is expected of reading it.
struct Log<'a> {
    path: &'a Path,
    size: usize,
    records: u64,
    /// The sum of all payloads.
    sum: u64,
}

fn main() {
    let dir = support::scratch();
    let mut criterion = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(4));
    criterion = criterion.warm_up_time(Duration::from_secs(1)).configure_from_args();
    for size in SIZES {
        let path = dir.path().join("read.log");
        let records = scaled(256 * MIB, MIB) / (SIZE_BYTES + size as u64);
        let bytes = payload(size);
        let mut writer = Writer::open(&path).expect("a new log");
        for _ in 0..records {
            writer.append(&bytes).expect("append");
        }
        let log = Log { path: &path, size, records, sum: sum(&bytes).wrapping_mul(records) };
        floor(&mut criterion, &log);
        for (name, mode) in [("auto", ReadMode::Auto), ("mapped", ReadMode::Mapped), ("pread", ReadMode::Pread)] {
            pass(&mut criterion, &log, name, mode);
        }
        if size == SIZES[0] {
            gets(&mut criterion, &path);
        }
        // It has no control page any more, and its bytes have gone to the disk, outside of what is measured.
        writer.close().expect("close");
        pass(&mut criterion, &log, "closed", ReadMode::Auto);
        remove_file(&path).expect("the log");
    }
    criterion.final_summary();
}

fn floor(criterion: &mut Criterion, log: &Log) {
    let mut group = criterion.benchmark_group("floor");
    group.sampling_mode(SamplingMode::Flat).throughput(throughput(log.records, log.size));
    group.bench_function(BenchmarkId::new("pread", log.size), |b| {
        let file = File::open(log.path).expect("the log");
        let mut buffer = vec![0; STEP_BYTES];
        let end = HEADER_BYTES + log.records * (SIZE_BYTES + log.size as u64);
        b.iter(|| {
            let (mut at, mut total) = (HEADER_BYTES, 0u64);
            while at < end {
                let len = STEP_BYTES.min((end - at) as usize);
                file.read_exact_at(&mut buffer[..len], at).expect("read");
                total = total.wrapping_add(sum(&buffer[..len]));
                at += len as u64;
            }
            black_box(total)
        });
    });
    group.bench_function(BenchmarkId::new("mapping", log.size), |b| {
        let file = File::options().read(true).write(true).open(log.path).expect("the log");
        let end = HEADER_BYTES + log.records * (SIZE_BYTES + log.size as u64);
        b.iter(|| black_box(sum(Mapped::new(&file, end).bytes(end))));
    });
    group.finish();
}

fn pass(criterion: &mut Criterion, log: &Log, name: &str, mode: ReadMode) {
    let mut group = criterion.benchmark_group("read");
    group.sampling_mode(SamplingMode::Flat).throughput(throughput(log.records, log.size));
    group.bench_function(BenchmarkId::new(name, log.size), |b| {
        let reader = ReaderOptions::new().read_mode(mode).open(log.path).expect("the log");
        b.iter(|| {
            let mut tailer = reader.tail(Start::Beginning).expect("a tailer");
            let (mut total, mut records) = (0u64, 0);
            while let Some(record) = tailer.try_next().expect("a record") {
                total = total.wrapping_add(sum(record.payload()));
                records += 1;
            }
            assert_eq!((records, total), (log.records, log.sum));
        });
    });
    group.finish();
}

fn gets(criterion: &mut Criterion, path: &Path) {
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(1));
    for sequence in [0, 1_000] {
        group.bench_function(BenchmarkId::new("get", sequence), |b| {
            let reader = Reader::open(path).expect("the log");
            b.iter(|| reader.get(black_box(sequence)).expect("a record").expect("it is there"));
        });
    }
    group.finish();
}
