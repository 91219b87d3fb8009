//! Appending.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::time::Duration;

use super::border::{self, Handle, Home};
use super::error::immuta_code::{self, IMMUTA_BATCH};
use super::error::{Failure, Outcome};
use super::growing::{self, Growing};
use super::reader::immuta_stat;
use crate::{Appended, Batch, Durability, Writer, WriterOptions};

/// When what is appended is made durable, so that a power cut does not take it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum immuta_durability {
    /// By a helper thread, within interval_ms and the time that a flush takes.
    IMMUTA_INTERVAL = 0,
    /// By immuta_writer_sync() and at close alone.
    IMMUTA_BUFFERED = 1,
    /// Before it is published: an append or a commit returns, and a follower sees it, once it is durable.
    IMMUTA_SYNC = 2,
}

/// Flags of immuta_writer_options, to be added up.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum immuta_writer_flag {
    /// Keeps no index beside the log, and removes one that is there: then records are found by a walk, and have no checksums.
    IMMUTA_WITHOUT_INDEX = 1,
    /// Appends by system calls and not through a mapping, as is done of itself where reserved space does not hold.
    IMMUTA_WITHOUT_MAPPING = 2,
}

/// How to open a log for appending. A field that is 0 or NULL stands for the default; size is sizeof(immuta_writer_options):
/// `immuta_writer_options options = {sizeof options};`
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct immuta_writer_options {
    /// The size of this struct in bytes, by which a later library knows an older program.
    pub size: usize,
    /// The directory of the control page and the doorbell; the default is the environment's IMMUTA_CONTROL_DIR, else /dev/shm.
    pub control_dir: *const c_char,
    /// With IMMUTA_INTERVAL: the most milliseconds before a flush begins, at least 10; the default is 1000.
    pub interval_ms: u64,
    /// Address space for the mapping, in bytes; the default is 64 GiB. A log may outgrow it.
    pub window_bytes: u64,
    /// Zeroed space made ready when the log is opened, in bytes; the default is what a helper thread does ahead.
    pub reserve_bytes: u64,
    /// An immuta_durability.
    pub durability: u32,
    /// The rights of a log that is created; the default is 0666 without the umask's bits.
    pub mode: u32,
    /// The rights of the doorbell; the default is 0600. Who may write it can end the writer: open it to a group at most.
    pub doorbell_mode: u32,
    /// The sum of some immuta_writer_flag.
    pub flags: u32,
}

// SAFETY: five words and four halves of one, which are integers and a pointer.
unsafe impl Growing for immuta_writer_options {
    const LEAST: usize = 56;
    const NAME: &'static str = "immuta_writer_options";
}

const _: () = assert!(size_of::<immuta_writer_options>() == 56, "fields are added at the end, without padding");

/// Where a record went.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct immuta_appended {
    /// How many records come before it.
    pub sequence: u64,
    /// The offset of its size field in the log, in bytes.
    pub position: u64,
    /// The payload's size, in bytes.
    pub size: u64,
}

impl From<Appended> for immuta_appended {
    #[inline]
    fn from(Appended { sequence, position, size }: Appended) -> immuta_appended {
        immuta_appended { sequence, position, size }
    }
}

/// The one that appends to a log. It may go from thread to thread, but one at a time: no two calls on a writer may overlap.
#[derive(Debug)]
pub struct immuta_writer {
    home: Home,
    /// Borrows from `writer`, which nobody touches before this has ended.
    batch: Option<Batch<'static>>,
    /// From a box, to which this is the only way.
    writer: Option<NonNull<Writer>>,
    notices: CString,
}

impl Handle for immuta_writer {
    const KIND: &'static str = "writer";

    fn home(&self) -> &Home {
        &self.home
    }
}

impl immuta_writer {
    fn new(writer: Writer, path: &Path) -> Outcome<immuta_writer> {
        let home = Home::new(path)?;
        let notices = writer.notices().iter().map(|notice| format!("{notice}\n")).collect::<String>();
        let notices = CString::new(notices.replace('\0', "")).unwrap_or_default();
        Ok(immuta_writer { home, batch: None, writer: Some(NonNull::from(Box::leak(Box::new(writer)))), notices })
    }

    /// The writer, while there is no batch.
    #[inline]
    fn free(&mut self) -> Outcome<&mut Writer> {
        match self.writer {
            // SAFETY: it lives until `end`, and nobody borrows from it: a batch would be here, and what is returned borrows `self`.
            Some(mut writer) if self.batch.is_none() => Ok(unsafe { writer.as_mut() }),
            _ => Err(Failure::plain(IMMUTA_BATCH, c"there is a batch: commit or abandon it first")),
        }
    }

