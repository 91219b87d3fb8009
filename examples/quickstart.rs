//! One record, there and back:
//!
//! ```sh
//! cargo run --example quickstart            # in a temporary directory
//! cargo run --example quickstart events.log
//! ```

use std::path::PathBuf;
use std::time::Duration;

use immuta::{Reader, Start, Writer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scratch = tempfile::tempdir()?;
    let path = std::env::args_os().nth(1).map_or_else(|| scratch.path().join("events.log"), PathBuf::from);

    let mut writer = Writer::open(&path)?;
    let appended = writer.append(b"hello world")?;
    println!("appended record {}: position {}, size {}", appended.sequence, appended.position, appended.size);

    // Usually in another process. A reader needs read permission only.
    let reader = Reader::open(&path)?;
    let mut tailer = reader.tail(Start::Sequence(appended.sequence))?;
    match tailer.next_timeout(Duration::from_secs(2))? {
        Some(record) => println!("record {}: {}", record.sequence(), String::from_utf8_lossy(record.payload())),
        None => println!("stopped"), // Only a `Stopper` does that.
    }

    // Dropping the writer closes the log as well, but swallows errors.
    writer.close()?;
    Ok(())
}
