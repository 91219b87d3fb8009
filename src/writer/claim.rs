//! Space for a record that is written in place.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::{Appended, Writer};
use crate::error::{Error, Result};
use crate::format::log::SIZE_BYTES;
use crate::protocol::Pair;

/// Space for one record, zeroed, written in place by its [`DerefMut`]. Dropping it abandons it.
///
/// # Panics
/// Writing to it in a forked child: the space is the parent's, which may have published it meanwhile.
pub struct Claim<'a> {
    writer: &'a mut Writer,
    size: u64,
    /// The payload, where the log is not written through a mapping.
    buffer: Vec<u8>,
}

impl<'a> Claim<'a> {
    /// Of space that the writer has made ready.
    pub(super) fn new(writer: &'a mut Writer, size: u64) -> Result<Claim<'a>> {
        let payload = writer.published.end + SIZE_BYTES;
        let mut buffer = Vec::new();
        if writer.space.is_mapped() {
            writer.space.clean(payload, size);
        } else {
            let bytes = usize::try_from(size).unwrap_or(usize::MAX);
            buffer.try_reserve_exact(bytes).map_err(|_| {
                Error::io_at("get memory for a record", &writer.path, payload, std::io::ErrorKind::OutOfMemory)
            })?;
            buffer.resize(bytes, 0);
        }
        Ok(Claim { writer, size, buffer })
    }

    /// Publishes the record.
    ///
    /// # Errors
    /// As for [`Writer::append`]; then nothing is published.
    pub fn commit(mut self) -> Result<Appended> {
        self.writer.check()?;
        let Pair { count: sequence, end: position } = self.writer.published;
        let space = &mut self.writer.space;
        space.write(position, &self.size.to_le_bytes())?;
        if !self.buffer.is_empty() {
            space.write(position + SIZE_BYTES, &self.buffer)?;
        }
        self.writer.publish(Pair { count: sequence + 1, end: position + SIZE_BYTES + self.size })?;
        Ok(Appended { sequence, position, size: std::mem::take(&mut self.size) })
    }

    fn is_in_place(&self) -> bool {
        self.writer.space.is_mapped()
    }
}

impl Deref for Claim<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        if self.is_in_place() {
            self.writer.space.slice(self.writer.published.end + SIZE_BYTES, self.size)
        } else {
            &self.buffer
        }
    }
}

impl DerefMut for Claim<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        assert!(
            self.writer.owner.is_current(),
            "a claim cannot be written to in a forked child: it belongs to the parent process"
        );
        if self.is_in_place() {
            self.writer.space.slice_mut(self.writer.published.end + SIZE_BYTES, self.size)
        } else {
            &mut self.buffer
        }
    }
}

impl fmt::Debug for Claim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the payload: it may be gigabytes.
        f.debug_struct("Claim").field("size", &self.size).finish_non_exhaustive()
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.writer.space.soil(self.writer.published.end + SIZE_BYTES + self.size);
    }
}
