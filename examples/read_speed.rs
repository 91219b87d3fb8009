//! How fast a log is read from the page cache, beside a plain `read` of the file; what `readers/bench` compares other languages with:
//!
//! ```sh
//! cargo run --release --example read_speed -- events.log
//! ```
//!
//! Prints a JSON line for each way: the best of three.

use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::time::{Duration, Instant};

use immuta::{Reader, Start};

fn best(mut run: impl FnMut() -> (u64, u64)) -> (u64, u64, Duration) {
    let timed = (0..3).map(|_| {
        let begin = Instant::now();
        let (records, bytes) = run();
        (records, bytes, begin.elapsed())
    });
    timed.min_by_key(|(.., time)| *time).expect("three runs")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: read_speed LOG")?;
    let count = Reader::open(&path)?.stat()?.records;
    let next = best(|| {
        let mut tailer = Reader::open(&path).and_then(|reader| reader.tail(Start::Beginning)).expect("the log opens");
        let mut bytes = 0;
        for _ in 0..count {
            let record = tailer.try_next().expect("a sound log").expect("a record");
            bytes += black_box(record.payload()).len() as u64;
        }
        (count, bytes)
    });
    let read = best(|| {
        let (mut file, mut piece, mut bytes) = (File::open(&path).expect("the file opens"), vec![0; 1 << 20], 0);
        loop {
            match file.read(&mut piece).expect("the file can be read") {
                0 => return (0, bytes),
                n => bytes += black_box(n) as u64,
            }
        }
    });
    for (way, (records, bytes, time)) in [("next", next), ("read", read)] {
        let seconds = time.as_secs_f64();
        println!(r#"{{"language":"rust","way":"{way}","records":{records},"bytes":{bytes},"seconds":{seconds:.6}}}"#);
    }
    Ok(())
}
