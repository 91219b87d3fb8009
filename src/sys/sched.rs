//! How the kernel runs a thread.

/// Has the calling thread, when it is woken, wait for its turn instead of taking the processor from whoever runs: the helper thread would
/// take it from the very writer that has woken it, for as long as it takes to wake a thousand sleepers. Where that is refused, it may.
/// Where the program chose how its threads run, it stays so.
pub(crate) fn wait_for_turn() {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: 0 is the calling thread, and the parameters are only read, during the call.
    unsafe {
        if libc::sched_getscheduler(0) == libc::SCHED_OTHER {
            libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters);
        }
    }
}
