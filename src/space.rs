//! Where a writer's bytes go: a window of the file mapped beyond its end, grown and moved as it fills, or descriptors
//! where reserved space does not hold. Never writes below its floor, which is the published end; that makes its
//! methods safe, since readers look only below it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use crate::error::{Error, Result};
use crate::format::log::{COUNT_OFFSET, HEADER_BYTES};
use crate::growth::Growth;
use crate::sys::fault;
use crate::sys::file;
use crate::sys::map::{Access, Mapping};
use crate::units::{GIB, KIB, LARGE_PAGE, MIB, PAGE, WINDOW_MOST, round_down, round_up};

/// What is mapped at once of a file that is kept page by page: one at a time would cost half as much again, and more would be felt by the
/// append that comes to it (about 1 µs a page).
const FAULT_BYTES: u64 = 16 * KIB;

/// Of what is reserved at the opening so much is mapped then, in bytes.
const RESERVE_MAPPED_MOST: u64 = GIB;

/// A writer's access to the bytes of its log.
#[derive(Debug)]
pub(crate) struct Space {
    file: Arc<File>,
    path: PathBuf,
    growth: Arc<Growth>,
    /// The first page, for the count; `None` where bytes go through the descriptor.
    header: Option<Arc<Mapping>>,
    window: Option<Mapping>,
    /// The position of the window's first byte.
    window_at: u64,
    window_bytes: u64,
    /// Bytes from `window_at` to here can be stored into.
    ready: u64,
    /// The same, but for faults of a file that is kept page by page; beyond this the next look at the growth is due.
    reach: u64,
    /// Of such a file the pages were mapped up to here, where the kernel can.
    faulted: u64,
    /// Nothing below this is ever written.
    floor: u64,
    /// Bytes between the floor and this may not be zero any more.
    dirty: u64,
}

impl Space {
    /// For a log that ends at `end`; `reserve` bytes beyond it are made ready now.
    pub(crate) fn new(
        file: Arc<File>,
        path: &Path,
        growth: Arc<Growth>,
        end: u64,
        mapped: bool,
        window_bytes: u64,
        reserve: u64,
    ) -> Result<Space> {
        let window_bytes = round_up(window_bytes.clamp(LARGE_PAGE, WINDOW_MOST), LARGE_PAGE);
        let mut space = Space {
            file,
            path: path.to_owned(),
            growth,
            header: None,
            window: None,
            window_at: 0,
            window_bytes,
            ready: 0,
            reach: 0,
            faulted: 0,
            floor: end,
            dirty: end,
        };
        if mapped {
            // No file is so long, and growing says so.
            space.grow_to(end.saturating_add(reserve).max(PAGE))?;
            let unshared = file::unshare(&space.file, 0, PAGE).and_then(|()| file::unshare(&space.file, end, end + 1));
            unshared.map_err(|error| Error::io("reserve space in the log", path, error))?;
            let header = Mapping::writable(&space.file, 0, PAGE);
            space.header = Some(Arc::new(header.map_err(|error| Error::io("map the log", path, error))?));
            // Not where a file grows page by page so that little is flushed: it would fault as often.
            if reserve > 0 && !space.growth.is_ordered() {
                space.move_window(end, end + 1)?;
                // No more than stays in memory.
                space.fault_in(end, end + reserve.min(RESERVE_MAPPED_MOST));
            }
        } else if space.file.metadata().is_ok_and(|metadata| metadata.len() < HEADER_BYTES) {
            space.pwrite(COUNT_OFFSET, &[0; HEADER_BYTES as usize])?;
        }
        Ok(space)
    }

    /// Whether the bytes of a range can be stored at once.
    #[inline(always)]
    pub(crate) fn is_ready(&self, from: u64, to: u64) -> bool {
        to <= self.ready && from >= self.window_at
    }

    /// After this nothing is ready any more, so that every append takes the slow path.
    pub(crate) fn retire(&mut self) {
        (self.ready, self.reach) = (0, 0);
    }

