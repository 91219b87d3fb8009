//! The word that ends a wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys::futex;

/// Ends the waits of the [`Tailer`](crate::Tailer), or the [`append_from`](crate::Writer::append_from) of the
/// [`Writer`](crate::Writer), that it was taken from. Once stopped, stopped for good.
#[derive(Clone, Debug, Default)]
pub struct Stopper {
    word: Arc<AtomicU32>,
}

impl Stopper {
    /// Stops: one atomic store and one wake-up; may be called from any thread and from a signal handler.
    pub fn stop(&self) {
        // Release, with the acquire in `is_stopped`: what the caller did before is visible to whoever was stopped.
        self.word.store(1, Ordering::Release);
        futex::wake_stopped(&self.word);
    }

    /// Whether [`stop`](Stopper::stop) was called.
    #[inline]
    pub fn is_stopped(&self) -> bool {
        // Acquire: pairs with the release in `stop`.
        self.word.load(Ordering::Acquire) != 0
    }

    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.word
    }
}
