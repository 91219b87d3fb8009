//! Prints `sequence size crc32` of each record; what the readers of other languages are compared with (see spec/vectors/run):
//!
//! ```sh
//! cargo run --release --example follow -- events.log --skip 10 --count 100 --timeout 2.5
//! ```

use std::io::{self, BufWriter, ErrorKind, Write};
use std::process::ExitCode;
use std::time::Duration;

use immuta::{Error, ReaderOptions, Record, Start};

const USAGE: &str = "usage: follow LOG [--skip N] [--count N] [--timeout SECONDS]";

struct Args {
    path: String,
    skip: u64,
    count: u64,
    timeout: Option<Duration>,
}

fn parse(mut args: impl Iterator<Item = String>) -> Option<Args> {
    let mut parsed =
        Args { path: args.next().filter(|path| !path.starts_with("--"))?, skip: 0, count: u64::MAX, timeout: None };
    while let Some(option) = args.next() {
        let value = args.next()?;
        match option.as_str() {
            "--skip" => parsed.skip = value.parse().ok()?,
            "--count" => parsed.count = value.parse().ok()?,
            "--timeout" => parsed.timeout = Some(Duration::try_from_secs_f64(value.parse().ok()?).ok()?),
            _ => return None,
        }
    }
    Some(parsed)
}

/// CRC-32/ISO-HDLC, by bytes.
fn crc32(table: &[u32; 256], bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ table[(crc as u8 ^ byte) as usize])
}

fn crc32_table() -> [u32; 256] {
    std::array::from_fn(|byte| (0..8).fold(byte as u32, |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 }))
}

enum Failure {
    Log(Error),
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Log(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}

fn follow(args: &Args, out: &mut impl Write) -> Result<(), Failure> {
    if args.count == 0 {
        return Ok(());
    }
    let reader = ReaderOptions::new().wait_for_log(args.timeout.unwrap_or_default()).open(&args.path)?;
    let mut tailer = reader.tail(Start::Skip(args.skip))?;
    let table = crc32_table();
    let print = |record: Record<'_>, out: &mut dyn Write| {
        writeln!(out, "{} {} {:08x}", record.sequence(), record.payload().len(), crc32(&table, record.payload()))
    };
    for _ in 0..args.count {
        if let Some(record) = tailer.try_next()? {
            print(record, out)?;
            continue;
        }
        // Whoever reads this may wait for what was printed.
        out.flush()?;
        let record = match args.timeout {
            Some(limit) => tailer.next_timeout(limit)?,
            None => tailer.next()?,
        };
        print(record.expect("nobody stops this tailer"), out)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let Some(args) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    // What came before an error is printed first.
    let followed = follow(&args, &mut out);
    let flushed = out.flush().map_err(Failure::Output);
    let code = match followed.and(flushed) {
        Ok(()) => 0,
        // A reader that has seen enough, such as head, is no failure.
        Err(Failure::Output(error)) if error.kind() == ErrorKind::BrokenPipe => 0,
        Err(Failure::Output(error)) => {
            eprintln!("follow: cannot write to standard output: {error}");
            1
        }
        Err(Failure::Log(error)) => {
            eprintln!("follow: {error}");
            match error {
                Error::NotFound { .. } | Error::Replaced { .. } => 3,
                Error::Damaged { .. } => 5,
                Error::TimedOut { .. } => 6,
                _ => 1,
            }
        }
    };
    ExitCode::from(code)
}
