//! Keeping the index up with the log: the writer marks where blocks end, and the helper thread, or the writer where it
//! has to, takes their checksums. On the hot path that is one comparison.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::format::index::{BLOCK_BYTES, Block};
use crate::index::IndexWriter;
use crate::marks::{MARKS, Marks};
use crate::protocol::Pair;
use crate::scan;
use crate::sys::file;
use crate::units::MIB;
use crate::window::Window;

/// A block of more records than one that is larger than this is cut by a walk, so that a seek walks little.
const BLOCK_MOST: u64 = 4 * BLOCK_BYTES;
/// What one step covers at the most: other work of the helper waits no longer than that takes.
const STEP_BYTES: u64 = 8 * MIB;
/// Where more than this came since the last look the writer is in a burst, at the speed of memory, and taking checksums beside it would
/// slow it by 3 to 6 % at 1 KiB (bench `index_cost`): they are taken behind the burst.
const BURST: u64 = 16 * MIB;
/// But no further behind than this: marks must not run short.
const BURST_MOST: u64 = MARKS as u64 * BLOCK_BYTES / 2;
/// Of the mapping by which checksums are taken.
const WINDOW_BYTES: u64 = 256 * MIB;
/// An entry for each of these in which records came.
const SECOND: Duration = Duration::from_secs(1);

/// The index of a log that is written, shared by its writer and the helper thread.
#[derive(Debug)]
pub(crate) struct Cover {
    path: PathBuf,
    file: Arc<File>,
    marks: Marks,
    /// `None` where the log has no index, or not any more.
    state: Mutex<Option<State>>,
}

#[derive(Debug)]
struct State {
    index: IndexWriter,
    /// Where mappings are not to be relied on, blocks are read.
    mapped: bool,
    window: Option<Window>,
    /// A mark that was taken and lies beyond what one step covers, or beyond what was known to be published.
    next: Option<Pair>,
    /// It could not be written, and is to be taken away; that has failed so far.
    is_stale: bool,
    /// When all that was published was covered last. Not by the clock of the entries, which may be set back.
    covered_all: Instant,
}

impl Cover {
    pub(crate) fn new(path: &Path, file: Arc<File>, index: Option<IndexWriter>, mapped: bool) -> Cover {
        let due = index.as_ref().map_or(0, |index| index.covered().end) + BLOCK_BYTES;
        let state = index.map(|index| State {
            index,
            mapped,
            window: None,
            next: None,
            is_stale: false,
            covered_all: Instant::now(),
        });
        Cover { path: path.to_owned(), file, marks: Marks::new(due), state: Mutex::new(state) }
    }

    /// Says that a block may end here, where it is time for one; returns where the next one should end. For the writer's thread.
    #[cold]
    pub(crate) fn mark(&self, published: Pair) -> u64 {
        self.marks.mark(published)
    }

    /// Covers whole blocks, and once a second what there is; `true` where there is more to do now. For the helper thread; where that
    /// is `busy` with what the writer would have to wait for, and in a burst, of which `came` bytes came since the last look, nothing is
    /// covered before the second has passed.
    pub(crate) fn advance(&self, published: Pair, came: u64, busy: bool) -> bool {
        let mut state = self.state();
        let Some(inner) = fresh(&mut state) else { return false };
        // A flush may have covered more since the caller looked.
        let covered = inner.index.covered();
        let published = if published.count < covered.count { covered } else { published };
        if busy && inner.covered_all.elapsed() < SECOND {
            // The writer, which may assist meanwhile, shall not have to make a mapping. Of what comes next alone: a window reaches far
            // beyond that, and the published end moves on all the time.
            self.map(inner, covered.end, published.end.min(covered.end + BLOCK_MOST));
            return true;
        }
        if came > BURST && published.end - covered.end < BURST_MOST && inner.covered_all.elapsed() < SECOND {
            return false;
        }
        let result = self.step(inner, published, STEP_BYTES).and_then(|more| {
            let is_due = inner.covered_all.elapsed() >= SECOND;
            if !more && is_due {
                self.cover_to(inner, published)?;
            }
            if inner.index.covered() == published {
                inner.covered_all = Instant::now();
            }
            if !more {
                inner.index.write().map_err(|error| self.error(error))?;
            }
            Ok(more)
        });
        result.unwrap_or_else(|error| drop_unless_full(&mut state, &error))
    }

