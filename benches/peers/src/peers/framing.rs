//! Records in a stream of bytes: a size of 4 bytes in front of each. For pipes and sockets.

use std::io::{Read, Write};

use crate::peer::Result;

/// What the batching modes send with one system call.
const BATCH_BYTES: usize = 64 << 10;
const PREFIX_BYTES: usize = 4;
/// What a consumer asks for at once.
const READ_BYTES: usize = 256 << 10;

/// One stream a consumer; whoever is slow is waited for.
pub struct Frames<W> {
    pub streams: Vec<W>,
    buffer: Vec<u8>,
    /// A system call happens once this much is there.
    batch: usize,
}

impl<W: Write> Frames<W> {
    pub fn new(batched: bool) -> Frames<W> {
        let batch = if batched { BATCH_BYTES } else { 0 };
        Frames { streams: Vec::new(), buffer: Vec::with_capacity(2 * BATCH_BYTES + PREFIX_BYTES), batch }
    }

    #[inline]
    pub fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(payload);
        if self.buffer.len() >= self.batch { self.flush() } else { Ok(()) }
    }

    pub fn flush(&mut self) -> Result<()> {
        for stream in &mut self.streams {
            stream.write_all(&self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }
}

/// The other end.
pub struct Unframe<R> {
    stream: R,
    buffer: Vec<u8>,
    /// Bytes from here to `end` are not handed over yet.
    begin: usize,
    end: usize,
}

impl<R: Read> Unframe<R> {
    pub fn new(stream: R) -> Unframe<R> {
        Unframe { stream, buffer: vec![0; 2 * READ_BYTES], begin: 0, end: 0 }
    }

    /// Waits for bytes, and hands over the records that are whole.
    pub fn receive(&mut self, each: &mut impl FnMut(&[u8])) -> Result<bool> {
        if self.begin > READ_BYTES {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        let room = self.end..(self.end + READ_BYTES).min(self.buffer.len());
        let read = self.stream.read(&mut self.buffer[room])?;
        if read == 0 {
            return Err("the producer has gone".into());
        }
        self.end += read;
        while let Some((prefix, rest)) = self.buffer[self.begin..self.end].split_first_chunk::<PREFIX_BYTES>() {
            let Some(payload) = rest.get(..u32::from_le_bytes(*prefix) as usize) else { break };
            each(payload);
            self.begin += PREFIX_BYTES + payload.len();
        }
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
        Ok(true)
    }
}
