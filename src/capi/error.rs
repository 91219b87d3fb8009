//! What went wrong, for C: a code from each function, and the rest of it by thread.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use immuta_code::*;

use crate::Error;

/// What a number is where it is not known, or where there is none.
pub const IMMUTA_UNKNOWN: u64 = 0xffff_ffff_ffff_ffff;

/// What a function returns. Later versions may add codes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum immuta_code {
    /// It went well.
    IMMUTA_OK = 0,
    /// A system call failed; system_error of immuta_last_error() is its errno.
    IMMUTA_IO = 1,
    /// There is no file under this name.
    IMMUTA_NOT_FOUND = 2,
    /// There is something under this name that cannot be a log, such as a directory.
    IMMUTA_NOT_A_LOG = 3,
    /// Another writer has the log open.
    IMMUTA_LOCKED = 4,
    /// The bytes of the file are not a log, or no longer one; position says where.
    IMMUTA_DAMAGED = 5,
    /// A record is larger than max_record_bytes of the reader's options.
    IMMUTA_TOO_LARGE = 6,
    /// The log was removed, or another file has its name; all that was readable has been delivered.
    IMMUTA_REPLACED = 7,
    /// Nothing came in the time that was given.
    IMMUTA_TIMED_OUT = 8,
    /// The tailer was stopped.
    IMMUTA_STOPPED = 9,
    /// A flush failed earlier: this writer publishes nothing more. Close it, and open the log anew.
    IMMUTA_FAILED = 10,
    /// Only what is durable is wanted, and nothing tells what that is.
    IMMUTA_DURABLE_UNKNOWN = 11,
    /// A place in time is wanted, and the log has no index that tells when its records came.
    IMMUTA_NO_TIMES = 12,
    /// The handle belongs to the parent process; a forked child opens its own.
    IMMUTA_FORKED = 13,
    /// An argument is NULL that may not be, or has a value that has no meaning. Nothing was done.
    IMMUTA_INVALID = 14,
    /// The call does not fit: there is a batch and it is none of the batch's, or it is and there is none. Nothing was done.
    IMMUTA_BATCH = 15,
    /// There is no record of this sequence yet.
    IMMUTA_NO_RECORD = 16,
    /// A fault of the library itself, which has said more on stderr. The handle gives this from now on; close it.
    IMMUTA_PANIC = 17,
}

/// The last error of a thread. Later versions may have more fields behind these.
#[repr(C)]
#[derive(Debug)]
pub struct immuta_error {
    /// What the function returned; IMMUTA_OK before the first error.
    pub code: immuta_code,
    /// The errno of the system call that failed, or 0.
    pub system_error: c_int,
    /// The offset in the file that it is about, or IMMUTA_UNKNOWN.
    pub position: u64,
    /// The record that it is about, or IMMUTA_UNKNOWN.
    pub sequence: u64,
    /// The file that it is about, or "".
    pub path: *const c_char,
    /// All of it for people: what happened, to which file, at which position, what to do.
    pub message: *const c_char,
}

/// As the functions of this module hand it on: an error of the crate, or one that only C can make.
#[derive(Debug)]
pub(super) struct Failure {
    code: immuta_code,
    system_error: c_int,
    position: Option<u64>,
    sequence: Option<u64>,
    path: Cow<'static, CStr>,
    message: Cow<'static, CStr>,
}

/// Boxed, so that what goes well is returned in registers.
pub(super) type Outcome<T = ()> = Result<T, Box<Failure>>;

impl Failure {
    /// One without a text to be made, for calls that are repeated until they go well.
    #[cold]
    pub(super) fn plain(code: immuta_code, message: &'static CStr) -> Box<Failure> {
        let message = Cow::Borrowed(message);
        Box::new(Failure { code, system_error: 0, position: None, sequence: None, path: Cow::Borrowed(c""), message })
    }

    #[cold]
    pub(super) fn new(code: immuta_code, message: String) -> Box<Failure> {
        Box::new(Failure { message: owned(message), ..*Failure::plain(code, c"") })
    }

    #[cold]
    pub(super) fn invalid(message: impl Into<String>) -> Box<Failure> {
        Failure::new(IMMUTA_INVALID, message.into())
    }

