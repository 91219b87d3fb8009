//! ZeroMQ, PUB and SUB over ipc. With no high-water mark nothing is lost and nobody waits: what is behind is kept in memory.

use zmq::{Context, Message, Socket, SocketType};

use crate::peer::{Consumer, Peer, Producer, Result, WAIT};
use crate::run::Run;

/// Messages that are taken before the workload looks at anything else.
const AT_ONCE: usize = 1024;

pub struct ZeroMq;

impl Peer for ZeroMq {
    type Producer = Publisher;
    type Consumer = Subscriber;

    fn producer(run: &Run) -> Result<Publisher> {
        // XPUB is PUB that also tells of subscriptions, which is how the start is known.
        let socket = Context::new().socket(SocketType::XPUB)?;
        socket.set_sndhwm(0)?;
        socket.set_xpub_verbose(true)?;
        socket.set_linger(0)?;
        socket.bind(&endpoint(run))?;
        Ok(Publisher { socket, consumers: run.consumers })
    }

    fn consumer(run: &Run) -> Result<Subscriber> {
        let socket = Context::new().socket(SocketType::SUB)?;
        socket.set_rcvhwm(0)?;
        socket.set_subscribe(b"")?;
        socket.set_rcvtimeo(WAIT.as_millis() as i32)?;
        socket.connect(&endpoint(run))?;
        Ok(Subscriber { socket, message: Message::new() })
    }
}

fn endpoint(run: &Run) -> String {
    format!("ipc://{}", run.dir.join("socket").display())
}

pub struct Publisher {
    socket: Socket,
    consumers: usize,
}

impl Producer for Publisher {
    fn start(&mut self) -> Result<()> {
        for _ in 0..self.consumers {
            self.socket.recv_bytes(0)?;
        }
        Ok(())
    }

    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.socket.send(payload, 0)?;
        Ok(())
    }
}

pub struct Subscriber {
    socket: Socket,
    message: Message,
}

impl Consumer for Subscriber {
    fn receive(&mut self, each: &mut impl FnMut(&[u8])) -> Result<bool> {
        for taken in 0..AT_ONCE {
            let flags = if taken == 0 { 0 } else { zmq::DONTWAIT };
            match self.socket.recv(&mut self.message, flags) {
                Ok(()) => each(&self.message),
                Err(zmq::Error::EAGAIN) => return Ok(taken > 0),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }
}
