//! A record whose size is not known before its source has ended.

use std::io::{self, ErrorKind, Read};

use super::{Appended, Writer};
use crate::error::{Error, Result};
use crate::format::log::SIZE_BYTES;
use crate::protocol::Pair;
use crate::units::KIB;

impl Writer {
    /// Appends all that `source` gives as one record, of whatever size, and publishes it.
    ///
    /// # Errors
    /// Besides those of [`append`](Writer::append): [`Error::Source`] where the source fails, [`Error::Stopped`] once the
    /// [`stopper`](Writer::stopper) was used, which is looked at before each read. Either publishes nothing.
    pub fn append_from(&mut self, mut source: impl Read) -> Result<Appended> {
        let Pair { count: sequence, end: position } = self.published;
        self.make_ready(position, 0)?;
        let mut buffer = if self.space.is_mapped() { Vec::new() } else { vec![0; 256 * KIB as usize] };
        let mut end = position + SIZE_BYTES;
        loop {
            if self.stopper.is_stopped() {
                return Err(Error::Stopped { path: self.path.clone() });
            }
            let read = if buffer.is_empty() {
                let (room, nudge) = self.space.room(end)?;
                let read = read_into(&mut source, room);
                if nudge {
                    self.nudge();
                }
                read
            } else {
                read_into(&mut source, &mut buffer)
            };
            // The source is code of anybody's, which may fork.
            self.check()?;
            match read {
                Ok(0) => break,
                Ok(n) => {
                    if !buffer.is_empty() {
                        self.space.write(end, &buffer[..n])?;
                    }
                    end += n as u64;
                }
                // The handler of the signal may have used the stopper.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Source { path: self.path.clone(), source: error }),
            }
        }
        let size = end - position - SIZE_BYTES;
        self.space.write(position, &size.to_le_bytes())?;
        self.publish(Pair { count: sequence + 1, end })?;
        Ok(Appended { sequence, position, size })
    }
}

/// Reads from a source that is not trusted: how much it says it read may be anything.
fn read_into(source: &mut impl Read, room: &mut [u8]) -> io::Result<usize> {
    match source.read(room) {
        Ok(read) if read > room.len() => {
            let message = format!("it says that it read {read} bytes into a buffer of {}", room.len());
            Err(io::Error::new(ErrorKind::InvalidData, message))
        }
        read => read,
    }
}
