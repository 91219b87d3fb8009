//! SIGINT and SIGTERM: remembered, told to whoever waits, and a pipe that a poll can wait for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use immuta::Stopper;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Iterator;
use signal_hook::low_level::pipe;

use crate::failure::Failure;

/// What was asked for by signals since it was made.
#[derive(Debug)]
pub struct Signals {
    /// The last one, or 0.
    last: Arc<AtomicUsize>,
    /// Readable once a signal has come.
    came: UnixStream,
}

impl Signals {
    /// From now on these signals end nothing by themselves.
    pub fn catch() -> Result<Signals, Failure> {
        let set_up = || -> io::Result<Signals> {
            let last = Arc::new(AtomicUsize::new(0));
            let (came, send) = UnixStream::pair()?;
            for signal in [SIGINT, SIGTERM] {
                signal_hook::flag::register_usize(signal, last.clone(), signal as usize)?;
                pipe::register(signal, send.try_clone()?)?;
            }
            came.set_nonblocking(true)?;
            Ok(Signals { last, came })
        };
        set_up().map_err(|error| Failure::system("catch signals", error))
    }

    /// The signal that came, if one did.
    pub fn last(&self) -> Option<i32> {
        // The signal handler's store is of this process; nothing else is to be seen with it.
        match self.last.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal as i32),
        }
    }

    /// Fails once a signal has come.
    pub fn check(&self) -> Result<(), Failure> {
        self.last().map_or(Ok(()), |signal| Err(Failure::Signal(signal)))
    }

    /// Becomes readable when a signal comes.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.came.as_fd()
    }

    /// Has a signal stop what the stopper belongs to.
    pub fn stop(&self, stopper: Stopper) -> Result<(), Failure> {
        let mut signals = Iterator::new([SIGINT, SIGTERM]).map_err(|error| Failure::system("catch signals", error))?;
        if self.last().is_some() {
            stopper.stop();
        }
        std::thread::spawn(move || {
            for _ in signals.forever() {
                stopper.stop();
            }
        });
        Ok(())
    }
}
