//! `immuta append`: records from a file or a pipe.

mod input;

use std::io::{self, BufWriter, Read, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;

use immuta::{Appended, Durability, Error, Evidence, Recovery, Writer, WriterOptions};

use crate::failure::Failure;
use crate::output::{Stdout, stdout};
use crate::signals::Signals;
use crate::times::parse_duration;
use input::Input;

/// A frame's payload larger than this goes into the log without being held in memory.
const STREAMED_BYTES: u64 = 1 << 20;

/// Append records from a file or standard input: a line each, unless told otherwise
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples: seq 10 | immuta append numbers.log
          find . -print0 | immuta append -0 names.log
          immuta append --whole pictures.log picture.png
          immuta cat -o frames a.log | immuta append --frames b.log")]
pub struct Args {
    /// The log; it is created where there is none
    log: PathBuf,
    /// What to append (default: standard input)
    file: Option<PathBuf>,
    /// Records end with a NUL byte instead of a newline
    #[arg(short = '0', long, conflicts_with_all = ["delimiter", "whole", "frames"])]
    null: bool,
    /// Records end with this byte: a character, or \t, \n, \r, \0, \\, \xNN
    #[arg(long, value_name = "X", value_parser = parse_delimiter, conflicts_with_all = ["whole", "frames"])]
    delimiter: Option<u8>,
    /// All of the input is one record
    #[arg(long, conflicts_with = "frames")]
    whole: bool,
    /// Records are framed: 8 bytes of size, little-endian, and the payload
    #[arg(long)]
    frames: bool,
    /// When records are made durable: at the end alone, at intervals, or each before it is published
    #[arg(long, value_name = "buffered|interval=TIME|sync", default_value = "interval=1s", value_parser = parse_durability)]
    durability: Durability,
    /// Print sequence, position and size of each record
    #[arg(long)]
    json: bool,
}

/// A log that is being appended to.
struct Appender<'a> {
    writer: Writer,
    input: Input<'a>,
    /// Of what was published since the last report.
    appended: Vec<Appended>,
    report: Option<BufWriter<Stdout<'a>>>,
    /// Records so far, for messages.
    records: u64,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    // The input first: without it no log is created.
    let input = Input::open(args.file.as_deref(), &signals)?;
    if input.is(&args.log) {
        let message = format!("{}: the input is the log itself, which would have no end", args.log.display());
        return Err(Failure::Usage(message));
    }
    let report = if args.json { Some(stdout(Some(&signals))?) } else { None };
    let writer = WriterOptions::new().durability(args.durability).open(&args.log)?;
    for notice in writer.notices() {
        // Where stderr is closed there is nobody to tell.
        let _ = writeln!(io::stderr(), "immuta: warning: {notice}");
    }
    if let Some(sentence) = writer.stat()?.recovery.and_then(|recovery| sentence_of(&recovery)) {
        let _ = writeln!(io::stderr(), "immuta: {}: {sentence}", args.log.display());
    }
    let mut appender = Appender { writer, input, appended: Vec::new(), report, records: 0 };
    let result = if args.whole {
        appender.whole()
    } else if args.frames {
        appender.frames()
    } else {
        appender.lines(if args.null { 0 } else { args.delimiter.unwrap_or(b'\n') })
    };
    // Syncs, also after a signal or an error; the first failure is the one that is told.
    let closed = appender.writer.close();
    result?;
    closed?;
    signals.check()
}

