//! Following a log, and ending that.

use std::ffi::c_void;
use std::time::Duration;

use super::border::{self, Handle, Home};
use super::error::Failure;
use super::error::immuta_code::{self, IMMUTA_FORKED, IMMUTA_INVALID, IMMUTA_OK, IMMUTA_STOPPED, IMMUTA_TIMED_OUT};
use super::reader::immuta_writer_state;
use crate::{Stopper, Tailer};

/// As a time to wait: without limit.
pub const IMMUTA_FOREVER: u64 = 0xffff_ffff_ffff_ffff;

/// A record of a log.
#[repr(C)]
#[derive(Debug)]
pub struct immuta_record {
    /// How many records come before it.
    pub sequence: u64,
    /// The offset of its size field in the log, in bytes.
    pub position: u64,
    /// What was appended, valid until the next call on the tailer; not NULL, also where it is empty.
    pub payload: *const c_void,
    /// The payload's size, in bytes.
    pub size: usize,
}

/// Follows a log from one record to the next. It may go from thread to thread, but one at a time: no two calls on a tailer may
/// overlap. What ends its waits from elsewhere is an immuta_stopper.
#[derive(Debug)]
pub struct immuta_tailer {
    home: Home,
    stopper: Stopper,
    tailer: Tailer,
}

impl immuta_tailer {
    pub(super) fn new(home: Home, tailer: Tailer) -> immuta_tailer {
        immuta_tailer { home, stopper: tailer.stopper(), tailer }
    }
}

impl Handle for immuta_tailer {
    const KIND: &'static str = "tailer";

    fn home(&self) -> &Home {
        &self.home
    }
}

/// Ends the waits of the tailer that it was taken from, and may outlive it. Any number of threads and signal handlers may use it at
/// the same time; only immuta_stopper_free() must be the last call on it.
#[derive(Debug)]
pub struct immuta_stopper {
    stopper: Stopper,
    generation: u64,
}

fn stopped() -> Box<Failure> {
    Failure::plain(IMMUTA_STOPPED, c"the tailer was stopped")
}

fn early() -> Box<Failure> {
    Failure::plain(IMMUTA_TIMED_OUT, c"there is no record yet")
}

/// The next record. Waits for it for at most timeout_ms milliseconds, also across a writer's close and restart; with 0 not at all, with
/// IMMUTA_FOREVER without limit.
///
/// IMMUTA_TIMED_OUT where nothing came, IMMUTA_STOPPED once stopped, IMMUTA_REPLACED where the log is gone, IMMUTA_DAMAGED,
/// IMMUTA_TOO_LARGE, IMMUTA_IO; then *record stays as it was. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_tailer_next(
    tailer: *mut immuta_tailer,
    timeout_ms: u64,
    record: *mut immuta_record,
) -> immuta_code {
    // SAFETY: a tailer that no other call uses, and a place, as the header demands.
    unsafe {
        border::exclusive(tailer, |tailer| {
            // Before anything is read, which would be lost without a place for it.
            let place = border::place(record, "place for the record")?;
            let found = match timeout_ms {
                0 if tailer.stopper.is_stopped() => return Err(stopped()),
                0 => tailer.tailer.try_next()?.ok_or_else(early)?,
                IMMUTA_FOREVER => tailer.tailer.next()?.ok_or_else(stopped)?,
                limit => tailer.tailer.next_timeout(Duration::from_millis(limit))?.ok_or_else(stopped)?,
            };
            let payload = found.payload();
            place.put(immuta_record {
                sequence: found.sequence(),
                position: found.position(),
                payload: border::readable(payload),
                size: payload.len(),
            });
            Ok(())
        })
    }
}

/// The sequence of the next record. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_tailer_sequence(tailer: *mut immuta_tailer, sequence: *mut u64) -> immuta_code {
    // SAFETY: a tailer that no other call uses, and a place, as the header demands.
    unsafe {
        border::exclusive(tailer, |tailer| {
            border::place(sequence, "place for the sequence")?.put(tailer.tailer.sequence());
            Ok(())
        })
    }
}

/// The position of the next record, in bytes; of an earlier one while the tailer waits for a record beyond the end. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_tailer_position(tailer: *mut immuta_tailer, position: *mut u64) -> immuta_code {
    // SAFETY: a tailer that no other call uses, and a place, as the header demands.
    unsafe {
        border::exclusive(tailer, |tailer| {
            border::place(position, "place for the position")?.put(tailer.tailer.position());
            Ok(())
        })
    }
}

/// Who is writing to the log. IMMUTA_IO, IMMUTA_DAMAGED where only the file can tell and it is damaged. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_tailer_writer(
    tailer: *mut immuta_tailer,
    state: *mut immuta_writer_state,
) -> immuta_code {
    // SAFETY: a tailer that no other call uses, and a place, as the header demands.
    unsafe {
        border::exclusive(tailer, |tailer| {
            border::place(state, "place for the state")?.put(tailer.tailer.writer()?.into());
            Ok(())
        })
    }
}

/// What ends this tailer's waits; there may be any number. On success *stopper must be given to immuta_stopper_free(). One thread at
/// a time, so take it before the tailer waits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_tailer_stopper(
    tailer: *mut immuta_tailer,
    stopper: *mut *mut immuta_stopper,
) -> immuta_code {
    // SAFETY: a tailer that no other call uses, and a place, as the header demands.
    unsafe {
        border::exclusive(tailer, |tailer| {
            let place = border::place(stopper, "place for the stopper")?;
            let generation = border::generation();
            place.put(border::give(immuta_stopper { stopper: tailer.tailer.stopper(), generation }));
            Ok(())
        })
    }
}

/// Closes the tailer, which is gone then whatever it returns, and the last record's payload with it. One thread, as the last call on
/// this tailer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_tailer_close(tailer: *mut immuta_tailer) -> immuta_code {
    // SAFETY: a tailer that no other call uses, now or later, as the header demands.
    unsafe {
        border::last(tailer, |tailer| {
            drop(tailer);
            Ok(())
        })
    }
}

/// Stops the tailer that this was taken from, for good: its wait, and every later one, gives IMMUTA_STOPPED. One atomic store and one
/// wake-up; does nothing once the tailer is closed. IMMUTA_INVALID for NULL and IMMUTA_FORKED in a forked child are not remembered as the
/// last error, which a signal handler may not touch.
///
/// Any thread and any signal handler, any number at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_stop(stopper: *const immuta_stopper) -> immuta_code {
    // SAFETY: NULL, or a stopper that is not being freed, as the header demands.
    match unsafe { stopper.as_ref() } {
        None => IMMUTA_INVALID,
        Some(stopper) if stopper.generation != border::generation() => IMMUTA_FORKED,
        Some(stopper) => {
            // It cannot panic: it stores and makes a system call.
            stopper.stopper.stop();
            IMMUTA_OK
        }
    }
}

/// Gives the memory of a stopper back; stops nothing. One thread, as the last call on this stopper.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_stopper_free(stopper: *mut immuta_stopper) -> immuta_code {
    border::answer(|| {
        if stopper.is_null() {
            return Err(Failure::invalid("the stopper is NULL"));
        }
        // SAFETY: immuta_tailer_stopper made it of a box, and nobody has it any more, as the header demands.
        drop(unsafe { Box::from_raw(stopper) });
        Ok(())
    })
}
