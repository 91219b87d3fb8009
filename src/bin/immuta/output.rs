//! Records on standard output, in the formats that `-o` chooses from.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;

use base64::engine::general_purpose::STANDARD;
use immuta::Record;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::failure::Failure;

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

/// Standard output.
#[derive(Debug)]
pub struct Output {
    out: BufWriter<File>,
    format: Format,
    escape: bool,
}

/// Standard output as a file, without the line buffer that `std` puts before it.
pub fn stdout() -> Result<BufWriter<File>, Failure> {
    let descriptor = io::stdout().as_fd().try_clone_to_owned().map_err(Failure::Output)?;
    Ok(BufWriter::with_capacity(256 << 10, descriptor.into()))
}

impl Output {
    pub fn new(format: Format) -> Result<Output, Failure> {
        Ok(Output { out: stdout()?, format, escape: io::stdout().is_terminal() })
    }

    pub fn write(&mut self, record: &Record<'_>) -> Result<(), Failure> {
        self.write_record(record).map_err(Failure::Output)
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
                        serde_json::to_writer(&mut *out, text)?;
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
        self.out.flush().map_err(Failure::Output)
    }

    /// Fails where nobody reads standard output any more, which otherwise only a write would tell.
    pub fn check(&self) -> Result<(), Failure> {
        let mut fds = [PollFd::new(self.out.get_ref().as_fd(), PollFlags::empty())];
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters() {
        let mut out = Vec::new();
        write_escaped(&mut out, "a\tb\x1b[31mü\u{9b}\x7f".as_bytes()).unwrap();
        write_escaped(&mut out, b"\xff\n").unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a\\tb\\x1b[31mü\\u{9b}\\x7f\\xff\\n");
    }
}
