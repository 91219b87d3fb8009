//! The hot paths, each in a function of its own, for a tool that counts instructions; `benches/instructions` runs it:
//!
//! ```sh
//! cargo run --release --example hot_paths -- append 64 1000
//! ```

use std::hint::black_box;

use immuta::{Durability, ReaderOptions, Start, Tailer, Writer, WriterOptions};

/// Records of one batch.
const BATCH: usize = 64;

#[inline(never)]
fn hot_append(writer: &mut Writer, payload: &[u8], records: usize) {
    for _ in 0..records {
        writer.append(black_box(payload)).expect("append");
    }
}

#[inline(never)]
fn hot_batch(writer: &mut Writer, payload: &[u8], records: usize) {
    for _ in 0..records / BATCH {
        let mut batch = writer.batch();
        for _ in 0..BATCH {
            batch.append(black_box(payload)).expect("append");
        }
        batch.commit().expect("commit");
    }
}

#[inline(never)]
fn hot_claim(writer: &mut Writer, payload: &[u8], records: usize) {
    for _ in 0..records {
        let mut claim = writer.claim(payload.len() as u64).expect("claim");
        claim.copy_from_slice(black_box(payload));
        claim.commit().expect("commit");
    }
}

#[inline(never)]
fn hot_next(tailer: &mut Tailer, records: usize) {
    for _ in 0..records {
        black_box(tailer.next().expect("next").expect("nobody stops it").payload());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<_> = std::env::args().collect();
    let [_, path, size, records] = &args[..] else {
        return Err("usage: hot_paths append|batch|claim|next SIZE RECORDS".into());
    };
    let (size, records): (usize, usize) = (size.parse()?, records.parse()?);
    let (dir, payload) = (tempfile::tempdir()?, vec![7; size]);
    let log = dir.path().join("hot_paths.log");
    let mut options = WriterOptions::new();
    // The helper thread has nothing to do, whenever it comes to do it.
    options.durability(Durability::Buffered).control_dir(dir.path()).reserve((records * (size + 8)) as u64 + (1 << 20));
    let mut writer = options.open(&log)?;
    match path.as_str() {
        "append" => hot_append(&mut writer, &payload, records),
        "batch" => hot_batch(&mut writer, &payload, records),
        "claim" => hot_claim(&mut writer, &payload, records),
        "next" => {
            hot_batch(&mut writer, &payload, records.next_multiple_of(BATCH));
            let reader = ReaderOptions::new().control_dir(dir.path()).open(&log)?;
            hot_next(&mut reader.tail(Start::Beginning)?, records);
        }
        path => return Err(format!("no path {path}").into()),
    }
    Ok(())
}
