//! The clocks that figures are taken from: the one that all processes share, and the processor's time.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A sleep may last so much longer than asked for; who has to be in time spins for the rest.
const SLEEP_SLACK_NS: u64 = 500_000;
/// No sleep is longer, so that whoever is to stop does so soon.
const SLEEP_MOST_NS: u64 = 50_000_000;

/// CLOCK_MONOTONIC, which all processes share, in nanoseconds.
#[inline]
pub fn now_ns() -> u64 {
    read_ns(ClockId::CLOCK_MONOTONIC)
}

/// The processor's time that this thread has used, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    read_ns(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// The processor's time that this process has used with all its threads, in nanoseconds.
pub fn process_cpu_ns() -> u64 {
    read_ns(ClockId::CLOCK_PROCESS_CPUTIME_ID)
}

#[inline]
fn read_ns(clock: ClockId) -> u64 {
    // It cannot fail with clocks that every Linux has.
    let time = clock_gettime(clock).map_or((0, 0), |time| (time.tv_sec(), time.tv_nsec()));
    time.0 as u64 * 1_000_000_000 + time.1 as u64
}

/// Waits until `due_ns` of [`now_ns`], at the end without sleeping; `false` where `is_over` said so before.
pub fn wait_until(due_ns: u64, is_over: impl Fn() -> bool) -> bool {
    loop {
        let now = now_ns();
        if now >= due_ns {
            return true;
        }
        if is_over() {
            return false;
        }
        match due_ns - now {
            left if left > 2 * SLEEP_SLACK_NS => {
                std::thread::sleep(Duration::from_nanos((left - SLEEP_SLACK_NS).min(SLEEP_MOST_NS)));
            }
            _ => std::hint::spin_loop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_it_is_due_or_over() {
        let due = now_ns() + 2_000_000;
        assert!(wait_until(due, || false));
        assert!(now_ns() >= due);
        assert!(wait_until(0, || true), "what is due is not over");
        assert!(!wait_until(u64::MAX, || true));
    }

    #[test]
    fn the_processors_time_goes_on() {
        let (thread, process) = (thread_cpu_ns(), process_cpu_ns());
        while thread_cpu_ns() == thread {}
        assert!(process_cpu_ns() > process);
    }
}
