//! The opened log.

use std::ffi::{c_char, c_void};
use std::time::{Duration, UNIX_EPOCH};

use super::border::{self, Handle, Home};
use super::error::immuta_code::{self, IMMUTA_NO_RECORD};
use super::error::{Failure, IMMUTA_UNKNOWN, Outcome};
use super::growing::{self, Growing};
use super::tailer::immuta_tailer;
use crate::{ReadMode, Reader, ReaderOptions, Start, Stat, WaitStrategy, WriterState};

/// How a reader takes bytes from the file.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum immuta_read_mode {
    /// Through a mapping while there is a control page, and what is much in steps that fail where the file has been cut or cannot be read;
    /// by reads otherwise. What was just written, and large records, are touched at once.
    IMMUTA_READ_AUTO = 0,
    /// The same, but all of it is touched at once: somebody's truncation of the file ends the process with SIGBUS.
    IMMUTA_READ_MAPPED = 1,
    /// By reads alone: for a log that is not trusted.
    IMMUTA_READ_PREAD = 2,
}

/// What a tailer does while there is nothing to read.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum immuta_wait_strategy {
    /// Spins for some microseconds, then sleeps.
    IMMUTA_WAIT_SPIN_THEN_PARK = 0,
    /// Never sleeps: lowest latency, a core for itself.
    IMMUTA_WAIT_SPIN = 1,
    /// Sleeps at once.
    IMMUTA_WAIT_PARK = 2,
}

/// Flags of immuta_reader_options, to be added up.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum immuta_reader_flag {
    /// Takes a record only once it is durable. The control page alone tells that, so immuta_reader_tail() fails where no writer has one.
    IMMUTA_ONLY_DURABLE = 1,
}

/// How to open a log for reading. A field that is 0 or NULL stands for the default; size is sizeof(immuta_reader_options):
/// `immuta_reader_options options = {sizeof options};`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct immuta_reader_options {
    /// The size of this struct in bytes, by which a later library knows an older program.
    pub size: usize,
    /// The directory of the control page and the doorbell; the default is the environment's IMMUTA_CONTROL_DIR, else /dev/shm.
    pub control_dir: *const c_char,
    /// How many milliseconds to wait for the log to appear; the default is not to wait. IMMUTA_FOREVER: without limit.
    pub wait_for_log_ms: u64,
    /// The largest payload that is taken, in bytes; the default is 1 GiB where it is copied as a whole, and no limit otherwise.
    pub max_record_bytes: u64,
    /// Address space for the mapping, in bytes; the default is 64 GiB. A log may outgrow it.
    pub window_bytes: u64,
    /// The most descriptors that the reader holds; the default is 10. Its tailers share them.
    pub descriptors: u32,
    /// An immuta_read_mode.
    pub read_mode: u32,
    /// An immuta_wait_strategy.
    pub wait_strategy: u32,
    /// The sum of some immuta_reader_flag.
    pub flags: u32,
}

// SAFETY: five words and four halves of one, which are integers and a pointer.
unsafe impl Growing for immuta_reader_options {
    const LEAST: usize = 56;
    const NAME: &'static str = "immuta_reader_options";
}

const _: () = assert!(size_of::<immuta_reader_options>() == 56, "fields are added at the end, without padding");

/// Who is writing to a log. Later versions may add states.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum immuta_writer_state {
    /// A writer has the log open.
    IMMUTA_WRITER_ALIVE = 1,
    /// The last writer closed the log.
    IMMUTA_WRITER_CLOSED = 2,
    /// The last writer died without closing.
    IMMUTA_WRITER_GONE = 3,
    /// The writer could not flush the log to the disk, and has ended itself.
    IMMUTA_WRITER_FAILED = 4,
}

impl From<WriterState> for immuta_writer_state {
    fn from(state: WriterState) -> immuta_writer_state {
        match state {
            WriterState::Alive => immuta_writer_state::IMMUTA_WRITER_ALIVE,
            WriterState::Closed => immuta_writer_state::IMMUTA_WRITER_CLOSED,
            WriterState::Gone => immuta_writer_state::IMMUTA_WRITER_GONE,
            WriterState::Failed => immuta_writer_state::IMMUTA_WRITER_FAILED,
        }
    }
}

/// A log at one instant. size is sizeof(immuta_stat), set by the program: `immuta_stat stat = {sizeof stat};`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct immuta_stat {
    /// The size of this struct in bytes, by which a later library knows an older program.
    pub size: usize,
    /// Records that are published.
    pub records: u64,
    /// The position behind the last of them, in bytes.
    pub end: u64,
    /// The size of the file in bytes: end, and what a writer has reserved beyond it.
    pub file_bytes: u64,
    /// Records that are known to survive a power cut, or IMMUTA_UNKNOWN.
    pub durable_records: u64,
    /// An immuta_writer_state.
    pub writer: u32,
    /// The writer's process while it is alive and the system tells, or 0. For messages only.
    pub pid: u32,
}

