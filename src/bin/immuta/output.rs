//! Records on standard output, in the formats that `-o` chooses from.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use base64::engine::general_purpose::STANDARD;
use immuta::Record;
use nix::libc::PIPE_BUF;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::failure::Failure;
use crate::signals::Signals;

/// How much goes out at once.
const BUFFER_BYTES: usize = 256 << 10;
/// How long what was read already may take to get out once a signal has come.
const PATIENCE: Duration = Duration::from_secs(1);

/// How records are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// The payload and a newline; control characters are escaped on a terminal
    Text,
    /// An object a line, with sequence, position, size, and payload or payload_base64
    Json,
    /// The payload in hexadecimal digits and a newline
    Hex,
    /// The size in 8 bytes, little-endian, and the payload: what `append --frames` reads
    Frames,
    /// The payload and nothing else
    Raw,
}

/// Records on standard output.
#[derive(Debug)]
pub struct Output<'a> {
    out: BufWriter<Stdout<'a>>,
    format: Format,
    escape: bool,
}

/// Standard output as a file, without the line buffer that `std` puts before it. Where nobody takes what is printed, a
/// signal ends the wait: the handlers of signal-hook have the kernel restart a write(2).
#[derive(Debug)]
pub struct Stdout<'a> {
    file: File,
    /// `None` where signals end the process by themselves.
    signals: Option<&'a Signals>,
    /// How much it takes without making the caller wait, once poll(2) has said that it takes something.
    at_once: usize,
    /// When the patience ends, once a signal has come.
    until: Option<Instant>,
}

/// Standard output with a buffer.
pub fn stdout(signals: Option<&Signals>) -> Result<BufWriter<Stdout<'_>>, Failure> {
    let file = io::stdout().as_fd().try_clone_to_owned().map(File::from).map_err(Failure::Output)?;
    let never_waits = file.metadata().is_ok_and(|metadata| metadata.is_file());
    let at_once = if never_waits { usize::MAX } else { PIPE_BUF };
    Ok(BufWriter::with_capacity(BUFFER_BYTES, Stdout { file, signals, at_once, until: None }))
}

impl Write for Stdout<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(signals) = self.signals {
            self.wait(signals)?;
        }
        self.file.write(&bytes[..bytes.len().min(self.at_once)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stdout<'_> {
    /// Returns when something can be written, or an error will tell; fails where a signal came some time ago.
    fn wait(&mut self, signals: &Signals) -> io::Result<()> {
        loop {
            let mut fds = [
                PollFd::new(self.file.as_fd(), PollFlags::POLLOUT),
                PollFd::new(signals.descriptor(), PollFlags::POLLIN),
            ];
            // Once a signal has come its descriptor stays readable.
            let (fds, timeout) = if signals.last().is_some() {
                let until = *self.until.get_or_insert_with(|| Instant::now() + PATIENCE);
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::Error::other("a signal came, and the rest was not taken in time"));
                }
                // A little longer than that, where it is rounded to milliseconds.
                let left = left + Duration::from_millis(1);
                (&mut fds[..1], PollTimeout::try_from(left).map_err(io::Error::other)?)
            } else {
                (&mut fds[..], PollTimeout::NONE)
            };
            match poll(fds, timeout) {
                Ok(_) if fds[0].revents().is_some_and(|events| !events.is_empty()) => return Ok(()),
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What a failed write means: a signal, where that ended it.
    pub fn failure(&self, error: io::Error) -> Failure {
        match self.signals.and_then(Signals::last) {
            Some(signal) => Failure::Signal(signal),
            None => Failure::Output(error),
        }
    }
}

impl<'a> Output<'a> {
    pub fn new(format: Format, signals: &'a Signals) -> Result<Output<'a>, Failure> {
        Ok(Output { out: stdout(Some(signals))?, format, escape: io::stdout().is_terminal() })
    }

    pub fn write(&mut self, record: &Record<'_>) -> Result<(), Failure> {
        self.write_record(record).map_err(|error| self.out.get_ref().failure(error))
    }

    fn write_record(&mut self, record: &Record<'_>) -> io::Result<()> {
        let (out, payload) = (&mut self.out, record.payload());
        match self.format {
            Format::Text if self.escape => {
                write_escaped(out, payload)?;
                out.write_all(b"\n")
            }
            Format::Text => {
                out.write_all(payload)?;
                out.write_all(b"\n")
            }
            Format::Json => {
                let (sequence, position, size) = (record.sequence(), record.position(), payload.len());
                write!(out, "{{\"sequence\":{sequence},\"position\":{position},\"size\":{size},")?;
                match std::str::from_utf8(payload) {
                    Ok(text) => {
                        out.write_all(b"\"payload\":")?;
                        if self.escape {
                            write_json_escaped(out, text)?;
                        } else {
                            serde_json::to_writer(&mut *out, text)?;
                        }
                    }
                    Err(_) => {
                        out.write_all(b"\"payload_base64\":\"")?;
                        write!(out, "{}", base64::display::Base64Display::new(payload, &STANDARD))?;
                        out.write_all(b"\"")?;
                    }
                }
                out.write_all(b"}\n")
            }
            Format::Hex => {
                for bytes in payload.chunks(1024) {
                    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                    out.write_all(digits.as_bytes())?;
                }
                out.write_all(b"\n")
            }
            Format::Frames => {
                out.write_all(&(payload.len() as u64).to_le_bytes())?;
                out.write_all(payload)
            }
            Format::Raw => out.write_all(payload),
        }
    }

    pub fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|error| self.out.get_ref().failure(error))
    }

    /// Fails where nobody reads standard output any more, which otherwise only a write would tell.
    pub fn check(&self) -> Result<(), Failure> {
        let mut fds = [PollFd::new(self.out.get_ref().file.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::ZERO) {
            Ok(n) if n > 0 && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR)) => {
                Err(Failure::Output(io::ErrorKind::BrokenPipe.into()))
            }
            _ => Ok(()),
        }
    }
}

/// Control characters, and bytes that are no text, as `\n` or `\x1b`: a record must not be able to command a terminal.
fn write_escaped(out: &mut impl Write, payload: &[u8]) -> io::Result<()> {
    for chunk in payload.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\t' | '\n' | '\r' => write!(out, "{}", character.escape_default())?,
                '\0'..='\x1f' | '\x7f' => write!(out, "\\x{:02x}", character as u32)?,
                '\u{80}'..='\u{9f}' => write!(out, "\\u{{{:x}}}", character as u32)?,
                _ => write!(out, "{character}")?,
            }
        }
        for byte in chunk.invalid() {
            write!(out, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// As JSON, with the control characters too that JSON leaves as they are: U+009B begins a command to a terminal.
fn write_json_escaped(out: &mut impl Write, text: &str) -> io::Result<()> {
    for character in serde_json::to_string(text)?.chars() {
        match character {
            '\x7f'..='\u{9f}' => write!(out, "\\u{:04x}", character as u32)?,
            _ => write!(out, "{character}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters() {
        let mut out = Vec::new();
        write_escaped(&mut out, "a\tb\x1b[31mü\u{9b}\x7f".as_bytes()).unwrap();
        write_escaped(&mut out, b"\xff\n").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a\\tb\\x1b[31mü\\u{9b}\\x7f\\xff\\n");
        let mut out = Vec::new();
        write_json_escaped(&mut out, "ü\u{1b}\u{9b}\x7f").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), r#""ü\u001b\u009b\u007f""#);
    }
}
