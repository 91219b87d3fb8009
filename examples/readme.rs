//! Appends a record and reads it back.

use immuta::{Reader, Start, Writer};
use std::time::Duration;

fn main() -> immuta::Result<()> {
    let mut writer = Writer::open("events.log")?;
    let appended = writer.append(b"hello world")?;
    println!("record {} at position {}, {} bytes", appended.sequence, appended.position, appended.size);

    let reader = Reader::open("events.log")?; // usually in another process
    let mut tailer = reader.tail(Start::Beginning)?;
    if let Some(record) = tailer.next_timeout(Duration::from_secs(2))? {
        println!("{}", String::from_utf8_lossy(record.payload()));
    }
    Ok(())
}
