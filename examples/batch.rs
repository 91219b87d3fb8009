//! Records that become visible together, or not at all:
//!
//! ```sh
//! cargo run --example batch
//! ```

use immuta::{Reader, Start, Writer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scratch = tempfile::tempdir()?;
    let path = scratch.path().join("orders.log");
    let mut writer = Writer::open(&path)?;

    let mut batch = writer.batch();
    for item in ["order 17 begins", "2 lamps", "1 chair", "order 17 ends"] {
        batch.append(item.as_bytes())?;
    }
    let sequences = batch.commit()?;
    println!("published records {sequences:?} with one store");

    let mut abandoned = writer.batch();
    abandoned.append(b"order 18 begins")?;
    drop(abandoned); // Nobody will ever have seen it.

    // A payload may also be written in place, without a buffer of one's own.
    let mut claim = writer.claim(16)?;
    claim[..8].copy_from_slice(&18u64.to_le_bytes());
    claim.commit()?;

    let reader = Reader::open(&path)?;
    let mut tailer = reader.tail(Start::Beginning)?;
    while let Some(record) = tailer.try_next()? {
        println!("{} {:?}", record.sequence(), String::from_utf8_lossy(record.payload()));
    }
    writer.close()?;
    Ok(())
}
