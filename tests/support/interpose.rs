//! Stands between this program and the system's calls: the C library's functions that the program calls are the ones in here.
//! So every call counts, whoever makes it (the library, std, nix, fs2), and none can be forgotten.
//!
//! `IMMUTA_FAULT` says what happens once [`arm`] was called:
//! - `kill:17`: this process kills itself at the 17th point, which is before a call or between two stores;
//! - `kill@count:3`: the third time it comes to the point `count`;
//! - `5@fdatasync:2`: the second fdatasync fails with error number 5 (EIO); with `2+` every one from the second on;
//! - `short@pread64:5`: the fifth pread64 is asked for half of the bytes;
//! - `count`: nothing, but [`passed`] tells how often each point was passed.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_long, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Count,
    Kill,
    Fail(i32),
    Short,
}

#[derive(Debug)]
struct Plan {
    action: Action,
    /// `None`: any.
    point: Option<String>,
    from: u64,
    to: u64,
}

static PLAN: OnceLock<Plan> = OnceLock::new();
static ARMED: AtomicBool = AtomicBool::new(false);
static MET: AtomicU64 = AtomicU64::new(0);
static PASSED: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

fn parse(text: &str) -> Plan {
    if text == "count" {
        return Plan { action: Action::Count, point: None, from: 1, to: u64::MAX };
    }
    let (what, n) = text.rsplit_once(':').expect("ACTION[@POINT]:N");
    let (what, point) = what.split_once('@').map_or((what, None), |(what, point)| (what, Some(point.to_owned())));
    let action = match what {
        "kill" => Action::Kill,
        "short" => Action::Short,
        number => Action::Fail(number.parse().expect("an error number")),
    };
    let (n, goes_on) = n.strip_suffix('+').map_or((n, false), |n| (n, true));
    let from = n.parse().expect("a number");
    Plan { action, point, from, to: if goes_on { u64::MAX } else { from } }
}

/// From now on the plan in `IMMUTA_FAULT` holds.
pub fn arm() {
    if let Ok(text) = std::env::var("IMMUTA_FAULT") {
        PLAN.get_or_init(|| parse(&text));
        immuta::on_each_point(|point| _ = pass(point));
        ARMED.store(true, SeqCst);
    }
}

/// From now on nothing happens any more; tells whether something has.
pub fn disarm() -> bool {
    ARMED.store(false, SeqCst);
    PLAN.get().is_some_and(|plan| MET.load(SeqCst) >= plan.from)
}

/// How often each point was passed.
pub fn passed() -> Vec<(&'static str, u64)> {
    PASSED.lock().expect("nothing panics under it").iter().map(|(point, n)| (*point, *n)).collect()
}

/// Comes to a point; tells what is to happen to the call there, if it is one.
fn pass(point: &'static str) -> Option<Action> {
    if !ARMED.load(SeqCst) || point.is_empty() {
        return None;
    }
    let plan = PLAN.get()?;
    if plan.action == Action::Count {
        *PASSED.lock().expect("nothing panics under it").entry(point).or_default() += 1;
        return None;
    }
    if plan.point.as_ref().is_some_and(|name| name != point) {
        return None;
    }
    let n = MET.fetch_add(1, SeqCst) + 1;
    if n < plan.from || n > plan.to {
        return None;
    }
    if plan.action == Action::Kill {
        // SAFETY: kills this process, with all of its threads, and does not return.
        unsafe {
            libc::kill(libc::getpid(), libc::SIGKILL);
            libc::pause();
        }
    }
    Some(plan.action)
}

/// Makes a system call unless it is to fail; `bytes` is the argument that says how many, where it may be cut short.
fn call(point: &'static str, number: c_long, mut args: [c_long; 6], bytes: Option<usize>) -> c_long {
    match pass(point) {
        Some(Action::Fail(error)) => {
            // SAFETY: the thread's own errno.
            unsafe { *libc::__errno_location() = error };
            return -1;
        }
        Some(Action::Short) => {
            if let Some(bytes) = bytes {
                args[bytes] = (args[bytes] + 1) / 2;
            }
        }
        _ => {}
    }
    let [a, b, c, d, e, f] = args;
    // SAFETY: the call that the caller of the C library's function has asked for, with its arguments.
    unsafe { libc::syscall(number, a, b, c, d, e, f) }
}

/// The terminal and the pipes to the test are none of the library's.
fn is_standard(fd: c_int) -> bool {
    fd <= 2
}

macro_rules! calls {
    ($($name:ident = $number:ident ($($arg:ident: $type:ty),*) $($bytes:literal)? -> $result:ty;)*) => { $(
        /// As in the C library.
        // SAFETY: the C library's name and signature; `call` does what its function does.
        #[unsafe(no_mangle)]
        extern "C" fn $name($($arg: $type),*) -> $result {
            let given = [$($arg as c_long),*];
            let mut args = [0; 6];
            args[..given.len()].copy_from_slice(&given);
            #[allow(unused_mut, unused_assignments)]
            let mut bytes = None;
            $(bytes = Some($bytes);)?
            call(stringify!($name), libc::$number, args, bytes) as $result
        }
    )* };
}

