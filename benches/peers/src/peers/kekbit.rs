//! kekbit: a mapped file of a fixed size, which is as large here as the run can need. It cannot sleep.

use kekbit::api::{EncoderHandler, ReadError, Reader, Writer};
use kekbit::core::{Metadata, ShmReader, ShmWriter, TickUnit, shm_reader, shm_writer};

use crate::peer::{Consumer, Peer, Producer, Result};
use crate::run::Run;

const CHANNEL: u64 = 1;
const WRITER: u64 = 2;
/// Nanoseconds after which a reader gives the writer up: never.
const TIMEOUT_NS: u64 = 99_999_999_999;
/// In front of each record; records are aligned to as much.
const HEADER_BYTES: u64 = 8;
/// The largest message may be this part of a channel.
const PARTS: u64 = 128;
/// Records that are taken before the workload looks at anything else.
const AT_ONCE: usize = 1024;

pub struct Kekbit;

impl Peer for Kekbit {
    type Producer = Channel;
    type Consumer = Follower;

    fn producer(run: &Run) -> Result<Channel> {
        let record = (run.size as u64).next_multiple_of(HEADER_BYTES) + HEADER_BYTES;
        let capacity = (run.records_max() + 2) * record + (1 << 16);
        let capacity = u32::try_from(capacity.max(2 * PARTS * record))?;
        let metadata = Metadata::new(WRITER, CHANNEL, capacity, record as u32, TIMEOUT_NS, TickUnit::Nanos);
        let writer = shm_writer(&run.dir, &metadata, EncoderHandler::default()).map_err(|e| format!("{e:?}"))?;
        Ok(Channel { writer })
    }

    fn consumer(run: &Run) -> Result<Follower> {
        Ok(Follower { reader: shm_reader(&run.dir, CHANNEL).map_err(|e| format!("{e:?}"))? })
    }
}

pub struct Channel {
    writer: ShmWriter<EncoderHandler>,
}

impl Producer for Channel {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.writer.write(&payload).map_err(|error| format!("{error:?}"))?;
        Ok(())
    }

    fn close(self) {
        // Its drop flushes all of the file, which is about to be removed.
        std::mem::forget(self.writer);
    }
}

pub struct Follower {
    reader: ShmReader,
}

impl Consumer for Follower {
    #[inline]
    fn receive(&mut self, each: &mut impl FnMut(&[u8])) -> Result<bool> {
        for taken in 0..AT_ONCE {
            match self.reader.try_read() {
                Ok(Some(record)) => each(record),
                Ok(None) | Err(ReadError::Closed) => return Ok(taken > 0),
                Err(error) => return Err(format!("{error:?}").into()),
            }
        }
        Ok(true)
    }
}
