//! Bytes of the log at hand: a copy of a part of the file, or a part of a follower's window.

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::format::log::{SIZE_BYTES, number_at};
use crate::sys::file::read_at;
use crate::units::KIB;
use crate::window::Window;

/// The step of reading through a descriptor where much is to be read: 128 to 256 KiB are the fastest (FACTS).
pub(crate) const CHUNK_BYTES: u64 = 256 * KIB;

/// Bytes of the log that follow each other, in one place whichever way they came, so that the hot path does not ask which.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The first byte, in `buffer` or in `window`.
    base: NonNull<u8>,
    /// The position of the first byte.
    at: u64,
    /// How many bytes count.
    len: usize,
    /// Used as a whole, and never shrunk, so that a read needs no zeroing.
    buffer: Vec<u8>,
    window: Option<Arc<Window>>,
}

// SAFETY: `base` points into what the chunk itself owns or keeps alive, and is only read through.
unsafe impl Send for Chunk {}
// SAFETY: as above; `&self` gives reads alone.
unsafe impl Sync for Chunk {}

impl Default for Chunk {
    fn default() -> Chunk {
        Chunk { base: NonNull::dangling(), at: 0, len: 0, buffer: Vec::new(), window: None }
    }
}

impl Chunk {
    /// Reads up to `len` bytes at `position` into the buffer, fewer where the file ends.
    pub(crate) fn fill(&mut self, file: &File, position: u64, len: u64) -> io::Result<()> {
        self.len = 0;
        let len = len as usize;
        if self.buffer.len() < len {
            // At once in full, so that it is allocated once.
            self.buffer.resize(len.max(CHUNK_BYTES as usize), 0);
        }
        let read = read_at(file, &mut self.buffer[..len], position)?;
        (self.base, self.at, self.len) = (NonNull::from(&self.buffer[..]).cast(), position, read);
        Ok(())
    }

    /// Takes what its window has of `from..to`, which the caller has found below a published end.
    ///
    /// # Panics
    /// Where it has no window that covers them.
    #[inline]
    pub(crate) fn map(&mut self, from: u64, to: u64) {
        let bytes = self.window.as_ref().expect("a window").published(from, to);
        (self.base, self.at, self.len) = (NonNull::from(bytes).cast(), from, bytes.len());
    }

    pub(crate) fn window(&self) -> Option<&Window> {
        self.window.as_deref()
    }

    /// Has another window from now on, and no bytes.
    pub(crate) fn set_window(&mut self, window: Arc<Window>) {
        self.len = 0;
        self.window = Some(window);
    }

    /// Has no bytes any more, and no buffer; gives it away.
    pub(crate) fn take_buffer(&mut self) -> Vec<u8> {
        self.len = 0;
        std::mem::take(&mut self.buffer)
    }

    /// Has this buffer from now on, and no bytes.
    pub(crate) fn set_buffer(&mut self, buffer: Vec<u8>) {
        self.len = 0;
        self.buffer = buffer;
    }

    pub(crate) fn has_no_buffer(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Forgets the bytes at and beyond `position`.
    pub(crate) fn cut(&mut self, position: u64) {
        self.len = self.len.min(position.saturating_sub(self.at) as usize);
    }

    /// The position behind the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.at + self.len as u64
    }

    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `fill` and `map` set `base` and `len` to a part of the buffer or of the window; whatever changes the buffer, or lets go
        // of one of them, sets `len` to 0 before. In the window, bytes below a published end never change (`Window::published`).
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }

    /// The number at `position`, if all of it is here.
    #[inline]
    pub(crate) fn number(&self, position: u64) -> Option<u64> {
        number_at(self.bytes(), position.checked_sub(self.at)? as usize)
    }

    /// Where in the chunk the payload of the record at `position` lies, and its size, if all of it is here.
    #[inline(always)]
    pub(crate) fn payload_at(&self, position: u64) -> Option<(usize, usize)> {
        let at = position.checked_sub(self.at)? as usize;
        let (size, rest) = self.bytes().get(at..)?.split_first_chunk()?;
        let size = u64::from_le_bytes(*size);
        (size <= rest.len() as u64).then_some((at + SIZE_BYTES as usize, size as usize))
    }

    /// What [`payload_at`](Chunk::payload_at) has found.
    #[inline(always)]
    pub(crate) fn payload(&self, (at, size): (usize, usize)) -> &[u8] {
        &self.bytes()[at..at + size]
    }

    /// The bytes at `position`, if all of them are here.
    #[inline]
    pub(crate) fn slice(&self, position: u64, len: u64) -> Option<&[u8]> {
        let from = position.checked_sub(self.at)?;
        let to = from.checked_add(len).filter(|to| *to <= self.len as u64)?;
        Some(&self.bytes()[from as usize..to as usize])
    }
}
