//! Points between two stores, where a test ends the process. Only with the feature `faults`; without it there is nothing here.
//! (Between two system calls no such points are needed: the test's helper program puts itself in between.)

#[cfg(feature = "faults")]
static HOOK: std::sync::OnceLock<fn(&'static str)> = std::sync::OnceLock::new();

/// Something was stored, and the next store has not begun.
#[inline(always)]
pub(crate) fn at(point: &'static str) {
    #[cfg(feature = "faults")]
    if let Some(hook) = HOOK.get() {
        hook(point);
    }
    #[cfg(not(feature = "faults"))]
    let _ = point;
}

/// Has `hook` called at every point from now on, with its name. For tests; not a part of the API.
#[cfg(feature = "faults")]
pub fn on_each_point(hook: fn(&'static str)) {
    // The first stays.
    let _ = HOOK.set(hook);
}
