//! One process of the demo besides the first: what it tells its parent, and that it does not outlive it.

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::figures::{Meter, Phase};
use super::{consumer, producer};
use crate::failure::Failure;

/// A part of the demo, started by it.
#[derive(Debug, clap::Args)]
pub struct PartArgs {
    /// What it does.
    pub role: Role,
    /// The process that started it.
    pub parent: u32,
    /// The demo's own directory.
    pub directory: PathBuf,
    /// Payload of each record, in bytes.
    pub size: u64,
    /// How long the producer takes, in seconds.
    pub seconds: f64,
    /// The largest file, in bytes.
    pub limit: u64,
}

/// What a part does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    Producer,
    Consumer,
}

impl PartArgs {
    pub fn log(&self) -> PathBuf {
        super::log_in(&self.directory)
    }
}

pub fn run(args: &PartArgs) -> Result<(), Failure> {
    if args.role == Role::Consumer {
        // It has nothing to put in order, so the kernel may end it, even where it is stopped.
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| Failure::system("ask for a signal", error))?;
    }
    if std::os::unix::process::parent_id() != args.parent {
        return Ok(()); // The parent was gone before; the directory, if it is there, is empty.
    }
    let parent = Parent::listen();
    match args.role {
        Role::Producer => producer::run(args, &parent),
        Role::Consumer => consumer::run(args, &parent),
    }
}

/// The process that started this one.
#[derive(Debug)]
pub struct Parent {
    told_to_go: Receiver<()>,
    stopped: Arc<AtomicBool>,
    gone: Arc<AtomicBool>,
}

impl Parent {
    /// Listens to standard input: it ends with the parent, however that ends.
    fn listen() -> Parent {
        let (go, told_to_go) = channel();
        let stopped = Arc::new(AtomicBool::new(false));
        let gone = Arc::new(AtomicBool::new(false));
        let parent = Parent { told_to_go, stopped: stopped.clone(), gone: gone.clone() };
        std::thread::spawn(move || {
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                if line == "go" {
                    let _ = go.send(()); // Where nobody waits for it any more, all the better.
                } else {
                    stopped.store(true, Ordering::SeqCst);
                }
            }
            gone.store(true, Ordering::SeqCst);
            stopped.store(true, Ordering::SeqCst);
            drop(go);
            // What the other thread has to do takes milliseconds. If it hangs, the process ends all the same.
            std::thread::sleep(Duration::from_secs(5));
            std::process::exit(1);
        });
        parent
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

    /// Tells the parent what was measured.
    pub fn report(&self, phase: Phase, meter: &Meter) -> Result<(), Failure> {
        match (meter.figures(), phase) {
            (None, _) => Ok(()),
            (Some(figures), Phase::FlatOut) => self.tell(&format!("flat-out {figures}")),
            (Some(figures), Phase::Paced) => self.tell(&format!("paced {figures}")),
        }
    }
}