    #[inline]
    fn batch(&mut self) -> Outcome<&mut Batch<'static>> {
        self.batch.as_mut().ok_or_else(no_batch)
    }

    /// The writer, for good; abandons a batch.
    fn end(&mut self) -> Option<Box<Writer>> {
        self.batch = None;
        // SAFETY: it came from a box, `take` sees to it that it becomes one again once, and its only borrower is gone.
        self.writer.take().map(|writer| unsafe { Box::from_raw(writer.as_ptr()) })
    }
}

impl Drop for immuta_writer {
    fn drop(&mut self) {
        drop(self.end());
    }
}

fn no_batch() -> Box<Failure> {
    Failure::plain(IMMUTA_BATCH, c"there is no batch: begin one first")
}

unsafe fn writer_options(options: *const immuta_writer_options) -> Outcome<WriterOptions> {
    let mut chosen = WriterOptions::new();
    if options.is_null() {
        return Ok(chosen);
    }
    // SAFETY: the program says how large it is, as the header demands.
    let options = unsafe { growing::read(options) }?;
    if !options.control_dir.is_null() {
        // SAFETY: a string of C, as the header demands.
        chosen.control_dir(unsafe { border::path(options.control_dir, "control_dir") }?);
    }
    let interval_ms = if options.interval_ms == 0 { 1000 } else { options.interval_ms };
    chosen.durability(match options.durability {
        n if n == immuta_durability::IMMUTA_INTERVAL as u32 => Durability::Interval(Duration::from_millis(interval_ms)),
        n if n == immuta_durability::IMMUTA_BUFFERED as u32 => Durability::Buffered,
        n if n == immuta_durability::IMMUTA_SYNC as u32 => Durability::Sync,
        n => return Err(Failure::invalid(format!("{n} is no immuta_durability"))),
    });
    if options.window_bytes != 0 {
        chosen.window(options.window_bytes);
    }
    if options.mode != 0 {
        chosen.mode(options.mode);
    }
    if options.doorbell_mode != 0 {
        chosen.doorbell_mode(options.doorbell_mode);
    }
    let (no_index, no_mapping) =
        (immuta_writer_flag::IMMUTA_WITHOUT_INDEX as u32, immuta_writer_flag::IMMUTA_WITHOUT_MAPPING as u32);
    if options.flags & !(no_index | no_mapping) != 0 {
        return Err(Failure::invalid(format!("{:#x} is no sum of immuta_writer_flag", options.flags)));
    }
    chosen.reserve(options.reserve_bytes);
    chosen.index(options.flags & no_index == 0).mapped(options.flags & no_mapping == 0);
    Ok(chosen)
}

/// Opens the log at path for appending, and creates it where there is none. options may be NULL. What a writer that died has left is
/// recovered. Starts a helper thread, one in the process for all logs. On success *writer must be closed with immuta_writer_close().
///
/// IMMUTA_LOCKED while another writer has the log, IMMUTA_NOT_A_LOG, IMMUTA_DAMAGED, IMMUTA_IO. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_writer_open(
    path: *const c_char,
    options: *const immuta_writer_options,
    writer: *mut *mut immuta_writer,
) -> immuta_code {
    // SAFETY: the arguments are what the header demands of them: strings of C, a struct with its size, a place for a pointer.
    border::answer(|| unsafe {
        let place = border::place(writer, "place for the writer")?;
        let path = border::path(path, "path")?;
        let opened = writer_options(options)?.open(path)?;
        place.put(border::give(immuta_writer::new(opened, path)?));
        Ok(())
    })
}

/// Appends a record and publishes it. payload may be NULL where size is 0; appended may be NULL. Does not wait but for space, and with
/// IMMUTA_SYNC for two flushes.
///
/// IMMUTA_IO where there is no space (what was published stays, and appending goes on once there is room), IMMUTA_FAILED,
/// IMMUTA_BATCH. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_writer_append(
    writer: *mut immuta_writer,
    payload: *const c_void,
    size: usize,
    appended: *mut immuta_appended,
) -> immuta_code {
    // SAFETY: the arguments are what the header demands of them: a writer that no other call uses, `size` bytes, a place or NULL.
    unsafe {
        border::exclusive(writer, |writer| {
            let payload = border::payload(payload, size)?;
            let done = writer.free()?.append(payload)?;
            if let Some(place) = border::place_if(appended) {
                place.put(done.into());
            }
            Ok(())
        })
    }
}

/// Begins a batch: records that become visible together, when it is committed. Until then the writer takes no calls but the batch's
/// and immuta_writer_close(), which abandons it.
///
/// IMMUTA_BATCH where one has begun. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_batch_begin(writer: *mut immuta_writer) -> immuta_code {
    // SAFETY: a writer that no other call uses, as the header demands.
    unsafe {
        border::exclusive(writer, |writer| {
            let free: *mut Writer = writer.free()?;
            // SAFETY: it lives until `end`, which ends the batch first; and `free` gives it to nobody while there is a batch.
            writer.batch = Some((*free).batch());
            Ok(())
        })
    }
}

