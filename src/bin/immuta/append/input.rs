//! What `append` reads: a file or a pipe, with a buffer, interrupted by signals.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::failure::Failure;
use crate::signals::Signals;

/// How much is read at once.
const READ_BYTES: usize = 256 << 10;

/// A file or standard input.
#[derive(Debug)]
pub struct Input<'a> {
    file: File,
    path: Option<PathBuf>,
    signals: &'a Signals,
    buffer: Vec<u8>,
    begin: usize,
    ended: bool,
    interrupted: bool,
}

impl<'a> Input<'a> {
    /// Opens `path`, or standard input where it is `None`.
    pub fn open(path: Option<&Path>, signals: &'a Signals) -> Result<Input<'a>, Failure> {
        let opened = match path {
            // Not blocking: a named pipe that nobody writes to is waited for where a signal ends the wait.
            Some(path) => OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path),
            None => io::stdin().as_fd().try_clone_to_owned().map(File::from),
        };
        let file = opened.map_err(|error| Failure::input(path, error))?;
        let path = path.map(Path::to_owned);
        Ok(Input { file, path, signals, buffer: Vec::new(), begin: 0, ended: false, interrupted: false })
    }

    /// Whether it is the file of this name.
    pub fn is(&self, path: &Path) -> bool {
        let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        match (self.file.metadata(), std::fs::metadata(path)) {
            // A terminal or /dev/null is no log, which the writer will tell.
            (Ok(input), Ok(log)) => log.is_file() && identity(input) == identity(log),
            _ => false,
        }
    }

    /// What was read and not consumed.
    pub fn pending(&self) -> &[u8] {
        &self.buffer[self.begin..]
    }

    /// Forgets the first `n` of the [`pending`](Input::pending) bytes.
    pub fn consume(&mut self, n: usize) {
        self.begin += n;
    }

    /// Adds what one read brings to the [`pending`](Input::pending) bytes; breaks at the end of the input and after a signal.
    pub fn fill(&mut self) -> Result<ControlFlow<()>, Failure> {
        self.buffer.drain(..self.begin);
        self.begin = 0;
        let len = self.buffer.len();
        self.buffer.resize(len + READ_BYTES, 0);
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = self.read_file(&mut buffer[len..]);
        buffer.truncate(len + read.as_ref().map_or(0, |read| *read));
        self.buffer = buffer;
        match read {
            Ok(0) => Ok(ControlFlow::Break(())),
            Ok(_) => Ok(ControlFlow::Continue(())),
            Err(_) if self.interrupted => Ok(ControlFlow::Break(())),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// Whether the input has ended.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether a signal came while it was read.
    pub fn is_interrupted(&self) -> bool {
        self.interrupted
    }

    /// An error of this input.
    pub fn failure(&self, message: impl fmt::Display) -> Failure {
        Failure::input(self.path.as_deref(), message)
    }

    fn read_file(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut fds = [
                PollFd::new(self.signals.descriptor(), PollFlags::POLLIN),
                PollFd::new(self.file.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if self.signals.last().is_some() {
                self.interrupted = true;
                return Err(io::Error::other("ended by a signal"));
            }
            // Readable, at its end, or in an error that a read will tell.
            if fds[1].revents().is_some_and(|events| !events.is_empty()) {
                match self.file.read(buffer) {
                    Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                    Ok(0) => {
                        self.ended = true;
                        return Ok(0);
                    }
                    result => return result,
                }
            }
        }
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.pending().is_empty() {
            return self.read_file(buffer);
        }
        let read = self.pending().read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
