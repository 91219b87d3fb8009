//! Follows a log, also across its writer's restarts, until SIGINT or SIGTERM:
//!
//! ```sh
//! cargo run --example consumer -- events.log
//! cargo run --example consumer -- events.log --count 100
//! ```

use std::io::Write;
use std::time::Duration;

use immuta::{ReaderOptions, Start};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: consumer LOG [--count N]";
    let path = args.next().ok_or(usage)?;
    let count: u64 = match (args.next().as_deref(), args.next()) {
        (None, _) => u64::MAX,
        (Some("--count"), Some(n)) => n.parse()?,
        _ => return Err(usage.into()),
    };

    // The producer may come later.
    let reader = ReaderOptions::new().wait_for_log(Duration::from_secs(60)).open(&path)?;
    let mut tailer = reader.tail(Start::Beginning)?;

    // `stop` may be called from a thread, as here, or from a signal handler itself.
    let stopper = tailer.stopper();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || signals.forever().for_each(|_| stopper.stop()));

    let mut out = std::io::stdout().lock();
    for _ in 0..count {
        match tailer.next()? {
            Some(record) => writeln!(out, "{} {}", record.sequence(), String::from_utf8_lossy(record.payload()))?,
            None => break, // Stopped.
        }
    }
    eprintln!("consumer: read up to record {}; the writer is {:?}", tailer.sequence(), tailer.writer()?);
    Ok(())
}
