//! What a peer has to implement.

use crate::run::Run;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// A way from one process to others.
pub trait Peer {
    type Producer: Producer;
    type Consumer: Consumer;

    /// Makes the channel: when this has returned, consumers are started.
    fn producer(run: &Run) -> Result<Self::Producer>;

    /// Attaches: when this has returned in every consumer, the producer starts.
    fn consumer(run: &Run) -> Result<Self::Consumer>;
}

pub trait Producer: Sized {
    /// All consumers are attached, by their own word; here the producer makes sure of it. Not measured.
    fn start(&mut self) -> Result<()> {
        Ok(())
    }

    /// Sends, or keeps it for a batch. Waits where the peer has back-pressure.
    fn send(&mut self, payload: &[u8]) -> Result<()>;

    /// Sends what is kept: called before the producer pauses, and at the end.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// After all consumers have ended.
    fn close(self) {}
}

pub trait Consumer: Sized {
    /// Hands over what has come. `false` where there is nothing: a peer that can sleep returns so after [`WAIT`] at most,
    /// one that cannot at once, and the workload spins.
    fn receive(&mut self, each: &mut impl FnMut(&[u8])) -> Result<bool>;
}

/// A sleep's bound, so that a consumer notices that it is to stop.
pub const WAIT: std::time::Duration = std::time::Duration::from_millis(100);
