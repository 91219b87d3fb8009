//! What one process is told, and how it waits and is stopped.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::peer::Result;

/// One process's part of a run.
#[derive(Clone, Debug)]
pub struct Run {
    pub role: String,
    pub peer: String,
    /// "spin", "sleep" or, where the peer can do both by turns, "mixed".
    pub wait: String,
    /// What the peer calls its mode: of batching, of keeping the data.
    pub mode: String,
    pub size: usize,
    pub consumers: usize,
    /// Of a consumer, from 0.
    pub id: usize,
    /// Records a second; 0 is as fast as it goes.
    pub rate: u64,
    pub seconds: f64,
    /// The most bytes of payload that are sent.
    pub bytes: u64,
    /// A directory for this run alone.
    pub dir: PathBuf,
    /// Of the server, if the peer has one.
    pub port: u16,
}

impl Run {
    /// `ROLE key=value…`; the program that passes them is in this package, so a wrong one is a mistake there.
    pub fn from_args() -> Run {
        let mut args = std::env::args().skip(1);
        let role = args.next().expect("a role");
        let args: Vec<(String, String)> = args
            .map(|arg| arg.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).expect("key=value"))
            .collect();
        let text = |key: &str| args.iter().find(|(k, _)| k == key).map_or("", |(_, value)| value.as_str());
        let number = |key: &str| text(key).parse::<f64>().unwrap_or(0.0);
        Run {
            role,
            peer: text("peer").to_owned(),
            wait: text("wait").to_owned(),
            mode: text("mode").to_owned(),
            size: number("size") as usize,
            consumers: number("consumers") as usize,
            id: number("id") as usize,
            rate: number("rate") as u64,
            seconds: number("seconds"),
            bytes: number("bytes") as u64,
            dir: PathBuf::from(text("dir")),
            port: number("port") as u16,
        }
    }

    pub fn spins(&self) -> bool {
        self.wait == "spin"
    }

    /// The most records that are sent.
    pub fn records_max(&self) -> u64 {
        (self.bytes / self.size as u64).max(1)
    }

    /// Whether there are more processes than cores: then who spins must yield, or the others get nowhere.
    pub fn is_crowded(&self) -> bool {
        std::thread::available_parallelism().map_or(1, |cores| cores.get()) < self.consumers + 1
    }

    pub fn idle(&self) -> Idle {
        Idle { crowded: self.is_crowded(), count: 0 }
    }
}

/// Set when whoever started this process closes its input.
pub static STOP: AtomicBool = AtomicBool::new(false);

pub fn is_stopped() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// How everything here spins that has no strategy of its own.
#[derive(Debug)]
pub struct Idle {
    crowded: bool,
    count: u32,
}

impl Idle {
    pub fn reset(&mut self) {
        self.count = 0;
    }

    /// A turn without work.
    ///
    /// # Errors
    /// When the process is to stop.
    #[inline]
    pub fn wait(&mut self) -> Result<()> {
        self.count = self.count.wrapping_add(1);
        if self.crowded && self.count > 64 {
            std::thread::yield_now();
        } else {
            std::hint::spin_loop();
        }
        if self.count.is_multiple_of(64) && is_stopped() {
            return Err("stopped while it waited".into());
        }
        Ok(())
    }
}
