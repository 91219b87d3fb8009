//! Files mapped into memory that other processes share.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// A type made of [`AtomicU64`] alone, so that any bytes are a valid value and every access is atomic.
///
/// # Safety
/// The implementor is `repr(C)` and consists of `AtomicU64` only, without padding, aligned to at most a page.
pub(crate) unsafe trait Shared {}

/// What a range is made ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A mapped range; unmapped when dropped. Bytes beyond the end of the file are mapped but must not be touched (SIGBUS).
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread, and is unmapped once, by its owner.
unsafe impl Send for Mapping {}
// SAFETY: the safe methods make only atomic accesses; the unsafe ones put the duty to avoid races on the caller.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `file` from `offset` (a multiple of the page) read-only, shared.
    pub(crate) fn read_only(file: &File, offset: u64, len: u64) -> io::Result<Mapping> {
        Mapping::of_file(file, offset, len, ProtFlags::PROT_READ)
    }

    /// Maps `len` bytes of `file` from `offset` (a multiple of the page) for reading and writing, shared.
    pub(crate) fn writable(file: &File, offset: u64, len: u64) -> io::Result<Mapping> {
        Mapping::of_file(file, offset, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
    }

    fn of_file(file: &File, offset: u64, len: u64, protection: ProtFlags) -> io::Result<Mapping> {
        let size = usize::try_from(len).ok().and_then(NonZeroUsize::new).ok_or(io::ErrorKind::InvalidInput)?;
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: without a hint address and without MAP_FIXED the kernel takes unused address space.
        let base = unsafe { mmap(None, size, protection, flags, file, offset) }?;
        Ok(Mapping { base: base.cast(), len: size.get() })
    }

    /// As [`writable`](Mapping::writable) or [`read_only`](Mapping::read_only), halved as long as the system refuses it for
    /// want of address space, but not below `least`.
    pub(crate) fn as_much_as(len: u64, least: u64, map: impl Fn(u64) -> io::Result<Mapping>) -> io::Result<Mapping> {
        let mut len = len.max(least);
        loop {
            // Valgrind says EINVAL where the kernel says ENOMEM.
            let refused = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::ENOMEM | libc::EINVAL));
            match map(len) {
                Err(error) if refused(&error) && len > least => len = (len / 2).max(least),
                result => return result,
            }
        }
    }

    /// Zeroed memory of this process alone.
    pub(crate) fn private(len: u64) -> io::Result<Mapping> {
        let size = usize::try_from(len).ok().and_then(NonZeroUsize::new).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: as in `of_file`.
        let base =
            unsafe { mmap_anonymous(None, size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE) }?;
        Ok(Mapping { base: base.cast(), len: size.get() })
    }

    /// In a forked child the memory of a [`private`](Mapping::private) mapping reads zero.
    pub(crate) fn wipe_on_fork(&self) -> io::Result<()> {
        // SAFETY: the range is mapped by `self`; in this process nothing changes.
        match unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, libc::MADV_WIPEONFORK) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len as u64
    }

    /// Gives back the memory of a range of a file's mapping: its pages stay in the cache, and are mapped again when they are touched.
    /// Not for [`private`](Mapping::private) memory, which would be zeros.
    pub(crate) fn give_back(&self, at: u64, len: u64) {
        if at.checked_add(len).is_some_and(|end| end <= self.len()) {
            // SAFETY: the range lies within the mapping; of one of a file, which is shared, no byte changes, and the only caller, `Window`,
            // has such a one. Where it is refused nothing is lost.
            unsafe { libc::madvise(self.base.as_ptr().add(at as usize).cast(), len as usize, libc::MADV_DONTNEED) };
        }
    }

    /// In a forked child: unmaps what it has of its parent, though a thread of the parent held it, too, when it forked. That thread is not
    /// here, and would keep the mapping, and with it the locks of the file, for as long as the child lives.
    ///
    /// # Safety
    /// No thread of this process uses the mapping, now or later.
    pub(crate) unsafe fn unmap_inherited(mapping: Arc<Mapping>) {
        // SAFETY: mapped by `of_file`, and by the caller's word not used again; it is not unmapped again, since the count stays above 0.
        let _ = unsafe { munmap(mapping.base.cast(), mapping.len) };
        std::mem::forget(mapping);
    }

    /// Has the processor fetch the cache line of a byte, where it can, and goes on.
    #[inline(always)]
    pub(crate) fn prefetch(&self, at: u64) {
        #[cfg(not(target_arch = "x86_64"))]
        let _ = at;
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, which touches no memory that the program could see and does not fault, whatever the address is.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(self.base.as_ptr().wrapping_add(at as usize).cast());
        }
    }

    /// The word at the start of the mapping.
    pub(crate) fn first_word(&self) -> &AtomicU64 {
        // SAFETY: the mapping is page-aligned, has at least a byte and so a page, and every bit pattern is an AtomicU64.
        unsafe { self.base.cast::<AtomicU64>().as_ref() }
    }

    /// Copies `bytes` to offset `at`.
    ///
    /// # Safety
    /// The mapping is writable, the file reaches beyond the range, and nobody reads or writes the range meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, at: u64, bytes: &[u8]) {
        debug_assert!(at + bytes.len() as u64 <= self.len());
        // SAFETY: by the caller's word; `bytes` cannot overlap what nobody else reads.
        unsafe { self.base.as_ptr().add(at as usize).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) }
    }

    /// The bytes of a range.
    ///
    /// # Safety
    /// The file reaches beyond the range, and nobody writes to it for as long as the slice lives.
    #[inline(always)]
    pub(crate) unsafe fn bytes(&self, at: u64, len: u64) -> &[u8] {
        debug_assert!(at.checked_add(len).is_some_and(|end| end <= self.len()));
        // SAFETY: by the caller's word; the slice borrows the mapping.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at as usize), len as usize) }
    }

    /// The bytes of a range, to be written.
    ///
    /// # Safety
    /// As for [`write`](Mapping::write), for as long as the slice lives; the caller makes no second slice over the range.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn bytes_mut(&self, at: u64, len: u64) -> &mut [u8] {
        assert!(at.checked_add(len).is_some_and(|end| end <= self.len()), "a slice lies within its mapping");
        // SAFETY: by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr().add(at as usize), len as usize) }
    }

    /// Has a range mapped, so that the next access of this kind does not fault; without a store (which could take a newer value back).
    /// `false` where the kernel cannot, also for want of bytes in the file: then the next access faults, or there is none to be made.
    pub(crate) fn populate(&self, access: Access, at: u64, len: u64) -> bool {
        let advice = match access {
            Access::Read => libc::MADV_POPULATE_READ,
            Access::Write => libc::MADV_POPULATE_WRITE,
        };
        let fits = at.checked_add(len).is_some_and(|end| end <= self.len());
        // SAFETY: the range lies within the mapping, and neither advice changes a byte of it.
        fits && unsafe { libc::madvise(self.base.as_ptr().add(at as usize).cast(), len as usize, advice) } == 0
    }
}

