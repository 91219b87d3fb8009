//! The word that ends a wait.

/// Ends the waits of the [`Tailer`](crate::Tailer), or the [`append_from`](crate::Writer::append_from) of the
/// [`Writer`](crate::Writer), that it was taken from. Once stopped, stopped for good.
#[derive(Clone, Debug)]
pub struct Stopper {}

impl Stopper {
    /// Stops: one atomic store and one wake-up; may be called from any thread and from a signal handler.
    pub fn stop(&self) {
        todo!()
    }

    /// Whether [`stop`](Stopper::stop) was called.
    pub fn is_stopped(&self) -> bool {
        todo!()
    }
}
