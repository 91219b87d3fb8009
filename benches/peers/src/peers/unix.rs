//! Unix stream sockets, one a consumer. Modes: "plain" (a system call for each record and consumer) and "batched" (for 64 KiB).

use std::os::unix::net::{UnixListener, UnixStream};

use super::framing::{Frames, Unframe};
use crate::peer::{Consumer, Peer, Producer, Result};
use crate::run::Run;

pub struct Unix;

impl Peer for Unix {
    type Producer = Listener;
    type Consumer = Unframe<UnixStream>;

    fn producer(run: &Run) -> Result<Listener> {
        let listener = UnixListener::bind(run.dir.join("socket"))?;
        Ok(Listener { listener, consumers: run.consumers, frames: Frames::new(run.mode == "batched") })
    }

    fn consumer(run: &Run) -> Result<Unframe<UnixStream>> {
        Ok(Unframe::new(UnixStream::connect(run.dir.join("socket"))?))
    }
}

pub struct Listener {
    listener: UnixListener,
    consumers: usize,
    frames: Frames<UnixStream>,
}

impl Producer for Listener {
    fn start(&mut self) -> Result<()> {
        for _ in 0..self.consumers {
            self.frames.streams.push(self.listener.accept()?.0);
        }
        Ok(())
    }

    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.frames.send(payload)
    }

    fn flush(&mut self) -> Result<()> {
        self.frames.flush()
    }
}

impl Consumer for Unframe<UnixStream> {
    #[inline]
    fn receive(&mut self, each: &mut impl FnMut(&[u8])) -> Result<bool> {
        Unframe::receive(self, each)
    }
}
