//! What ends a command before its time, and the exit code that says so.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use immuta::Error;

/// Why a command ended.
#[derive(Debug)]
pub enum Failure {
    /// The library said so.
    Log(Error),
    /// The arguments make no sense together.
    Usage(String),
    /// There is no record of this sequence.
    NoRecord { path: PathBuf, sequence: u64, records: u64 },
    /// A file that is not the log, or standard input, cannot be read or is not what was expected.
    Input { name: String, message: String },
    /// Standard output cannot be written.
    Output(io::Error),
    /// The log is damaged, as was already printed.
    Damaged,
    /// Something would not work, as was already printed.
    Unsound,
    /// Something else that the system refused.
    System { what: String, source: io::Error },
    /// A signal came; what was to be done before the end is done.
    Signal(i32),
}

impl Failure {
    /// An error of the system while doing `what`.
    pub fn system(what: impl Into<String>, source: impl Into<io::Error>) -> Failure {
        Failure::System { what: what.into(), source: source.into() }
    }

    /// An error while reading `path`, or standard input.
    pub fn input(path: Option<&Path>, message: impl fmt::Display) -> Failure {
        let name = path.map_or_else(|| "standard input".to_owned(), |path| path.display().to_string());
        Failure::Input { name, message: message.to_string() }
    }

    fn code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::NoRecord { .. } => 3,
            Failure::Damaged => 5,
            // A reader that has seen enough, such as head, is no failure.
            Failure::Output(error) if error.kind() == ErrorKind::BrokenPipe => 0,
            Failure::Unsound | Failure::Input { .. } | Failure::Output(_) | Failure::System { .. } => 1,
            Failure::Signal(signal) => 128 + *signal as u8,
            Failure::Log(error) => match error {
                Error::NotFound { .. } | Error::Replaced { .. } => 3,
                Error::Locked { .. } => 4,
                Error::Damaged { .. } => 5,
                Error::TimedOut { .. } => 6,
                _ => 1,
            },
        }
    }

    /// Says it on stderr, if there is something to be said, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        let quiet = matches!(self, Failure::Damaged | Failure::Unsound | Failure::Signal(_)) || self.code() == 0;
        if !quiet {
            // Where stderr is closed there is nobody to tell.
            let _ = writeln!(io::stderr(), "immuta: {self}");
        }
        ExitCode::from(self.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Log(error) => write!(f, "{error}"),
            Failure::Usage(message) => f.write_str(message),
            Failure::NoRecord { path, sequence, records } => {
                write!(f, "{}: no record {sequence}; the log has {records}, counted from 0", path.display())
            }
            Failure::Input { name, message } => write!(f, "{name}: {message}"),
            Failure::Output(error) => write!(f, "standard output: {error}"),
            Failure::Damaged => f.write_str("the log is damaged"),
            Failure::Unsound => f.write_str("something would not work"),
            Failure::System { what, source } => write!(f, "cannot {what}: {source}"),
            Failure::Signal(signal) => write!(f, "ended by signal {signal}"),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Log(error)
    }
}
