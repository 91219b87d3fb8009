//! Sleeping on a word that processes share, and waking. The futex is the low half of a 64-bit word.
//!
//! FUTEX_PRIVATE_FLAG is never set on the shared word: it would not wake another process.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Somebody called wake, or nobody did: a spurious wake-up looks the same.
    Woken,
    /// The word was another already.
    MovedOn,
    /// The bound was reached.
    Bound,
    /// A signal handler ran.
    Interrupted,
}

/// As in <linux/futex.h>; libc has it not for every C library.
#[repr(C)]
struct FutexWaitv {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

const SIZE_U32: u32 = 2;
const PRIVATE: u32 = libc::FUTEX_PRIVATE_FLAG as u32;

/// Cleared where the kernel (before 5.16) or a sandbox refuses futex_waitv.
static HAS_WAITV: AtomicBool = AtomicBool::new(true);

fn low_half(word: &AtomicU64) -> *const u32 {
    // Little-endian: the low half comes first.
    std::ptr::from_ref(word).cast()
}

fn timespec(time: Duration) -> libc::timespec {
    libc::timespec { tv_sec: time.as_secs().min(i64::MAX as u64) as i64, tv_nsec: time.subsec_nanos().into() }
}

fn ended(result: libc::c_long) -> Ended {
    if result >= 0 {
        return Ended::Woken;
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Ended::MovedOn,
        Some(libc::EINTR) => Ended::Interrupted,
        _ => Ended::Bound,
    }
}

/// Sleeps as long as the low half of `word` is `expected` and `stop` is 0, but no longer than `bound`. `word` may lie
/// in read-only memory and may be woken by another process, `stop` by this one. Where the kernel cannot wait for two
/// words, `stop` is seen when the bound is reached.
pub(crate) fn wait(word: &AtomicU64, expected: u32, stop: &AtomicU32, bound: Duration) -> Ended {
    if HAS_WAITV.load(Relaxed) {
        match wait_both(word, expected, stop, bound) {
            Some(ended) => return ended,
            None => HAS_WAITV.store(false, Relaxed),
        }
    }
    wait_one(low_half(word), expected, libc::FUTEX_WAIT, bound)
}

fn wait_both(word: &AtomicU64, expected: u32, stop: &AtomicU32, bound: Duration) -> Option<Ended> {
    let waiters = [
        FutexWaitv { value: expected.into(), address: low_half(word) as u64, flags: SIZE_U32, reserved: 0 },
        FutexWaitv { value: 0, address: stop.as_ptr() as u64, flags: SIZE_U32 | PRIVATE, reserved: 0 },
    ];
    let deadline = timespec(monotonic() + bound);
    // SAFETY: both addresses are of live, aligned words; the kernel only reads them, and reads the array and the time
    // during the call alone.
    let result = unsafe {
        libc::syscall(libc::SYS_futex_waitv, waiters.as_ptr(), 2, 0, &raw const deadline, libc::CLOCK_MONOTONIC)
    };
    match std::io::Error::last_os_error().raw_os_error() {
        // ENOSYS, or EPERM where a sandbox does not know the call: anything but an end of a wait.
        Some(error) if result < 0 && ![libc::EAGAIN, libc::EINTR, libc::ETIMEDOUT].contains(&error) => None,
        _ => Some(ended(result)),
    }
}

/// Whether the kernel waits for two words, so that a stop ends a wait at once.
pub(crate) fn waits_for_two() -> bool {
    // It sees that the word is not 1, and returns at once.
    wait_both(&AtomicU64::new(0), 1, &AtomicU32::new(0), Duration::ZERO).is_some()
}

fn wait_one(address: *const u32, expected: u32, operation: i32, bound: Duration) -> Ended {
    let limit = timespec(bound);
    // SAFETY: the address is of a live, aligned word, which the kernel only reads.
    ended(unsafe { libc::syscall(libc::SYS_futex, address, operation, expected, &raw const limit) })
}

/// Sleeps until `stop` is not 0, but no longer than `bound`.
pub(crate) fn wait_for_stop(stop: &AtomicU32, bound: Duration) {
    wait_one(stop.as_ptr(), 0, libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG, bound);
}

/// Wakes at most `most` sleepers of any process; returns how many woke.
pub(crate) fn wake(word: &AtomicU64, most: u32) -> u32 {
    // SAFETY: FUTEX_WAKE takes the address of a live word as a key and does not touch it.
    let woken = unsafe { libc::syscall(libc::SYS_futex, low_half(word), libc::FUTEX_WAKE, most) };
    u32::try_from(woken).unwrap_or(0)
}

/// Wakes this process's sleepers on `stop`. Async-signal-safe.
pub(crate) fn wake_stopped(stop: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: as in `wake`.
    unsafe { libc::syscall(libc::SYS_futex, stop.as_ptr(), operation, i32::MAX) };
}

/// CLOCK_MONOTONIC.
pub(crate) fn monotonic() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every Linux and the result is written to a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Spins until `done` or for `limit`; `true` where it is done.
pub(crate) fn spin(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    loop {
        for _ in 0..32 {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if begin.elapsed() >= limit {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_sleep_tells_why_it_ended() {
        let (word, stop) = (AtomicU64::new(1 << 32 | 5), AtomicU32::new(0));
        assert_eq!(wait(&word, 4, &stop, LONG), Ended::MovedOn);
        assert_eq!(wait(&word, 5, &stop, Duration::from_millis(5)), Ended::Bound);
        let limit = Duration::from_millis(5);
        assert_eq!(wait_one(low_half(&word), 4, libc::FUTEX_WAIT, LONG), Ended::MovedOn);
        assert_eq!(wait_one(low_half(&word), 5, libc::FUTEX_WAIT, limit), Ended::Bound);
        assert_eq!(wake(&word, 1), 0);
        assert_eq!(waits_for_two(), HAS_WAITV.load(Relaxed));
    }

    #[test]
    fn a_sleeper_is_woken_by_the_word_and_by_the_stop() {
        let (word, stop) = (AtomicU64::new(5), AtomicU32::new(0));
        for by_stop in [false, true] {
            std::thread::scope(|scope| {
                let sleeper = scope.spawn(|| {
                    let begin = Instant::now();
                    while word.load(Relaxed) == 5 && stop.load(Relaxed) == 0 {
                        wait(&word, 5, &stop, LONG);
                    }
                    begin.elapsed()
                });
                if by_stop {
                    stop.store(1, Relaxed);
                    wake_stopped(&stop);
                } else {
                    word.store(6, Relaxed);
                    wake(&word, 1);
                }
                assert!(sleeper.join().unwrap() < LONG);
            });
            word.store(5, Relaxed);
        }
    }
}
