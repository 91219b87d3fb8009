//! What an append costs, and beside it what the machine asks for the bare stores.
//!
//! ```sh
//! cargo bench --bench append                          # all
//! cargo bench --bench append -- growing               # a part
//! IMMUTA_BENCH_DIR=/mnt/nvme cargo bench --bench append
//! ```
//!
//! - `append/growing`: default options, each log from empty to 512 MiB, so that the growth of the file is in the figure.
//! - `append/prepared`: the space is made ready when the log is opened, which is not in the figure.
//! - `append/batch_of_64`: a batch is an iteration; growing.
//! - `append/…_buffered`, `append/…_no_index`: the same without flushes by the helper thread, and without the index besides; the
//!   index costs what these two differ by. The default is `Interval` of a second.
//! - `append/sync`: an append and a `sync` for each.
//! - `append/durability_sync`: appends, and batches of 64, in `Durability::Sync`; beside `floor/two_fdatasync`, which writes a
//!   record, flushes, writes the count, flushes.
//! - `floor/…`: the same bytes stored by a bare loop; `floor/fdatasync` writes and flushes one record at a time.

mod support;

use std::fs::remove_file;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode};
use immuta::{Durability, Writer, WriterOptions};
use support::{HEADER_BYTES, MIB, Mapped, SIZE_BYTES, SIZES, discard, grow, new_file, payload, scaled, throughput};

/// How large a log gets before the next one is begun.
const LOG_BYTES: u64 = 512 * MIB;
/// Space behind what is used: nothing is grown while the prepared logs are measured.
const SLACK_BYTES: u64 = 64 * MIB;
/// The step of the bare growth.
const STEP_BYTES: u64 = 8 * MIB;
const BATCH: u64 = 64;

fn main() {
    let dir = support::scratch();
    let mut criterion = Criterion::default().sample_size(10).measurement_time(Duration::from_secs(5));
    criterion = criterion.warm_up_time(Duration::from_secs(1)).configure_from_args();
    floors(&mut criterion, dir.path());
    appends(&mut criterion, dir.path());
    syncs(&mut criterion, dir.path());
    criterion.final_summary();
}

/// Does `records` in as many files as they need; `run` returns the time that counts.
fn in_files(records: u64, size: usize, mut run: impl FnMut(u64) -> Duration) -> Duration {
    let most = LOG_BYTES / (SIZE_BYTES + size as u64);
    let (mut left, mut time) = (records, Duration::ZERO);
    while left > 0 {
        let n = left.min(most);
        time += run(n);
        left -= n;
    }
    time
}

fn floors(criterion: &mut Criterion, dir: &Path) {
    let mut group = criterion.benchmark_group("floor");
    group.sampling_mode(SamplingMode::Flat);
    for size in SIZES {
        let (bytes, path) = (payload(size), dir.join("floor"));
        group.throughput(throughput(1, size));
        group.bench_function(BenchmarkId::new("store_warm", size), |b| {
            let len = scaled(256 * MIB, 2 * MIB);
            let file = new_file(&path, len);
            let map = Mapped::new(&file, len);
            (0..len / 4096).for_each(|page| map.store(page * 4096, &[1]));
            b.iter_custom(|records| store(&map, records, &bytes, len, |_| {}));
            remove_file(&path).expect("the floor's file");
        });
        group.bench_function(BenchmarkId::new("store_growing", size), |b| {
            b.iter_custom(|records| {
                in_files(records, size, |n| {
                    let file = new_file(&path, 0);
                    let map = Mapped::new(&file, LOG_BYTES + STEP_BYTES);
                    let mut grown = 0;
                    let time = store(&map, n, &bytes, LOG_BYTES + STEP_BYTES, |end| {
                        if end > grown {
                            grow(&file, grown, grown + STEP_BYTES);
                            grown += STEP_BYTES;
                        }
                    });
                    remove_file(&path).expect("the floor's file");
                    time
                })
            });
        });
    }
    group.finish();
}

/// The bare loop: a size, a payload, the number of records; from the beginning again where the file ends.
fn store(map: &Mapped, records: u64, bytes: &[u8], len: u64, mut make_ready: impl FnMut(u64)) -> Duration {
    let begin = Instant::now();
    let mut at = HEADER_BYTES;
    for record in 1..=records {
        let bytes = black_box(bytes);
        let mut end = at + SIZE_BYTES + bytes.len() as u64;
        if end > len {
            end = end - at + HEADER_BYTES;
            at = HEADER_BYTES;
        }
        make_ready(end);
        map.store(at, &(bytes.len() as u64).to_le_bytes());
        map.store(at + SIZE_BYTES, bytes);
        map.word(0).store(record, Ordering::Release);
        at = end;
    }
    begin.elapsed()
}