calls! {
    pread64 = SYS_pread64(fd: c_int, bytes: *mut c_void, len: usize, at: i64) 2 -> isize;
    pwrite64 = SYS_pwrite64(fd: c_int, bytes: *const c_void, len: usize, at: i64) 2 -> isize;
    copy_file_range = SYS_copy_file_range(from: c_int, from_at: *mut i64, to: c_int, to_at: *mut i64, len: usize, flags: u32) 4 -> isize;
    sendfile64 = SYS_sendfile(to: c_int, from: c_int, at: *mut i64, len: usize) 3 -> isize;
    fallocate = SYS_fallocate(fd: c_int, mode: c_int, at: i64, len: i64) -> c_int;
    ftruncate64 = SYS_ftruncate(fd: c_int, len: i64) -> c_int;
    fdatasync = SYS_fdatasync(fd: c_int) -> c_int;
    fsync = SYS_fsync(fd: c_int) -> c_int;
    rename = SYS_rename(from: *const c_char, to: *const c_char) -> c_int;
    unlink = SYS_unlink(path: *const c_char) -> c_int;
    flock = SYS_flock(fd: c_int, operation: c_int) -> c_int;
    statx = SYS_statx(dir: c_int, path: *const c_char, flags: c_int, mask: u32, found: *mut c_void) -> c_int;
    fchmod = SYS_fchmod(fd: c_int, mode: u32) -> c_int;
    fchown = SYS_fchown(fd: c_int, user: u32, group: u32) -> c_int;
    fstatfs64 = SYS_fstatfs(fd: c_int, found: *mut c_void) -> c_int;
    lseek64 = SYS_lseek(fd: c_int, at: i64, whence: c_int) -> i64;
    madvise = SYS_madvise(address: *mut c_void, len: usize, advice: c_int) -> c_int;
    mmap = SYS_mmap(address: *mut c_void, len: usize, access: c_int, flags: c_int, fd: c_int, at: i64) -> *mut c_void;
    mmap64 = SYS_mmap(address: *mut c_void, len: usize, access: c_int, flags: c_int, fd: c_int, at: i64) -> *mut c_void;
}

// What cannot be said by the table. Where the C library's function takes a variable number of arguments, the caller puts
// those that there are where a function of three has them.

/// As in the C library.
// SAFETY: the C library's name; see above.
#[unsafe(no_mangle)]
extern "C" fn open64(path: *const c_char, flags: c_int, mode: u32) -> c_int {
    call("open64", libc::SYS_openat, [libc::AT_FDCWD.into(), path as c_long, flags.into(), mode.into(), 0, 0], None)
        as c_int
}

/// As in the C library.
// SAFETY: the C library's name; see above.
#[unsafe(no_mangle)]
extern "C" fn fcntl(fd: c_int, command: c_int, argument: c_long) -> c_int {
    let point = if [libc::F_OFD_SETLK, libc::F_OFD_GETLK].contains(&command) { "fcntl" } else { "" };
    call(point, libc::SYS_fcntl, [fd.into(), command.into(), argument, 0, 0, 0], None) as c_int
}

/// As in the C library.
// SAFETY: the C library's name and signature.
#[unsafe(no_mangle)]
extern "C" fn read(fd: c_int, bytes: *mut c_void, len: usize) -> isize {
    let point = if is_standard(fd) { "" } else { "read" };
    call(point, libc::SYS_read, [fd.into(), bytes as c_long, len as c_long, 0, 0, 0], Some(2)) as isize
}

/// As in the C library.
// SAFETY: the C library's name and signature.
#[unsafe(no_mangle)]
extern "C" fn write(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    let point = if is_standard(fd) { "" } else { "write" };
    call(point, libc::SYS_write, [fd.into(), bytes as c_long, len as c_long, 0, 0, 0], Some(2)) as isize
}

/// As in the C library: the error is the result.
// SAFETY: the C library's name and signature.
#[unsafe(no_mangle)]
extern "C" fn posix_fadvise(fd: c_int, at: i64, len: i64, advice: c_int) -> c_int {
    match call("posix_fadvise", libc::SYS_fadvise64, [fd.into(), at, len, advice.into(), 0, 0], None) {
        // SAFETY: the thread's own errno.
        -1 => unsafe { *libc::__errno_location() },
        _ => 0,
    }
}

type Thread = extern "C" fn(*mut c_void) -> *mut c_void;

/// As in the C library: the error is the result.
// SAFETY: the C library's name and signature.
#[unsafe(no_mangle)]
extern "C" fn pthread_create(
    thread: *mut c_void,
    attributes: *const c_void,
    run: Thread,
    argument: *mut c_void,
) -> c_int {
    type Create = extern "C" fn(*mut c_void, *const c_void, Thread, *mut c_void) -> c_int;
    if let Some(Action::Fail(error)) = pass("pthread_create") {
        return error;
    }
    // SAFETY: the next function of this name is the C library's, and has this signature.
    let create =
        unsafe { std::mem::transmute::<*mut c_void, Create>(libc::dlsym(libc::RTLD_NEXT, c"pthread_create".as_ptr())) };
    create(thread, attributes, run, argument)
}
