//! What the index costs the thread that appends: the same appends with it and without it, by turns, so that both meet the same
//! weather on a machine that others use too.
//!
//! ```sh
//! cargo bench --bench index_cost                  # all
//! cargo bench --bench index_cost -- prepared/64
//! IMMUTA_BENCH_DIR=/mnt/nvme cargo bench --bench index_cost
//! ```
//!
//! Prints the medians and the quartiles of nanoseconds an append, and of pairs of neighbouring turns the median ratio with the range in
//! which it lies at 95 %. `burst`: 120 MiB into space that is made ready when the log is opened, which is
//! not in the figure; `prepared`: the same with 512 MiB; `growing`: 512 MiB from an empty log. Nothing is flushed meanwhile, and before each turn everything is.

mod support;

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use immuta::{Durability, WriterOptions};
use support::{MIB, SIZE_BYTES, SIZES, discard, payload, quartiles, scaled, shown};

/// So much the helper thread covers behind it.
const BURST: u64 = 120 * MIB;
/// Of this it has to cover most in its midst.
const LONG: u64 = 512 * MIB;
/// Pairs of turns; an odd number has a median.
const PAIRS: u64 = 81;

fn main() {
    let dir = support::scratch();
    let path = dir.path().join("index_cost.log");
    println!("ns an append                    with the index            without it        ratio of a pair");
    for (what, prepared, total) in [("burst", true, BURST), ("prepared", true, LONG), ("growing", false, LONG)] {
        for size in SIZES {
            if !support::is_wanted(&format!("{what}/{size}")) {
                continue;
            }
            let pairs: Vec<[f64; 2]> =
                (0..scaled(PAIRS, 1)).map(|turn| pair(&path, size, prepared, total, turn)).collect();
            let [with, without] = [0, 1].map(|i| quartiles(pairs.iter().map(|pair| pair[i]).collect()));
            let [low, ratio, high] = median_and_bounds(pairs.iter().map(|[with, without]| with / without).collect());
            println!(
                "{:20} {} {} {ratio:8.3} ({low:.3} to {high:.3})",
                format!("{what}, {size} B"),
                shown(with),
                shown(without)
            );
        }
    }
}

/// A turn with the index and one without it, now the one first, now the other.
fn pair(path: &Path, size: usize, prepared: bool, total: u64, turn: u64) -> [f64; 2] {
    if turn.is_multiple_of(2) {
        let with = run(path, size, prepared, total, true);
        [with, run(path, size, prepared, total, false)]
    } else {
        let without = run(path, size, prepared, total, false);
        [run(path, size, prepared, total, true), without]
    }
}

/// The median, and the two figures between which that of the whole population lies in 95 % of all cases, whatever its distribution is:
/// the ranks n/2 - and + 0.98 sqrt(n) (the sign test's, by its normal approximation).
fn median_and_bounds(mut figures: Vec<f64>) -> [f64; 3] {
    figures.sort_by(f64::total_cmp);
    let n = figures.len() as f64;
    let at = |rank: f64| figures[rank.clamp(0.0, n - 1.0) as usize];
    [at((n / 2.0 - 0.98 * n.sqrt()).floor() - 1.0), at((n - 1.0) / 2.0), at((n / 2.0 + 0.98 * n.sqrt()).ceil())]
}

/// Fills a log, and removes it; nanoseconds an append.
fn run(path: &Path, size: usize, prepared: bool, total: u64, index: bool) -> f64 {
    let total = scaled(total, MIB);
    let bytes = payload(size);
    let mut options = WriterOptions::new();
    options.durability(Durability::Buffered).index(index);
    if prepared {
        options.reserve(total + 64 * MIB);
    }
    // What earlier turns have left for the disk.
    nix::unistd::sync();
    let mut writer = options.open(path).expect("a new log");
    let records = total / (SIZE_BYTES + size as u64);
    let begin = Instant::now();
    for _ in 0..records {
        writer.append(black_box(&bytes)).expect("append");
    }
    let time = begin.elapsed();
    discard(writer, path);
    time.as_nanos() as f64 / records as f64
}
