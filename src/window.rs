//! A follower's view of the log's bytes through a mapping: only what is published is looked at.

use std::fs::File;
use std::io;

use crate::sys::map::{Access, Mapping};
use crate::units::{LARGE_PAGE, PAGE, WINDOW_MOST, round_down, round_up};

/// A read-only mapping of a part of the log.
#[derive(Debug)]
pub(crate) struct Window {
    mapping: Mapping,
    /// The position of its first byte.
    at: u64,
}

impl Window {
    /// A window of about `bytes` that covers `from..to`.
    pub(crate) fn new(file: &File, from: u64, to: u64, bytes: u64) -> io::Result<Window> {
        let bytes = bytes.min(WINDOW_MOST);
        // As much as fits in front stays covered: tailers of one reader share a window.
        let at = if to <= bytes { 0 } else { round_down(from, LARGE_PAGE) };
        let least = round_up(to - at, LARGE_PAGE);
        let mapping = Mapping::as_much_as(round_up(bytes, LARGE_PAGE), least, |len| Mapping::read_only(file, at, len))?;
        Ok(Window { mapping, at })
    }

    pub(crate) fn covers(&self, from: u64, to: u64) -> bool {
        from >= self.at && to <= self.at + self.mapping.len()
    }

    /// The bytes of `from..to`, which the caller has found below a published end.
    #[inline]
    pub(crate) fn published(&self, from: u64, to: u64) -> &[u8] {
        assert!(from <= to && self.covers(from, to));
        // SAFETY: a byte below the published end never changes, and the file never shrinks below it (DESIGN, invariant 4);
        // the writer's `Space` writes only above it, also in this process.
        unsafe { self.mapping.bytes(from - self.at, to - from) }
    }

    /// Has the processor fetch the cache line of a position, where the window has it.
    #[inline(always)]
    pub(crate) fn prefetch(&self, position: u64) {
        self.mapping.prefetch(position.wrapping_sub(self.at));
    }

    /// Has bytes of `from..to` mapped, and read from the disk where need be; `false` where the file does not have them, or they cannot be
    /// read, or the kernel is older than Linux 5.14.
    pub(crate) fn populate(&self, from: u64, to: u64) -> bool {
        assert!(from <= to && self.covers(from, to));
        let from = round_down(from, PAGE);
        self.mapping.populate(Access::Read, from - self.at, round_up(to, PAGE) - from)
    }

    /// Gives back the memory of what lies between two positions, where the window has it.
    pub(crate) fn give_back(&self, from: u64, to: u64) {
        // The first page, too, of which the end is passed only now.
        let from = round_down(from.max(self.at), PAGE);
        let to = round_down(to.min(self.at + self.mapping.len()), PAGE);
        if from < to {
            self.mapping.give_back(from - self.at, to - from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_does_not_have_is_not_made_ready() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 * PAGE).unwrap();
        let window = Window::new(&file, 0, 8 * PAGE, LARGE_PAGE).unwrap();
        let probe = Mapping::private(PAGE).unwrap();
        if !probe.populate(Access::Read, 0, PAGE) {
            return eprintln!("SKIPPED: this kernel has no MADV_POPULATE_READ");
        }
        assert!(window.populate(100, 3 * PAGE - 5));
        assert!(!window.populate(100, 3 * PAGE + 1) && !window.populate(5 * PAGE, 6 * PAGE));
        assert_eq!(window.published(0, 3 * PAGE), &[0; 3 * PAGE as usize]);
    }
}
