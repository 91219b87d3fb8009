//! The process that started this one: what it is told, and that it is not outlived.

use std::io::{self, BufRead, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::failure::Failure;
use crate::place;

/// How long this process may go on without it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The process that started this one.
#[derive(Debug)]
pub struct Parent {
    told_to_go: Receiver<()>,
    stopped: Arc<AtomicBool>,
    gone: Arc<AtomicBool>,
}

impl Parent {
    /// Listens to standard input, which ends with the parent, however that ends. `None` where it was gone before.
    ///
    /// `abandoned` is what there is to put in order then: a prefix, and a directory for [`place::remove_abandoned`]. Without it
    /// the kernel may end this process, even where it is stopped.
    pub fn listen(id: u32, abandoned: Option<(&'static str, &Path)>) -> Result<Option<Parent>, Failure> {
        if abandoned.is_none() {
            prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| Failure::system("ask for a signal", error))?;
        }
        if std::os::unix::process::parent_id() != id {
            abandoned.inspect(|(prefix, directory)| place::remove_abandoned(prefix, directory));
            return Ok(None);
        }
        let (go, told_to_go) = channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let gone = Arc::new(AtomicBool::new(false));
        let parent = Parent { told_to_go, stopped: stopped.clone(), gone: gone.clone() };
        let abandoned = abandoned.map(|(prefix, directory)| (prefix, directory.to_owned()));
        std::thread::spawn(move || {
            let mut go = Some(go);
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                if line == "go" {
                    // Where nobody waits for it any more, all the better.
                    let _ = go.as_ref().map(|go| go.send(()));
                } else {
                    stopped.store(true, Ordering::SeqCst);
                    go = None;
                }
            }
            gone.store(true, Ordering::SeqCst);
            stopped.store(true, Ordering::SeqCst);
            drop(go);
            // What the other thread has to do takes milliseconds. If it hangs, the process ends all the same.
            std::thread::sleep(PATIENCE);
            if let Some((prefix, directory)) = abandoned {
                place::remove_abandoned(prefix, &directory);
            }
            std::process::exit(1);
        });
        Ok(Some(parent))
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed) // A hint that is looked at again soon.
    }

    /// Whether the parent has died, or has nothing more to say.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Waits for `go`; `false` where there is to be an end instead.
    pub fn wait_for_go(&self) -> bool {
        loop {
            match self.told_to_go.recv_timeout(Duration::from_millis(20)) {
                Ok(()) => return !self.is_stopped(),
                Err(RecvTimeoutError::Timeout) if !self.is_stopped() => {}
                Err(_) => return false,
            }
        }
    }

    /// Tells the parent a line.
    pub fn tell(&self, line: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Failure::Output)
    }
}