// SAFETY: five words and two halves of one, which are integers.
unsafe impl Growing for immuta_stat {
    const LEAST: usize = 48;
    const NAME: &'static str = "immuta_stat";
}

const _: () = assert!(size_of::<immuta_stat>() == 48, "fields are added at the end, without padding");

impl immuta_stat {
    pub(super) fn new(size: usize, stat: &Stat) -> immuta_stat {
        immuta_stat {
            size,
            records: stat.records,
            end: stat.end,
            file_bytes: stat.file_bytes,
            durable_records: stat.durable_records.unwrap_or(IMMUTA_UNKNOWN),
            writer: immuta_writer_state::from(stat.writer) as u32,
            pid: stat.pid.unwrap_or(0),
        }
    }
}

/// Bytes that the library has allocated for the program, which gives them back with immuta_bytes_free().
#[repr(C)]
#[derive(Debug)]
pub struct immuta_bytes {
    /// The first of them; not NULL, also where there are none.
    pub data: *const c_void,
    /// How many there are.
    pub size: usize,
}

/// Where a tailer begins. In immuta_reader_tail() some take a number.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum immuta_start {
    /// With the first record.
    IMMUTA_START_BEGINNING = 0,
    /// With the first record that is published after the tailer was made.
    IMMUTA_START_END = 1,
    /// With the record of sequence n, so behind the first n records; waits for it where it is not there yet.
    IMMUTA_START_SEQUENCE = 2,
    /// Behind the first n records, or behind as many as there are.
    IMMUTA_START_SKIP_AT_MOST = 3,
    /// With the last n records, or with all where there are fewer.
    IMMUTA_START_LAST = 4,
    /// With the first record that was published n nanoseconds after 1970-01-01 00:00 UTC or later, as the index tells: with a record
    /// that came up to two seconds earlier, but never a later one.
    IMMUTA_START_TIME_NS = 5,
}

/// An opened log. Any number of threads may use it at the same time; only immuta_reader_close() must be the last call on it.
#[derive(Debug)]
pub struct immuta_reader {
    home: Home,
    reader: Reader,
}

impl Handle for immuta_reader {
    const KIND: &'static str = "reader";

    fn home(&self) -> &Home {
        &self.home
    }
}

unsafe fn reader_options(options: *const immuta_reader_options) -> Outcome<ReaderOptions> {
    let mut chosen = ReaderOptions::new();
    if options.is_null() {
        return Ok(chosen);
    }
    // SAFETY: the program says how large it is, as the header demands.
    let options = unsafe { growing::read(options) }?;
    if !options.control_dir.is_null() {
        // SAFETY: a string of C, as the header demands.
        chosen.control_dir(unsafe { border::path(options.control_dir, "control_dir") }?);
    }
    chosen.wait_for_log(Duration::from_millis(options.wait_for_log_ms));
    if options.max_record_bytes != 0 {
        chosen.max_record(options.max_record_bytes);
    }
    if options.window_bytes != 0 {
        chosen.window(options.window_bytes);
    }
    if options.descriptors != 0 {
        chosen.descriptors(options.descriptors as usize);
    }
    chosen.read_mode(match options.read_mode {
        n if n == immuta_read_mode::IMMUTA_READ_AUTO as u32 => ReadMode::Auto,
        n if n == immuta_read_mode::IMMUTA_READ_MAPPED as u32 => ReadMode::Mapped,
        n if n == immuta_read_mode::IMMUTA_READ_PREAD as u32 => ReadMode::Pread,
        n => return Err(Failure::invalid(format!("{n} is no immuta_read_mode"))),
    });
    chosen.wait_strategy(match options.wait_strategy {
        n if n == immuta_wait_strategy::IMMUTA_WAIT_SPIN_THEN_PARK as u32 => WaitStrategy::SpinThenPark,
        n if n == immuta_wait_strategy::IMMUTA_WAIT_SPIN as u32 => WaitStrategy::Spin,
        n if n == immuta_wait_strategy::IMMUTA_WAIT_PARK as u32 => WaitStrategy::Park,
        n => return Err(Failure::invalid(format!("{n} is no immuta_wait_strategy"))),
    });
    let only_durable = immuta_reader_flag::IMMUTA_ONLY_DURABLE as u32;
    if options.flags & !only_durable != 0 {
        return Err(Failure::invalid(format!("{:#x} is no sum of immuta_reader_flag", options.flags)));
    }
    chosen.durable(options.flags & only_durable != 0);
    Ok(chosen)
}

fn start_of(start: u32, n: u64) -> Outcome<Start> {
    Ok(match start {
        s if s == immuta_start::IMMUTA_START_BEGINNING as u32 => Start::Beginning,
        s if s == immuta_start::IMMUTA_START_END as u32 => Start::End,
        s if s == immuta_start::IMMUTA_START_SEQUENCE as u32 => Start::Sequence(n),
        s if s == immuta_start::IMMUTA_START_SKIP_AT_MOST as u32 => Start::SkipAtMost(n),
        s if s == immuta_start::IMMUTA_START_LAST as u32 => Start::Last(n),
        s if s == immuta_start::IMMUTA_START_TIME_NS as u32 => Start::Time(UNIX_EPOCH + Duration::from_nanos(n)),
        s => return Err(Failure::invalid(format!("{s} is no immuta_start"))),
    })
}

