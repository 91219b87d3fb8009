//! A daemon that appends a record every now and then, and ends cleanly on SIGINT or SIGTERM:
//!
//! ```sh
//! cargo run --example producer -- events.log
//! cargo run --example producer -- events.log --count 100
//! ```

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use immuta::Writer;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

const INTERVAL: Duration = Duration::from_millis(10);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: producer LOG [--count N]";
    let path = args.next().ok_or(usage)?;
    let count: u64 = match (args.next().as_deref(), args.next()) {
        (None, _) => u64::MAX,
        (Some("--count"), Some(n)) => n.parse()?,
        _ => return Err(usage.into()),
    };

    let (stop, stopped) = channel();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || signals.forever().try_for_each(|signal| stop.send(signal)));

    let mut writer = Writer::open(&path)?;
    for notice in writer.notices() {
        eprintln!("producer: {notice}");
    }
    for _ in 0..count {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        writer.append(format!("the time is {}.{:03}", now.as_secs(), now.subsec_millis()).as_bytes())?;
        match stopped.recv_timeout(INTERVAL) {
            Err(RecvTimeoutError::Timeout) => {}
            _ => break,
        }
    }
    let records = writer.stat()?.records;
    // Cuts what was reserved ahead, makes all of it durable, and tells the followers.
    writer.close()?;
    eprintln!("producer: closed {path} with {records} records");
    Ok(())
}
