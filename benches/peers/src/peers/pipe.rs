//! Pipes (FIFOs, so that processes find them by name), one a consumer, each of the largest size that anybody may ask for. Modes: "plain" (a
//! system call for each record and consumer) and "batched" (for 64 KiB).

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::framing::{Frames, Unframe};
use crate::peer::{Consumer, Peer, Producer, Result};
use crate::run::Run;

/// /proc/sys/fs/pipe-max-size, as Linux has it.
const PIPE_BYTES: i32 = 1 << 20;

pub struct Pipe;

impl Peer for Pipe {
    type Producer = Pipes;
    type Consumer = Unframe<File>;

    fn producer(run: &Run) -> Result<Pipes> {
        let mut frames = Frames::new(run.mode == "batched");
        for id in 0..run.consumers {
            let path = name(run, id);
            let c = CString::new(path.as_os_str().as_bytes())?;
            // SAFETY: a string that ends with zero.
            if unsafe { libc::mkfifo(c.as_ptr(), 0o600) } != 0 {
                return Err(io::Error::last_os_error().into());
            }
            // For reading as well, or the call would wait for a reader, who is not there yet.
            frames.streams.push(open(&path, true)?);
        }
        Ok(Pipes { frames })
    }

    fn consumer(run: &Run) -> Result<Unframe<File>> {
        Ok(Unframe::new(open(&name(run, run.id), false)?))
    }
}

fn name(run: &Run, id: usize) -> PathBuf {
    run.dir.join(format!("pipe.{id}"))
}

fn open(path: &Path, write: bool) -> Result<File> {
    let file = OpenOptions::new().read(true).write(write).open(path)?;
    // SAFETY: a call on an open descriptor that touches no memory. Refused, the pipe keeps its 64 KiB.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETPIPE_SZ, PIPE_BYTES) };
    Ok(file)
}

pub struct Pipes {
    frames: Frames<File>,
}

impl Producer for Pipes {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<()> {
        self.frames.send(payload)
    }

    fn flush(&mut self) -> Result<()> {
        self.frames.flush()
    }
}

impl Consumer for Unframe<File> {
    #[inline]
    fn receive(&mut self, each: &mut impl FnMut(&[u8])) -> Result<bool> {
        Unframe::receive(self, each)
    }
}