/// Adds a record to the batch. payload may be NULL where size is 0; appended, which may be NULL, says where the record will be.
///
/// As for immuta_writer_append(); the batch stays as it was, and may be committed or added to. IMMUTA_BATCH where none has begun.
/// One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_batch_append(
    writer: *mut immuta_writer,
    payload: *const c_void,
    size: usize,
    appended: *mut immuta_appended,
) -> immuta_code {
    // SAFETY: as in immuta_writer_append.
    unsafe {
        border::exclusive(writer, |writer| {
            let payload = border::payload(payload, size)?;
            let done = writer.batch()?.append(payload)?;
            if let Some(place) = border::place_if(appended) {
                place.put(done.into());
            }
            Ok(())
        })
    }
}

/// Publishes all records of the batch at once, and ends it, also where that fails. first and count, which may be NULL, are of its records.
///
/// As for immuta_writer_append(); then nothing of the batch is published. IMMUTA_BATCH where none has begun. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_batch_commit(
    writer: *mut immuta_writer,
    first: *mut u64,
    count: *mut u64,
) -> immuta_code {
    // SAFETY: a writer that no other call uses, and places or NULL, as the header demands.
    unsafe {
        border::exclusive(writer, |writer| {
            let done = writer.batch.take().ok_or_else(no_batch)?.commit()?;
            if let Some(place) = border::place_if(first) {
                place.put(done.start);
            }
            if let Some(place) = border::place_if(count) {
                place.put(done.end - done.start);
            }
            Ok(())
        })
    }
}

/// Ends the batch; nothing of it is published. IMMUTA_BATCH where none has begun. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_batch_abandon(writer: *mut immuta_writer) -> immuta_code {
    // SAFETY: a writer that no other call uses, as the header demands.
    unsafe {
        border::exclusive(writer, |writer| {
            drop(writer.batch.take().ok_or_else(no_batch)?);
            Ok(())
        })
    }
}

/// Returns when all that was published is durable: waits for a flush.
///
/// IMMUTA_IO where the flush fails: the writer has failed for good then, followers are told, and every later call gives IMMUTA_FAILED.
/// One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_writer_sync(writer: *mut immuta_writer) -> immuta_code {
    // SAFETY: a writer that no other call uses, as the header demands.
    unsafe { border::exclusive(writer, |writer| Ok(writer.free()?.sync()?)) }
}

/// How many records are known to survive a power cut: all of a lower sequence than *records. Does not wait. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_writer_durable(writer: *mut immuta_writer, records: *mut u64) -> immuta_code {
    // SAFETY: a writer that no other call uses, and a place, as the header demands.
    unsafe {
        border::exclusive(writer, |writer| {
            border::place(records, "place for the records")?.put(writer.free()?.durable());
            Ok(())
        })
    }
}

/// The log as it is now. Set stat->size to sizeof(immuta_stat) before. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_writer_stat(writer: *mut immuta_writer, stat: *mut immuta_stat) -> immuta_code {
    // SAFETY: a writer that no other call uses, and a struct with its size, as the header demands.
    unsafe {
        border::exclusive(writer, |writer| {
            growing::fill(stat, |size| Ok(immuta_stat::new(size, &writer.free()?.stat()?)))
        })
    }
}

/// What this writer does without, such as the control page, and why: a line each, to be shown to people once; usually "". Never NULL:
/// also of a writer that is NULL or belongs to the parent process it is "". Valid until the writer is closed. One thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_writer_notices(writer: *const immuta_writer) -> *const c_char {
    const NONE: &CStr = c"";
    // SAFETY: a writer that is not being closed, as the header demands.
    let writer = unsafe { writer.as_ref() }.filter(|writer| writer.home.is_here());
    writer.map_or(NONE.as_ptr(), |writer| writer.notices.as_ptr())
}

/// Closes the log: cuts the file to its exact end, makes all of it durable, tells the followers. Whatever it returns, the writer is
/// gone then, and a batch that has begun is abandoned. In a forked child it gives the memory back and does nothing to the log.
///
/// IMMUTA_IO where the file cannot be cut or flushed; what was published is in it. IMMUTA_FAILED, IMMUTA_FORKED. One thread, as the
/// last call on this writer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn immuta_writer_close(writer: *mut immuta_writer) -> immuta_code {
    // SAFETY: a writer that no other call uses, now or later, as the header demands.
    unsafe { border::last(writer, |mut writer| Ok(writer.end().map_or(Ok(()), |writer| writer.close())?)) }
}