/// Opens the log at path for reading; options may be NULL. Waits as wait_for_log_ms says. On success *reader must be closed with
/// immuta_reader_close().
///
/// IMMUTA_NOT_FOUND, IMMUTA_NOT_A_LOG, IMMUTA_DAMAGED where its count cannot be true, IMMUTA_IO. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_reader_open(
    path: *const c_char,
    options: *const immuta_reader_options,
    reader: *mut *mut immuta_reader,
) -> immuta_code {
    // SAFETY: the arguments are what the header demands of them: strings of C, a struct with its size, a place for a pointer.
    border::answer(|| unsafe {
        let place = border::place(reader, "place for the reader")?;
        let path = border::path(path, "path")?;
        let reader = reader_options(options)?.open(path)?;
        place.put(border::give(immuta_reader { home: Home::new(path)?, reader }));
        Ok(())
    })
}

/// A tailer that begins at start, an immuta_start, with its number n, which the others ignore. Where that is, is fixed now. On success
/// *tailer must be closed with immuta_tailer_close(); it may outlive the reader.
///
/// IMMUTA_DAMAGED, IMMUTA_NO_TIMES, IMMUTA_DURABLE_UNKNOWN, IMMUTA_IO. Any thread, any number at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_reader_tail(
    reader: *const immuta_reader,
    start: u32,
    n: u64,
    tailer: *mut *mut immuta_tailer,
) -> immuta_code {
    // SAFETY: a reader that is not being closed, and a place, as the header demands.
    unsafe {
        border::shared(reader, |reader| {
            let place = border::place(tailer, "place for the tailer")?;
            let tailer = reader.reader.tail(start_of(start, n)?)?;
            place.put(border::give(immuta_tailer::new(reader.home.same(), tailer)));
            Ok(())
        })
    }
}

/// A copy of the payload of one record. On success *payload must be given to immuta_bytes_free().
///
/// IMMUTA_NO_RECORD where there is none of this sequence yet, IMMUTA_TOO_LARGE, IMMUTA_DAMAGED, IMMUTA_IO. Any thread, any number at
/// the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_reader_get(
    reader: *const immuta_reader,
    sequence: u64,
    payload: *mut immuta_bytes,
) -> immuta_code {
    // SAFETY: a reader that is not being closed, and a place, as the header demands.
    unsafe {
        border::shared(reader, |reader| {
            let place = border::place(payload, "place for the payload")?;
            let none = || Failure::plain(IMMUTA_NO_RECORD, c"there is no record of this sequence yet");
            let bytes = reader.reader.get(sequence)?.ok_or_else(none)?.into_boxed_slice();
            let (data, size) = (border::readable(&bytes), bytes.len());
            std::mem::forget(bytes);
            place.put(immuta_bytes { data, size });
            Ok(())
        })
    }
}

/// Gives the memory of a payload back, and makes it one of no bytes, so that to do it twice is no harm. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_bytes_free(payload: *mut immuta_bytes) -> immuta_code {
    border::answer(|| {
        // SAFETY: what immuta_reader_get has filled in, or zeros, as the header demands.
        let Some(payload) = (unsafe { payload.as_mut() }) else {
            return Err(Failure::invalid("the payload is NULL"));
        };
        let nothing = immuta_bytes { data: border::readable(&[]), size: 0 };
        let immuta_bytes { data, size } = std::mem::replace(payload, nothing);
        if size > 0 {
            let bytes = std::ptr::slice_from_raw_parts_mut(data.cast_mut().cast::<u8>(), size);
            // SAFETY: immuta_reader_get made it of a box of this size, and it is not there any more to be freed again.
            drop(unsafe { Box::from_raw(bytes) });
        }
        Ok(())
    })
}

/// The log as it is now, and who is writing. Set stat->size to sizeof(immuta_stat) before. Any thread, any number at the same time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_reader_stat(reader: *const immuta_reader, stat: *mut immuta_stat) -> immuta_code {
    // SAFETY: a reader that is not being closed, and a struct with its size, as the header demands.
    unsafe {
        border::shared(reader, |reader| growing::fill(stat, |size| Ok(immuta_stat::new(size, &reader.reader.stat()?))))
    }
}

/// Closes the reader, which is gone then whatever it returns; its tailers live on. One thread, as the last call on this reader.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_reader_close(reader: *mut immuta_reader) -> immuta_code {
    // SAFETY: a reader that no other call uses, now or later, as the header demands.
    unsafe {
        border::last(reader, |reader| {
            drop(reader);
            Ok(())
        })
    }
}
