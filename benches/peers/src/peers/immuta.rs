//! immuta. Modes: "interval" (the default: flushed by a helper thread each second, a follower sees a record at once), "sync" (an append
//! returns, and a follower sees it, when it is on the disk; 64 records a batch).

use immuta::{Durability, Error, Reader, ReaderOptions, Start, Tailer, WaitStrategy, Writer, WriterOptions};

use crate::peer::{Consumer, Peer, Producer, Result, WAIT};
use crate::run::Run;

/// Records that share the two flushes of [`Durability::Sync`].
const BATCH: usize = 64;
/// Records that are taken before the workload looks at anything else.
const AT_ONCE: usize = 1024;

pub struct Immuta;

impl Peer for Immuta {
    type Producer = Appender;
    type Consumer = Follower;

    fn producer(run: &Run) -> Result<Appender> {
        let mut options = WriterOptions::new();
        let sync = run.mode == "sync";
        if sync {
            options.durability(Durability::Sync);
        }
        let writer = options.open(run.dir.join("log"))?;
        Ok(Appender { writer, size: run.size, batch: sync.then(|| Vec::with_capacity(BATCH * run.size)) })
    }

    fn consumer(run: &Run) -> Result<Follower> {
        let strategy = match run.wait.as_str() {
            "spin" => WaitStrategy::Spin,
            "sleep" => WaitStrategy::Park,
            _ => WaitStrategy::SpinThenPark,
        };
        let reader: Reader = ReaderOptions::new().wait_strategy(strategy).open(run.dir.join("log"))?;
        Ok(Follower { tailer: reader.tail(Start::Beginning)?, polls: run.spins() && run.is_crowded() })
    }
}

pub struct Appender {
    writer: Writer,
    size: usize,
    /// Of whole payloads.
    batch: Option<Vec<u8>>,
}

impl Producer for Appender {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<()> {
        let Some(batch) = &mut self.batch else {
            self.writer.append(payload)?;
            return Ok(());
        };
        batch.extend_from_slice(payload);
        if batch.len() == BATCH * self.size { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let Some(kept) = self.batch.as_mut().filter(|kept| !kept.is_empty()) else { return Ok(()) };
        let mut batch = self.writer.batch();
        for payload in kept.chunks_exact(self.size) {
            batch.append(payload)?;
        }
        batch.commit()?;
        kept.clear();
        Ok(())
    }
}

pub struct Follower {
    tailer: Tailer,
    /// With fewer cores than processes the workload's loop, which yields, takes the place of [`WaitStrategy::Spin`].
    polls: bool,
}

impl Consumer for Follower {
    #[inline]
    fn receive(&mut self, each: &mut impl FnMut(&[u8])) -> Result<bool> {
        for taken in 0..AT_ONCE {
            match self.tailer.try_next()? {
                Some(record) => each(record.payload()),
                None if taken > 0 => return Ok(true),
                None if self.polls => return Ok(false),
                None => break,
            }
        }
        match self.tailer.next_timeout(WAIT) {
            Ok(Some(record)) => each(record.payload()),
            Ok(None) | Err(Error::TimedOut { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }
}
