//! Records that become visible together.

use std::ops::Range;

use super::{Appended, Writer};
use crate::error::Result;
use crate::protocol::Pair;

/// Records that become visible together. Dropping it rolls it back.
#[derive(Debug)]
pub struct Batch<'a> {
    writer: &'a mut Writer,
    next: Pair,
}

impl<'a> Batch<'a> {
    pub(super) fn new(writer: &'a mut Writer) -> Batch<'a> {
        Batch { next: writer.published, writer }
    }

    /// Adds a record; it is visible after [`commit`](Batch::commit).
    ///
    /// # Errors
    /// As for [`Writer::append`]. The batch stays as it was, and may be committed or added to.
    #[inline]
    pub fn append(&mut self, payload: &[u8]) -> Result<Appended> {
        let (appended, next) = self.writer.put(self.next, payload)?;
        self.next = next;
        Ok(appended)
    }

    /// Publishes all of them at once; returns their sequences. An empty batch publishes nothing.
    ///
    /// # Errors
    /// As for [`Writer::append`]; then nothing of the batch is published.
    pub fn commit(mut self) -> Result<Range<u64>> {
        let first = self.writer.published.count;
        self.writer.check()?;
        if self.next.count > first {
            self.writer.publish(self.next)?;
        }
        self.next = self.writer.published;
        Ok(first..self.next.count)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.writer.space.soil(self.next.end);
    }
}
