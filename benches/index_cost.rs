//! What the index costs the thread that appends: the same appends with it and without it, by turns, so that both meet the same
//! weather on a machine that others use too.
//!
//! ```sh
//! cargo bench --bench index_cost
//! IMMUTA_BENCH_DIR=/mnt/nvme cargo bench --bench index_cost
//! ```
//!
//! Prints the medians and the quartiles of nanoseconds an append. `growing`: each log from empty to 512 MiB; `prepared`: the space is
//! made ready when the log is opened, which is not in the figure. Nothing is flushed meanwhile, and before each turn everything is.

mod support;

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use immuta::{Durability, WriterOptions};
use support::{MIB, SIZE_BYTES, SIZES, discard, payload, quartiles, scaled, shown};

/// Turns of each; an odd number has a median.
const TURNS: u64 = 15;

fn main() {
    let dir = support::scratch();
    let path = dir.path().join("index_cost.log");
    println!("ns an append                    with the index            without it        ratio of medians");
    for (what, prepared) in [("prepared", true), ("growing", false)] {
        for size in SIZES {
            let mut times = [Vec::new(), Vec::new()];
            for turn in 0..scaled(2 * TURNS, 2) {
                let with = turn % 2 == 0;
                times[usize::from(!with)].push(run(&path, size, prepared, with));
            }
            let [with, without] = times.map(quartiles);
            let ratio = with[1] / without[1];
            println!("{:20} {} {} {ratio:12.3}", format!("{what}, {size} B"), shown(with), shown(without));
        }
    }
}

/// Fills a log, and removes it; nanoseconds an append.
fn run(path: &Path, size: usize, prepared: bool, index: bool) -> f64 {
    let total = scaled(512 * MIB, MIB);
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