    /// In a forked child: gives back what it has of its parent's mappings.
    pub(crate) fn leave_to_parent(&mut self) {
        self.window = None;
        self.retire();
        if let Some(header) = self.header.take() {
            // SAFETY: the only other holder is the helper thread, for the length of a call, and that is not in this process.
            unsafe { Mapping::unmap_inherited(header) }
        }
    }

    pub(crate) fn is_mapped(&self) -> bool {
        self.header.is_some()
    }

    /// The first page, with the count, where the log is mapped.
    pub(crate) fn header(&self) -> Option<Weak<Mapping>> {
        self.header.as_ref().map(Arc::downgrade)
    }

    /// Copies `bytes` to `at`, where all of it [is ready](Space::is_ready).
    #[inline(always)]
    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        fault::at("bytes");
        let window = self.window.as_ref().expect("what is ready is mapped");
        assert!(at >= self.floor && at >= self.window_at && at + bytes.len() as u64 <= self.ready);
        // SAFETY: the range is mapped writable and the file reaches beyond it (`ready`), and it lies above the published
        // end, where only the holder of the writer's lock, this thread by `&mut self`, reads or writes.
        unsafe { window.write(at - self.window_at, bytes) }
    }

    /// Stores the number of records, after all of their bytes, and never writes below `end` again.
    #[inline(always)]
    pub(crate) fn publish(&mut self, count: u64, end: u64) -> Result<()> {
        fault::at("count");
        match &self.header {
            // Release: pairs with whoever reads the count; the records are in the file before it.
            Some(header) => header.first_word().store(count, Ordering::Release),
            None => self.pwrite(COUNT_OFFSET, &count.to_le_bytes())?,
        }
        self.floor = end;
        Ok(())
    }

    /// Makes `from..to` ready, or fails with nothing changed but the size of the file. `true` where the helper should be nudged.
    #[cold]
    pub(crate) fn prepare(&mut self, from: u64, to: u64) -> Result<bool> {
        let nudge = (to > self.reach || from < self.window_at) && self.reach_to(from, to)?;
        self.ready = self.reach;
        if self.growth.is_in_pages() {
            self.ready = self.reach.min(round_up(to, FAULT_BYTES));
            self.fault_in(from, self.ready);
        }
        Ok(nudge)
    }

    /// Grows the file and moves the window, so that they have `from..to`. `true` where the helper should be nudged.
    fn reach_to(&mut self, from: u64, to: u64) -> Result<bool> {
        self.grow_to(to)?;
        let window_end = self.window_at + self.window.as_ref().map_or(0, Mapping::len);
        if self.window.is_none() || from < self.window_at || to > window_end {
            self.move_window(from, to)?;
        }
        let window_end = self.window_at + self.window.as_ref().map_or(0, Mapping::len);
        let grown = self.growth.grown();
        let ahead = self.growth.ahead(to);
        // The next look at the growth is due when a part of what should be ahead is used up.
        let next_look = (to + (ahead / 8).max(16 * KIB)).max(grown.saturating_sub(self.growth.ahead(grown)));
        self.reach = next_look.min(grown).min(window_end).max(to);
        Ok(self.growth.advance(to))
    }

    /// Maps and zeroes the pages of `from..to` that the window has, in one call.
    fn fault_in(&mut self, from: u64, to: u64) {
        let window_end = self.window_at + self.window.as_ref().map_or(0, Mapping::len);
        let from = round_down(from, PAGE).max(self.faulted);
        let to = round_up(to, PAGE).min(window_end);
        if let Some(window) = self.window.as_ref().filter(|_| from < to) {
            // Where the kernel cannot, the stores fault.
            window.populate(Access::Write, from - self.window_at, to - from);
            self.faulted = to;
        }
    }

    fn grow_to(&self, to: u64) -> Result<()> {
        let result = self.growth.grow_to(to);
        result.map_err(|error| Error::io_at("reserve space in the log", &self.path, self.growth.grown(), error))
    }

    fn move_window(&mut self, from: u64, to: u64) -> Result<()> {
        // The old one first, since the address space may be short. Nothing is ready until there is a new one.
        self.window = None;
        self.retire();
        let at = round_down(from, LARGE_PAGE);
        let least = round_up(to - at, LARGE_PAGE);
        let window = Mapping::as_much_as(self.window_bytes, least, |len| Mapping::writable(&self.file, at, len));
        self.window = Some(window.map_err(|error| Error::io_at("map the log", &self.path, at, error))?);
        (self.window_at, self.faulted) = (at, at);
        Ok(())
    }

    /// Writes through the descriptor.
    fn pwrite(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let written = if at + bytes.len() as u64 > file::size_limit() {
            // The write would raise SIGXFSZ, which ends the process.
            Err(io::Error::from_raw_os_error(libc::EFBIG))
        } else {
            self.file.write_all_at(bytes, at)
        };
        written.map_err(|error| Error::io_at("write to the log", &self.path, at, error))
    }

    /// Writes `bytes` at `at`, above the floor, through the window where it reaches there. The file has space for it if it is mapped at all.
    pub(crate) fn write(&mut self, at: u64, bytes: &[u8]) -> Result<()> {
        assert!(at >= self.floor);
        if self.is_ready(at, at + bytes.len() as u64) {
            self.put(at, bytes);
            return Ok(());
        }
        self.pwrite(at, bytes)
    }

    /// A range that is ready, as [`slice_mut`](Space::slice_mut) left it.
    pub(crate) fn slice(&self, at: u64, len: u64) -> &[u8] {
        assert!(at >= self.floor && at >= self.window_at && at.checked_add(len).is_some_and(|end| end <= self.ready));
        let window = self.window.as_ref().expect("what is ready is mapped");
        // SAFETY: as in `put`; `&self` is borrowed as long as the slice lives, so nothing is written meanwhile.
        unsafe { window.bytes(at - self.window_at, len) }
    }

    /// A range that is ready, to be written in place.
    pub(crate) fn slice_mut(&mut self, at: u64, len: u64) -> &mut [u8] {
        assert!(at >= self.floor && at >= self.window_at && at.checked_add(len).is_some_and(|end| end <= self.ready));
        let window = self.window.as_ref().expect("what is ready is mapped");
        // SAFETY: as in `put`; `&mut self` is borrowed as long as the slice lives.
        unsafe { window.bytes_mut(at - self.window_at, len) }
    }

    /// Space at `at` for bytes of which the number is not known, at least one.
    pub(crate) fn room(&mut self, at: u64) -> Result<(&mut [u8], bool)> {
        let nudge = if self.is_ready(at, at + 1) { false } else { self.prepare(at, at + 1)? };
        let len = (self.ready - at).min(MIB);
        self.dirty = self.dirty.max(at + len);
        Ok((self.slice_mut(at, len), nudge))
    }

    /// Zeros what an abandoned record may have left in a range that is ready.
    pub(crate) fn clean(&mut self, at: u64, len: u64) {
        let dirty = self.dirty.clamp(at, at + len) - at;
        if dirty > 0 {
            self.slice_mut(at, dirty).fill(0);
        }
    }

    /// Says that bytes below `end` may have been written without being published.
    pub(crate) fn soil(&mut self, end: u64) {
        self.dirty = self.dirty.max(end);
    }

    /// After a flush the next stores into the page with the count and into the last page would fault: lets them not.
    pub(crate) fn populate(&self) {
        if let Some(header) = &self.header {
            header.populate(Access::Write, 0, PAGE);
        }
        if let Some(window) = self.window.as_ref().filter(|_| self.floor >= self.window_at && self.floor < self.ready) {
            window.populate(Access::Write, round_down(self.floor, PAGE) - self.window_at, PAGE);
        }
    }
}
