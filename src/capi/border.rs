//! What every call from C goes through: arguments are checked, handles of another process or of a call that panicked are refused,
//! panics end here.

use std::any::Any;
use std::ffi::{CStr, OsStr, c_char, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::error::immuta_code::{self, IMMUTA_FORKED, IMMUTA_OK, IMMUTA_PANIC};
use super::error::{Failure, Outcome};
use crate::Error;

/// Counts the forks that lead to this process: relaxed, since a child changes it before it has a second thread.
static GENERATION: AtomicU64 = AtomicU64::new(0);

extern "C" fn forked() {
    GENERATION.fetch_add(1, Relaxed);
}

/// The process that a handle belongs to, and whether the handle may still be used.
#[derive(Debug)]
pub(super) struct Home {
    generation: u64,
    broken: AtomicBool,
    path: PathBuf,
}

impl Home {
    pub(super) fn new(path: &Path) -> Outcome<Home> {
        static LISTENS: AtomicBool = AtomicBool::new(false);
        // Not under a lock, which a child might inherit taken: where two threads come at once, a fork counts twice.
        if !LISTENS.load(Relaxed) {
            // SAFETY: the handler makes one atomic addition, which is allowed in a forked child.
            let error = unsafe { libc::pthread_atfork(None, None, Some(forked)) };
            if error != 0 {
                let source = std::io::Error::from_raw_os_error(error);
                let path = path.to_owned();
                return Err(
                    Error::Io { action: "prepare for forks while opening", path, position: None, source }.into()
                );
            }
            LISTENS.store(true, Relaxed);
        }
        Ok(Home { generation: generation(), broken: AtomicBool::new(false), path: path.to_owned() })
    }

    /// Of something that was taken from this one: of the same process and log.
    pub(super) fn same(&self) -> Home {
        Home { generation: self.generation, broken: AtomicBool::new(false), path: self.path.clone() }
    }

    /// Whether this is the process that the handle belongs to.
    #[inline]
    pub(super) fn is_here(&self) -> bool {
        self.generation == generation()
    }

    #[inline]
    fn check(&self, kind: &str) -> Outcome {
        if !self.is_here() {
            return Err(self.refusal(
                IMMUTA_FORKED,
                kind,
                "belongs to the parent process; a forked child must open its own",
            ));
        }
        if self.broken.load(Relaxed) {
            return Err(self.refusal(IMMUTA_PANIC, kind, "has met a fault of the library earlier; close it"));
        }
        Ok(())
    }

    #[cold]
    fn refusal(&self, code: immuta_code, kind: &str, why: &str) -> Box<Failure> {
        Failure::new(code, format!("{}: this {kind} {why}", self.path.display())).about(&self.path)
    }
}

/// How many forks led to this process. Allowed in a signal handler.
#[inline]
pub(super) fn generation() -> u64 {
    GENERATION.load(Relaxed)
}

/// What C holds by a pointer that only the library looks behind.
pub(super) trait Handle {
    /// As messages call it.
    const KIND: &'static str;

    fn home(&self) -> &Home;
}

/// A call that has no handle yet.
pub(super) fn answer(work: impl FnOnce() -> Outcome) -> immuta_code {
    match caught(work) {
        Ok(()) => IMMUTA_OK,
        Err(failure) => failure.remember(),
    }
}

/// A call on a handle that nobody else uses meanwhile.
///
/// # Safety
/// `handle` is null or came from [`give`] and was not taken back, and no other call uses it.
#[inline]
pub(super) unsafe fn exclusive<H: Handle>(handle: *mut H, work: impl FnOnce(&mut H) -> Outcome) -> immuta_code {
    // SAFETY: as the caller says.
    let Some(handle) = (unsafe { handle.as_mut() }) else { return null(H::KIND).remember() };
    let done = match handle.home().check(H::KIND) {
        Ok(()) => catch_unwind(AssertUnwindSafe(|| work(handle))),
        Err(refused) => Ok(Err(refused)),
    };
    conclude(handle.home(), done)
}

/// A call on a handle that others may use meanwhile, in the same way.
///
/// # Safety
/// `handle` is null or came from [`give`] and was not taken back, and no other call uses it exclusively.
pub(super) unsafe fn shared<H: Handle + Sync>(handle: *const H, work: impl FnOnce(&H) -> Outcome) -> immuta_code {
    // SAFETY: as the caller says.
    let Some(handle) = (unsafe { handle.as_ref() }) else { return null(H::KIND).remember() };
    let done = match handle.home().check(H::KIND) {
        Ok(()) => catch_unwind(AssertUnwindSafe(|| work(handle))),
        Err(refused) => Ok(Err(refused)),
    };
    conclude(handle.home(), done)
}

/// The last call on a handle, which takes it back whatever comes of it.
///
/// # Safety
/// `handle` is null or came from [`give`] and was not taken back, and no other call uses it, now or later.
pub(super) unsafe fn last<H: Handle>(handle: *mut H, work: impl FnOnce(H) -> Outcome) -> immuta_code {
    if handle.is_null() {
        return null(H::KIND).remember();
    }
    // SAFETY: `give` made it of a box, and the caller says that nobody has it any more.
    let handle = unsafe { Box::from_raw(handle) };
    let state = handle.home().check(H::KIND);
    answer(|| {
        let done = work(*handle);
        state.and(done)
    })
}

#[inline]
fn conclude(home: &Home, done: std::thread::Result<Outcome>) -> immuta_code {
    match done {
        Ok(Ok(())) => IMMUTA_OK,
        Ok(Err(failure)) => failure.remember(),
        Err(panic) => {
            // What it was doing is half done.
            home.broken.store(true, Relaxed);
            panicked(&*panic).about(&home.path).remember()
        }
    }
}

fn caught(work: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(&*panic)))
}