fn appends(criterion: &mut Criterion, dir: &Path) {
    let mut group = criterion.benchmark_group("append");
    group.sampling_mode(SamplingMode::Flat);
    let path = dir.join("append.log");
    for size in SIZES {
        let bytes = payload(size);
        group.throughput(throughput(1, size));
        let (mut buffered, mut no_index) = (WriterOptions::new(), WriterOptions::new());
        buffered.durability(Durability::Buffered);
        no_index.durability(Durability::Buffered).index(false);
        for (suffix, options) in [("", &WriterOptions::new()), ("_buffered", &buffered), ("_no_index", &no_index)] {
            group.bench_function(BenchmarkId::new(format!("growing{suffix}"), size), |b| {
                b.iter_custom(|records| in_files(records, size, |n| append(options, &path, n, &bytes)));
            });
            group.bench_function(BenchmarkId::new(format!("prepared{suffix}"), size), |b| {
                b.iter_custom(|records| {
                    in_files(records, size, |n| {
                        let mut options = options.clone();
                        options.reserve(n * (SIZE_BYTES + size as u64) + SLACK_BYTES);
                        append(&options, &path, n, &bytes)
                    })
                });
            });
        }
        group.throughput(throughput(BATCH, size));
        group.bench_function(BenchmarkId::new("batch_of_64", size), |b| {
            b.iter_custom(|batches| {
                in_files(batches * BATCH, size, |n| {
                    let mut writer = Writer::open(&path).expect("a new log");
                    let begin = Instant::now();
                    for _ in 0..n.div_ceil(BATCH) {
                        let mut batch = writer.batch();
                        for _ in 0..BATCH {
                            batch.append(black_box(&bytes)).expect("append");
                        }
                        batch.commit().expect("commit");
                    }
                    let time = begin.elapsed();
                    discard(writer, &path);
                    time
                })
            });
        });
    }
    group.finish();
}

fn append(options: &WriterOptions, path: &Path, records: u64, bytes: &[u8]) -> Duration {
    let mut writer = options.open(path).expect("a new log");
    let begin = Instant::now();
    for _ in 0..records {
        writer.append(black_box(bytes)).expect("append");
    }
    let time = begin.elapsed();
    discard(writer, path);
    time
}

fn syncs(criterion: &mut Criterion, dir: &Path) {
    let size = SIZES[0];
    let (bytes, path) = (payload(size), dir.join("sync.log"));
    {
        let mut group = criterion.benchmark_group("floor");
        group.sampling_mode(SamplingMode::Flat).throughput(throughput(1, size));
        group.bench_function(BenchmarkId::new("fdatasync", size), |b| {
            let len = scaled(16 * MIB, MIB);
            let file = new_file(&path, len);
            file.sync_all().expect("flush");
            b.iter_custom(|records| {
                let begin = Instant::now();
                for record in 0..records {
                    let at = record * (SIZE_BYTES + size as u64) % (len - size as u64);
                    file.write_all_at(black_box(&bytes), at).expect("write");
                    file.sync_data().expect("flush");
                }
                begin.elapsed()
            });
            remove_file(&path).expect("the floor's file");
        });
        group.bench_function(BenchmarkId::new("two_fdatasync", size), |b| {
            let len = scaled(16 * MIB, MIB);
            let file = new_file(&path, len);
            file.sync_all().expect("flush");
            b.iter_custom(|records| {
                let begin = Instant::now();
                for record in 0..records {
                    let at = HEADER_BYTES + record * (SIZE_BYTES + size as u64) % (len - 2 * size as u64);
                    file.write_all_at(black_box(&bytes), at).expect("write");
                    file.sync_data().expect("flush");
                    file.write_all_at(&record.to_le_bytes(), 0).expect("write");
                    file.sync_data().expect("flush");
                }
                begin.elapsed()
            });
            remove_file(&path).expect("the floor's file");
        });
        group.finish();
    }
    let mut group = criterion.benchmark_group("append");
    group.sampling_mode(SamplingMode::Flat).throughput(throughput(1, size));
    for batch in [1, BATCH] {
        group.throughput(throughput(batch, size));
        group.bench_function(BenchmarkId::new(format!("durability_sync_by_{batch}"), size), |b| {
            b.iter_custom(|batches| {
                let mut options = WriterOptions::new();
                let mut writer = options.durability(Durability::Sync).open(&path).expect("a new log");
                let begin = Instant::now();
                for _ in 0..batches {
                    let mut records = writer.batch();
                    for _ in 0..batch {
                        records.append(black_box(&bytes)).expect("append");
                    }
                    records.commit().expect("commit");
                }
                let time = begin.elapsed();
                discard(writer, &path);
                time
            });
        });
    }
    group.throughput(throughput(1, size));
    group.bench_function(BenchmarkId::new("sync", size), |b| {
        b.iter_custom(|records| {
            let mut writer = Writer::open(&path).expect("a new log");
            writer.sync().expect("flush");
            let begin = Instant::now();
            for _ in 0..records {
                writer.append(black_box(&bytes)).expect("append");
                writer.sync().expect("flush");
            }
            let time = begin.elapsed();
            discard(writer, &path);
            time
        });
    });
    group.finish();
}