/// A mapping whose start is seen as a `T`. Whoever stores through it must have mapped it writable.
#[derive(Debug)]
pub(crate) struct View<T: Shared> {
    mapping: Mapping,
    seen_as: PhantomData<T>,
}

impl<T: Shared> View<T> {
    pub(crate) fn new(mapping: Mapping) -> View<T> {
        assert!(size_of::<T>() <= mapping.len, "a view lies within its mapping");
        View { mapping, seen_as: PhantomData }
    }
}

impl<T: Shared> Deref for View<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the mapping is page-aligned, long enough (`new`) and lives as long as `self`; by the contract of `Shared`
        // any bytes are a valid `T` and all accesses are atomic, whoever else maps the file.
        unsafe { self.mapping.base.cast::<T>().as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `self`, is unmapped only here, and no borrow of `self` is left.
        let unmapped = unsafe { munmap(self.base.cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn a_mapping_beyond_the_end_of_a_file_becomes_usable_as_it_grows() {
        let file = tempfile::tempfile().unwrap();
        let map = Mapping::writable(&file, 0, 1 << 30).unwrap();
        file.set_len(4096).unwrap();
        // SAFETY: the file has 4096 bytes and nobody else knows it.
        unsafe { map.write(8, b"grown") };
        let mut bytes = [0; 5];
        file.read_exact_at(&mut bytes, 8).unwrap();
        assert_eq!(&bytes, b"grown");
        map.first_word().store(7, Relaxed);
        assert_eq!(Mapping::read_only(&file, 0, 4096).unwrap().first_word().load(Relaxed), 7);
    }

    #[test]
    fn a_window_that_the_system_refuses_is_halved() {
        let file = tempfile::tempfile().unwrap();
        let map = Mapping::as_much_as(1 << 56, 4096, |len| Mapping::read_only(&file, 0, len)).unwrap();
        assert!(map.len() < 1 << 48, "{}", map.len());
        assert!(Mapping::as_much_as(1 << 56, 1 << 50, |len| Mapping::read_only(&file, 0, len)).is_err());
    }

    #[test]
    fn what_a_thread_of_the_parent_held_is_unmapped_in_a_child() {
        let file = tempfile::tempfile().unwrap();
        let map = Arc::new(Mapping::writable(&file, 0, 4096).unwrap());
        // By the inode: another test may get the same addresses at once.
        let inode = std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap()).to_string();
        let maps = || std::fs::read_to_string("/proc/self/maps").unwrap();
        let is_mapped = || maps().lines().any(|line| line.split_whitespace().nth(4) == Some(&inode));
        // As a thread that is not there any more does, it is never dropped.
        std::mem::forget(map.clone());
        assert!(is_mapped());
        // SAFETY: nobody else knows it.
        unsafe { Mapping::unmap_inherited(map) };
        assert!(!is_mapped());
    }
}