impl Appender<'_> {
    fn whole(&mut self) -> Result<(), Failure> {
        match self.writer.append_from(&mut self.input) {
            Ok(appended) => self.note(appended),
            Err(error) => return self.stopped_or(error),
        }
        self.tell()
    }

    fn lines(&mut self, delimiter: u8) -> Result<(), Failure> {
        let mut searched = 0;
        loop {
            let more = self.input.fill()?;
            // All that one read brought is published at once: fast for a file, at once for a line that was typed.
            let bytes = self.input.pending();
            let mut batch = self.writer.batch();
            let (mut begin, mut result) = (0, Ok(()));
            while let Some(len) = bytes[searched..].iter().position(|byte| *byte == delimiter) {
                let end = searched + len;
                match batch.append(&bytes[begin..end]) {
                    Ok(appended) => self.appended.push(appended),
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
                (begin, searched) = (end + 1, end + 1);
            }
            batch.commit()?;
            self.input.consume(begin);
            searched = self.input.pending().len();
            self.tell()?;
            result?;
            if more.is_break() {
                break;
            }
        }
        let rest = self.input.pending();
        if rest.is_empty() {
            return Ok(());
        }
        if self.input.is_interrupted() {
            let bytes = rest.len();
            let _ = writeln!(io::stderr(), "immuta: warning: {bytes} bytes of an unfinished record were not appended");
            return Ok(());
        }
        let appended = self.writer.append(rest)?;
        self.note(appended);
        self.tell()
    }

    fn frames(&mut self) -> Result<(), Failure> {
        loop {
            let more = self.input.fill()?;
            let bytes = self.input.pending();
            let mut batch = self.writer.batch();
            let (mut begin, mut result, mut large) = (0, Ok(()), None);
            while let Some(field) = bytes[begin..].first_chunk::<8>() {
                let (size, rest) = (u64::from_le_bytes(*field), &bytes[begin + 8..]);
                if size > STREAMED_BYTES {
                    large = Some(size);
                    break;
                }
                let Some(payload) = rest.get(..size as usize) else { break };
                match batch.append(payload) {
                    Ok(appended) => self.appended.push(appended),
                    Err(error) => {
                        result = Err(error);
                        break;
                    }
                }
                begin += 8 + payload.len();
            }
            batch.commit()?;
            self.input.consume(begin);
            self.tell()?;
            result?;
            if let Some(size) = large {
                if self.large_frame(size)?.is_break() {
                    return Ok(());
                }
                continue;
            }
            if more.is_break() {
                break;
            }
        }
        let left = self.input.pending().len();
        if left > 0 && !self.input.is_interrupted() {
            let message = format!(
                "the input ends within frame {} (counted from 0): {left} bytes of it are there; it was not appended",
                self.records
            );
            return Err(self.input.failure(message));
        }
        Ok(())
    }

    /// Appends a frame without holding it in memory.
    fn large_frame(&mut self, size: u64) -> Result<ControlFlow<()>, Failure> {
        self.input.consume(8);
        let mut frame = Exactly { input: &mut self.input, left: size };
        let result = self.writer.append_from(&mut frame);
        let left = frame.left;
        match result {
            Ok(appended) => {
                self.note(appended);
                self.tell()?;
                Ok(ControlFlow::Continue(()))
            }
            Err(Error::Source { .. }) if left > 0 && self.input.is_ended() => {
                let message = format!(
                    "the input ends within frame {} (counted from 0): its size field says {size} bytes, and {left} of them are missing; it was not appended",
                    self.records
                );
                Err(self.input.failure(message))
            }
            Err(error) => self.stopped_or(error).map(|()| ControlFlow::Break(())),
        }
    }

    /// A source that failed because of a signal is no failure here: the signal is told when all is closed.
    fn stopped_or(&self, error: Error) -> Result<(), Failure> {
        match error {
            Error::Source { .. } if self.input.is_interrupted() => Ok(()),
            Error::Source { source, .. } => Err(self.input.failure(source)),
            error => Err(error.into()),
        }
    }

    fn note(&mut self, appended: Appended) {
        self.appended.push(appended);
    }

    /// Prints what was published since the last time.
    fn tell(&mut self) -> Result<(), Failure> {
        self.records += self.appended.len() as u64;
        if let Some(out) = &mut self.report {
            let printed = self.appended.iter().try_for_each(|Appended { sequence, position, size }| {
                writeln!(out, "{{\"sequence\":{sequence},\"position\":{position},\"size\":{size}}}")
            });
            printed.and_then(|()| out.flush()).map_err(|error| out.get_ref().failure(error))?;
        }
        self.appended.clear();
        Ok(())
    }
}