    /// Covers a block that was marked, where nobody else is at it; `true` where there may be another one. For the writer's
    /// thread, while it waits for the helper.
    pub(crate) fn assist(&self, published: Pair) -> bool {
        let Ok(mut state) = self.state.try_lock() else { return false };
        let Some(inner) = fresh(&mut state) else { return false };
        let covered = inner.index.covered().count;
        inner.next = loop {
            match inner.next.take().or_else(|| self.marks.take()) {
                // Marked, but meanwhile covered by a flush.
                Some(mark) if mark.count <= covered => {}
                next => break next,
            }
        };
        // Nor does it wait longer than for a block: one of few large records is left to the helper.
        let (from, window) = (inner.index.covered().end, inner.window.as_ref());
        let is_quick = |to| to - from <= BLOCK_MOST && window.is_some_and(|window| window.covers(from, to));
        if !inner.next.is_some_and(|next| is_quick(next.end)) {
            return false;
        }
        self.step(inner, published, 1).unwrap_or_else(|error| drop_unless_full(&mut state, &error))
    }

    /// Covers blocks that were marked, up to `most` bytes and the block that reaches there; `true` where there are more.
    fn step(&self, state: &mut State, published: Pair, most: u64) -> Result<bool> {
        let begin = state.index.covered().end;
        while let Some(mark) = state.next.take().or_else(|| self.marks.take()) {
            // Marked before `published` was looked at? Then it is covered next time.
            if mark.count > published.count || state.index.covered().end - begin >= most {
                state.next = Some(mark);
                return Ok(mark.count <= published.count);
            }
            if mark.count > state.index.covered().count {
                self.cover_to(state, mark)?;
            }
        }
        Ok(false)
    }

    /// Covers all that is published, in the blocks that were marked.
    fn cover_all(&self, state: &mut State, published: Pair) -> Result<()> {
        while self.step(state, published, u64::MAX)? {}
        self.cover_to(state, published)
    }

    /// Covers all up to `to`.
    fn cover_to(&self, state: &mut State, to: Pair) -> Result<()> {
        let from = state.index.covered();
        if to.end - from.end <= BLOCK_MOST || to.count - from.count == 1 {
            return self.block(state, to, false);
        }
        // Where batches end is not known in between.
        scan::cut_into_blocks(&self.path, &self.file, from, to, |end| self.block(state, end, end != to))
    }

    fn block(&self, state: &mut State, to: Pair, inner: bool) -> Result<()> {
        let from = state.index.covered();
        if to.count == from.count {
            return Ok(());
        }
        let crc = self.crc(state, from.end, to.end).map_err(|error| self.error(error))?;
        let block = Block { length: to.end - from.end, records: to.count - from.count, crc, inner, ..Block::default() };
        state.index.block(block).map_err(|error| self.error(error))
    }

    /// Has a mapping that covers a range, if there can be one.
    fn map(&self, state: &mut State, from: u64, to: u64) {
        if state.mapped && !state.window.as_ref().is_some_and(|window| window.covers(from, to)) {
            // The old one first: address space may be short.
            state.window = None;
            // Of a description of its own: a mapping keeps the locks of the one that it was made of, in a forked child too.
            let window = file::reopen(&self.file).and_then(|file| Window::new(&file, from, to, WINDOW_BYTES));
            state.mapped = window.is_ok();
            state.window = window.ok();
        }
    }