    #[cold]
    pub(super) fn about(mut self: Box<Self>, path: &Path) -> Box<Failure> {
        self.path = owned(path.as_os_str().as_bytes());
        self
    }

    /// Makes it the last error of this thread.
    #[cold]
    pub(super) fn remember(self: Box<Self>) -> immuta_code {
        let code = self.code;
        // A thread that is ending may have no place for it any more.
        let _ = LAST.try_with(|last| {
            let mut last = last.borrow_mut();
            last.shown = immuta_error {
                code,
                system_error: self.system_error,
                position: self.position.unwrap_or(IMMUTA_UNKNOWN),
                sequence: self.sequence.unwrap_or(IMMUTA_UNKNOWN),
                path: self.path.as_ptr(),
                message: self.message.as_ptr(),
            };
            let this = *self;
            (last.path, last.message) = (this.path, this.message);
        });
        code
    }
}

impl From<Error> for Box<Failure> {
    #[cold]
    fn from(error: Error) -> Box<Failure> {
        let mut system_error = 0;
        let mut sequence = None;
        let code = match &error {
            Error::Io { source, .. } | Error::Source { source, .. } => {
                system_error = source.raw_os_error().unwrap_or(0);
                IMMUTA_IO
            }
            Error::NotFound { .. } => IMMUTA_NOT_FOUND,
            Error::NotALog { .. } => IMMUTA_NOT_A_LOG,
            Error::Locked { .. } => IMMUTA_LOCKED,
            Error::Damaged { sequence: record, .. } => {
                sequence = *record;
                IMMUTA_DAMAGED
            }
            Error::TooLarge { sequence: record, .. } => {
                sequence = Some(*record);
                IMMUTA_TOO_LARGE
            }
            Error::Replaced { .. } => IMMUTA_REPLACED,
            Error::TimedOut { .. } => IMMUTA_TIMED_OUT,
            Error::Stopped { .. } => IMMUTA_STOPPED,
            Error::Failed { .. } => IMMUTA_FAILED,
            Error::DurableUnknown { .. } => IMMUTA_DURABLE_UNKNOWN,
            Error::NoTimes { .. } => IMMUTA_NO_TIMES,
            Error::Forked { .. } => IMMUTA_FORKED,
        };
        let position = error.position();
        let made = *Failure::new(code, error.to_string());
        Box::new(Failure { system_error, position, sequence, ..made }).about(error.path())
    }
}

/// As a string of C, which ends at the first zero: there is none left within.
fn owned(text: impl Into<Vec<u8>>) -> Cow<'static, CStr> {
    let mut bytes: Vec<u8> = text.into();
    bytes.retain(|byte| *byte != 0);
    Cow::Owned(CString::new(bytes).unwrap_or_default())
}

/// What is shown to C, and what its pointers lead to.
struct Last {
    shown: immuta_error,
    path: Cow<'static, CStr>,
    message: Cow<'static, CStr>,
}

const NONE: immuta_error = immuta_error {
    code: IMMUTA_OK,
    system_error: 0,
    position: IMMUTA_UNKNOWN,
    sequence: IMMUTA_UNKNOWN,
    path: c"".as_ptr(),
    message: c"".as_ptr(),
};

thread_local! {
    static LAST: RefCell<Last> =
        const { RefCell::new(Last { shown: NONE, path: Cow::Borrowed(c""), message: Cow::Borrowed(c"") }) };
}

struct Constant(immuta_error);

// SAFETY: its pointers lead to constants, and nothing changes it.
unsafe impl Sync for Constant {}

static NOTHING: Constant = Constant(NONE);

/// What went wrong last in a function that this thread has called; one that went well leaves it as it is. Never NULL. It is valid
/// until another call of this thread fails, or the thread ends.
///
/// Any thread, at any time, but not a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn immuta_last_error() -> *const immuta_error {
    // SAFETY: the cell is this thread's, which is here and so is not changing it.
    LAST.try_with(|last| unsafe { &raw const (*last.as_ptr()).shown }).unwrap_or(&raw const NOTHING.0)
}

/// The version of the library, as "0.1.0". Any thread, at any time.
#[unsafe(no_mangle)]
pub extern "C" fn immuta_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version has no zero byte in it"),
    };
    VERSION.as_ptr()
}