/// A source of a known size, which fails where the input ends before.
struct Exactly<'a, 'b> {
    input: &'a mut Input<'b>,
    left: u64,
}

impl Read for Exactly<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.input.read(&mut buffer[..most])?;
        if read == 0 && self.left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        Ok(read)
    }
}

/// What a recovery did, where that is worth a word.
fn sentence_of(recovery: &Recovery) -> Option<String> {
    if let Some(discarded) = &recovery.discarded {
        return Some(format!(
            "recovered: {}; {} counted records from position {} on were set aside in {}",
            discarded.reason,
            discarded.records,
            discarded.position,
            discarded.path.display()
        ));
    }
    let cut = recovery.cut_bytes;
    match recovery.evidence {
        Evidence::ProcessCrash => Some(format!(
            "recovered: the last writer died; all that it had published is there, {cut} bytes behind it were cut"
        )),
        Evidence::Verified => Some(format!(
            "recovered: the machine or its disk went down; checksums bear all records out, {cut} bytes behind them were cut"
        )),
        Evidence::Unproven => {
            Some("there was no index that covers all records, so that only the walk bears them out".to_owned())
        }
        _ => None,
    }
}

pub fn parse_durability(text: &str) -> Result<Durability, String> {
    match text.split_once('=') {
        None if text == "buffered" => Ok(Durability::Buffered),
        None if text == "interval" => Ok(Durability::default()),
        None if text == "sync" => Ok(Durability::Sync),
        Some(("interval", time)) => parse_duration(time).map(Durability::Interval),
        _ => Err("buffered, interval=TIME (such as interval=1s) or sync".to_owned()),
    }
}

/// What [`parse_durability`] understands as this one.
pub fn durability_name(durability: Durability) -> String {
    match durability {
        Durability::Buffered => "buffered".to_owned(),
        Durability::Interval(time) => format!("interval={}s", time.as_secs_f64()),
        Durability::Sync => "sync".to_owned(),
        _ => unreachable!("parse_durability makes no other"),
    }
}

fn parse_delimiter(text: &str) -> Result<u8, String> {
    let expected = || "one byte: a character, or \\t, \\n, \\r, \\0, \\\\, \\xNN".to_owned();
    match text.as_bytes() {
        [byte] => Ok(*byte),
        [b'\\', rest @ ..] => match rest {
            b"t" => Ok(b'\t'),
            b"n" => Ok(b'\n'),
            b"r" => Ok(b'\r'),
            b"0" => Ok(0),
            b"\\" => Ok(b'\\'),
            [b'x', digits @ ..] if digits.len() == 2 && digits.iter().all(u8::is_ascii_hexdigit) => {
                u8::from_str_radix(&text[2..], 16).map_err(|_| expected())
            }
            _ => Err(expected()),
        },
        _ => Err(expected()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_durability_has_a_name() {
        for text in ["buffered", "interval=1s", "interval=0.02s", "sync"] {
            assert_eq!(durability_name(parse_durability(text).unwrap()), text);
        }
        assert_eq!(parse_durability("interval"), parse_durability("interval=1s"));
        assert!(parse_durability("interval=soon").is_err() && parse_durability("never").is_err());
    }

    #[test]
    fn a_delimiter_is_one_byte() {
        for (text, byte) in [(",", b','), ("\\t", b'\t'), ("\\0", 0), ("\\x1e", 0x1e), ("\\\\", b'\\'), ("\\", b'\\')] {
            assert_eq!(parse_delimiter(text), Ok(byte), "{text}");
        }
        for text in ["", "ab", "ü", "\\q", "\\x1", "\\xzz", "\\x123", "\\x+1"] {
            assert!(parse_delimiter(text).is_err(), "{text}");
        }
    }
}