    fn crc(&self, state: &mut State, from: u64, to: u64) -> io::Result<u32> {
        self.map(state, from, to);
        match &state.window {
            Some(window) => Ok(crc32c::crc32c(window.published(from, to))),
            None => scan::crc(&self.file, from, to - from)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Covers all that is published, and says that it is durable; `closed` for the last time. `flush` flushes the index as well.
    ///
    /// # Errors
    /// Where the index can be neither written nor taken away: then it would say less than what is promised.
    pub(crate) fn checkpoint(&self, published: Pair, mark: Block, flush: bool) -> Result<()> {
        let mut state = self.state();
        let Some(inner) = fresh(&mut state) else { return give_up(&mut state).map_err(|error| self.error(error)) };
        let result = self.cover_all(inner, published).and_then(|()| {
            // Nobody covers more meanwhile: what is not flushed must not lie in front of the mark.
            debug_assert_eq!(inner.index.covered(), published);
            let written = inner.index.block(mark);
            written
                .and_then(|()| if flush { inner.index.flush() } else { inner.index.write() })
                .map_err(|e| self.error(e))
        });
        match result {
            Ok(()) => Ok(()),
            Err(_) => give_up(&mut state).map_err(|error| self.error(error)),
        }
    }

    /// Covers all that is published, before it is flushed.
    pub(crate) fn complete(&self, published: Pair) {
        let mut state = self.state();
        if let Some(inner) = fresh(&mut state)
            && self.cover_all(inner, published).and_then(|()| inner.index.write().map_err(|e| self.error(e))).is_err()
        {
            // Tried again, and told, by the checkpoint that follows where the index cannot be taken away.
            let _ = give_up(&mut state);
        }
    }

    /// Says that a flush has failed, where it can be said.
    pub(crate) fn note_failure(&self) {
        if let Some(inner) = fresh(&mut self.state()) {
            // The control page says the same.
            let _ = inner.index.block(Block { failed: true, ..Block::default() }).and_then(|()| inner.index.write());
        }
    }

    /// When this returns, nobody writes to the index any more.
    pub(crate) fn end(&self) {
        *self.state() = None;
    }

    fn error(&self, error: io::Error) -> Error {
        Error::io("write the index of", &self.path, error)
    }

    fn state(&self) -> MutexGuard<'_, Option<State>> {
        // What is under this lock is whole between any two statements.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The index, while it says all that it should.
fn fresh(state: &mut Option<State>) -> Option<&mut State> {
    state.as_mut().filter(|state| !state.is_stale)
}

/// What becomes of the index after an error; returns that there is nothing more to do now.
fn drop_unless_full(state: &mut Option<State>, error: &Error) -> bool {
    // For want of space it is tried again: what is to be written is kept. The flush that needs it gives it up.
    if !matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::StorageFull) {
        // Where it cannot be taken away, the flush that needs it tries again; the writer is told by that.
        let _ = give_up(state);
    }
    false
}

/// Goes on without the index. Where it cannot be removed, it stays stale: then nothing more may be called durable, since a
/// recovery would believe it.
fn give_up(state: &mut Option<State>) -> io::Result<()> {
    if let Some(inner) = state {
        inner.is_stale = true;
        inner.index.give_up()?;
    }
    *state = None;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a log of so many zeros.
    fn cover(dir: &Path, bytes: u64) -> Cover {
        let path = dir.join("log");
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(bytes).unwrap();
        let index = IndexWriter::create(&path, &file.metadata().unwrap(), [1, 2]).unwrap();
        Cover::new(&path, Arc::new(file), Some(index), true)
    }

    fn covered(cover: &Cover) -> Pair {
        cover.state().as_ref().unwrap().index.covered()
    }

    /// However slow a test is, the second has not passed.
    fn stop_the_clock(cover: &Cover) {
        cover.state().as_mut().unwrap().covered_all = Instant::now() + 1000 * SECOND;
    }

    #[test]
    fn a_burst_is_covered_behind_it_and_a_long_one_in_its_midst() {
        let dir = tempfile::tempdir().unwrap();
        let cover = cover(dir.path(), BURST_MOST + 6 * BURST);
        let pair = |count| Pair { count, end: 8 + count * BLOCK_BYTES };
        let mut marked = 0;
        let mut look = |blocks: u64| {
            (marked + 1..=blocks).for_each(|count| cover.marks.put(pair(count)));
            let mut came = (blocks - marked) * BLOCK_BYTES;
            marked = blocks;
            stop_the_clock(&cover);
            while cover.advance(pair(blocks), came, false) {
                came = 0;
            }
            covered(&cover) == pair(blocks)
        };
        let burst = BURST / BLOCK_BYTES + 1;
        assert!(look(burst - 1), "so much is no burst");
        assert!(!look(2 * burst));
        assert!(look(2 * burst), "nothing has come since");
        let (mut end, mut looks) = (2 * burst, 0);
        while !look(end + burst) {
            (end, looks) = (end + burst, looks + 1);
            assert!(looks < 100, "it is put off for ever");
        }
        assert!(looks > 2 && end * BLOCK_BYTES < 2 * BURST + BURST_MOST, "{looks} looks, {end} blocks");
    }

    /// The helper looks, the writer flushes, and only then the helper has the lock: its thread ended, where numbers must not wrap.
    #[test]
    fn a_look_that_is_older_than_a_flush_takes_nothing_back() {
        let dir = tempfile::tempdir().unwrap();
        let cover = cover(dir.path(), 40 * BLOCK_BYTES);
        let (old, new) = (Pair { count: 1, end: 8 + BLOCK_BYTES }, Pair { count: 4, end: 8 + 4 * BLOCK_BYTES });
        cover.mark(old);
        cover.complete(new);
        for (came, busy) in [(0, true), (2 * BURST, false), (0, false)] {
            stop_the_clock(&cover);
            cover.advance(old, came, busy);
            assert_eq!(covered(&cover), new);
        }
        cover.state().as_mut().unwrap().covered_all = Instant::now() - SECOND;
        assert!(!cover.advance(old, 0, false), "it is time to cover all, and that is done");
        assert_eq!(covered(&cover), new);
    }

    #[test]
    fn a_waiting_writer_covers_the_blocks_that_it_marked_but_none_that_takes_long() {
        let dir = tempfile::tempdir().unwrap();
        let cover = cover(dir.path(), 40 * BLOCK_BYTES);
        let covered = || covered(&cover);
        let (one, two) = (Pair { count: 1, end: 8 + BLOCK_BYTES }, Pair { count: 2, end: 8 + 2 * BLOCK_BYTES });
        cover.mark(one);
        cover.mark(two);
        assert!(!cover.assist(two), "nothing is mapped yet, which takes long");
        assert!(
            cover.advance(Pair { count: 0, end: 8 + 30 * BLOCK_BYTES }, 0, true),
            "the helper is busy, and maps it"
        );
        assert!(cover.assist(two));
        assert_eq!(covered(), one);
        assert!(!cover.assist(two), "there is no other one");
        assert_eq!(covered(), two);

        let large = Pair { count: 3, end: two.end + BLOCK_MOST + 1 };
        cover.mark(large);
        assert!(!cover.assist(large));
        assert_eq!(covered(), two);
        assert!(!cover.advance(large, 0, false));
        assert_eq!(covered(), large, "the helper has it, though the writer had looked at it");

        // A flush has covered what is only then marked; behind it lies a large one.
        let (four, huge) =
            (Pair { count: 4, end: large.end + BLOCK_BYTES }, Pair { count: 5, end: large.end + 20 * BLOCK_BYTES });
        cover.complete(four);
        cover.marks.put(four);
        cover.marks.put(huge);
        assert!(!cover.assist(huge));
        assert_eq!(covered(), four);

        let held = cover.state();
        assert!(!cover.assist(large), "the writer does not wait for whoever is at it");
        drop(held);
    }
}
