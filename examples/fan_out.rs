//! One producer, many consumers, each at its own pace; here they are threads, and processes work just the same:
//!
//! ```sh
//! cargo run --release --example fan_out
//! ```

use std::thread;
use std::time::Instant;

use immuta::{Reader, Start, Writer};

const CONSUMERS: usize = 4;
const RECORDS: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let scratch = tempfile::tempdir()?;
    let path = scratch.path().join("ticks.log");
    let mut writer = Writer::open(&path)?;
    // One reader serves all tailers of a process: they share its descriptors and its mapping.
    let reader = Reader::open(&path)?;

    thread::scope(|scope| {
        let consumers: Vec<_> = (0..CONSUMERS)
            .map(|_| {
                scope.spawn(|| -> immuta::Result<u64> {
                    let mut tailer = reader.tail(Start::Beginning)?;
                    let mut sum = 0u64;
                    for _ in 0..RECORDS {
                        let record = tailer.next()?.expect("nobody stops this tailer");
                        let tick = record.payload().try_into().expect("a tick has eight bytes");
                        sum = sum.wrapping_add(u64::from_le_bytes(tick));
                    }
                    Ok(sum)
                })
            })
            .collect();

        let begin = Instant::now();
        for tick in 0..RECORDS {
            writer.append(&tick.to_le_bytes())?;
        }
        println!("appended {RECORDS} records in {:?}", begin.elapsed());
        for (number, consumer) in consumers.into_iter().enumerate() {
            let sum = consumer.join().expect("a consumer does not panic")?;
            println!("consumer {number} has summed them to {sum}");
        }
        println!("everyone was through after {:?}", begin.elapsed());
        Ok::<(), immuta::Error>(())
    })?;
    writer.close()?;
    Ok(())
}