#[cold]
fn panicked(panic: &(dyn Any + Send)) -> Box<Failure> {
    let said = panic.downcast_ref::<&str>().copied();
    let said = said.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it has not said which");
    Failure::new(IMMUTA_PANIC, format!("a fault of the library: {said}"))
}

#[cold]
fn null(what: &str) -> Box<Failure> {
    Failure::invalid(format!("the {what} is NULL"))
}

/// Hands something to C.
pub(super) fn give<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

/// The place for a result that must have one. What lies there is not looked at: it need not have been initialized.
///
/// # Safety
/// `place` is null, or may be written to until the call returns.
#[inline]
pub(super) unsafe fn place<'a, T>(place: *mut T, what: &str) -> Outcome<Place<'a, T>> {
    // SAFETY: as the caller says; a MaybeUninit claims nothing of the bytes.
    unsafe { place.cast::<std::mem::MaybeUninit<T>>().as_mut() }.map(Place).ok_or_else(|| null(what))
}

/// The same of a result that C may not want.
///
/// # Safety
/// As for [`place`].
#[inline]
pub(super) unsafe fn place_if<'a, T>(place: *mut T) -> Option<Place<'a, T>> {
    // SAFETY: as above.
    unsafe { place.cast::<std::mem::MaybeUninit<T>>().as_mut() }.map(Place)
}

/// Where C wants a result.
pub(super) struct Place<'a, T>(&'a mut std::mem::MaybeUninit<T>);

impl<T> Place<'_, T> {
    #[inline]
    pub(super) fn put(self, value: T) {
        self.0.write(value);
    }
}

/// A name of C.
///
/// # Safety
/// `path` is null, or leads to bytes that end with a zero and stay as they are for `'a`.
pub(super) unsafe fn path<'a>(path: *const c_char, what: &str) -> Outcome<&'a Path> {
    if path.is_null() {
        return Err(null(what));
    }
    // SAFETY: as the caller says.
    Ok(Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes())))
}

/// A payload of C, which may be NULL where it is empty.
///
/// # Safety
/// `payload` is null, or leads to `size` bytes that stay as they are for `'a`.
#[inline]
pub(super) unsafe fn payload<'a>(payload: *const c_void, size: usize) -> Outcome<&'a [u8]> {
    match size {
        0 => Ok(&[]),
        _ if payload.is_null() => Err(null("payload")),
        1..=0x7fff_ffff_ffff_ffff => {
            // SAFETY: as the caller says, and no larger than an object may be.
            Ok(unsafe { std::slice::from_raw_parts(payload.cast(), size) })
        }
        _ => Err(Failure::invalid(format!("{size} is not the size of a payload: memory has no object so large"))),
    }
}

/// What C may read where there is nothing to be read: a pointer to no bytes leads somewhere all the same.
#[inline]
pub(super) fn readable(bytes: &[u8]) -> *const c_void {
    static SOMEWHERE: u8 = 0;
    if bytes.is_empty() { (&raw const SOMEWHERE).cast() } else { bytes.as_ptr().cast() }
}

#[cfg(test)]
mod tests {
    use super::super::error::immuta_last_error;
    use super::*;

    struct Fragile(Home);

    impl Handle for Fragile {
        const KIND: &'static str = "thing";

        fn home(&self) -> &Home {
            &self.0
        }
    }

    fn message() -> String {
        // SAFETY: the pointers of the last error are valid until the next.
        unsafe { CStr::from_ptr((*immuta_last_error()).message) }.to_str().unwrap().to_owned()
    }

    fn fragile() -> *mut Fragile {
        give(Fragile(Home::new(Path::new("some.log")).unwrap()))
    }

    #[test]
    fn a_panic_ends_at_the_border_and_its_handle_is_refused_from_then_on() {
        let thing = fragile();
        // SAFETY: it was given, and only this thread has it.
        unsafe {
            assert_eq!(exclusive(thing, |_| Ok(())), IMMUTA_OK);
            assert_eq!(exclusive(thing, |_| panic!("at {}", 7)), IMMUTA_PANIC);
            assert_eq!(message(), "a fault of the library: at 7");
            assert_eq!(exclusive(thing, |_| unreachable!("it is not called")), IMMUTA_PANIC);
            assert_eq!(message(), "some.log: this thing has met a fault of the library earlier; close it");
            assert_eq!(shared(thing, |_| unreachable!("it is not called")), IMMUTA_PANIC);
            assert_eq!(last(thing, |_| Ok(())), IMMUTA_PANIC);
        }
    }

    #[test]
    fn a_panic_without_a_handle_and_in_the_last_call_ends_there_too() {
        assert_eq!(answer(|| std::panic::panic_any(7)), IMMUTA_PANIC);
        assert_eq!(message(), "a fault of the library: it has not said which");
        // SAFETY: it was given, and only this thread has it.
        assert_eq!(unsafe { last(fragile(), |_| panic!("while closing")) }, IMMUTA_PANIC);
        assert_eq!(message(), "a fault of the library: while closing");
    }

    #[test]
    fn a_shared_handle_that_panicked_is_refused_to_all() {
        let thing = fragile();
        // SAFETY: it was given, and only this thread has it.
        unsafe {
            assert_eq!(shared(thing, |_| panic!("here")), IMMUTA_PANIC);
            assert_eq!(shared(thing, |_| unreachable!("it is not called")), IMMUTA_PANIC);
            assert_eq!(last(thing, |_| Ok(())), IMMUTA_PANIC);
        }
    }
}
