//! Sizes and times that more than one module uses.

use std::time::Duration;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// The kernel's page, the unit in which files are mapped.
pub(crate) const PAGE: u64 = 4 * KIB;
/// The step in which files grow: the size of a large folio, so that a mapping faults once in 2 MiB (FACTS: 3 faults for 512).
pub(crate) const LARGE_PAGE: u64 = 2 * MIB;
/// Address space for a mapping, unless told otherwise.
pub(crate) const WINDOW: u64 = 64 * GIB;
/// The most of it: half of what a process has.
pub(crate) const WINDOW_MOST: u64 = 1 << 46;

/// How often a writer's helper thread says that the process still runs.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(500);
/// A heartbeat that did not move for this long is old.
pub(crate) const HEARTBEAT_OLD: Duration = Duration::from_secs(2);
/// The bound of every sleep on the control page.
pub(crate) const SLEEP_BOUND: Duration = Duration::from_millis(200);

pub(crate) const fn round_down(n: u64, unit: u64) -> u64 {
    n / unit * unit
}

pub(crate) const fn round_up(n: u64, unit: u64) -> u64 {
    n.div_ceil(unit) * unit
}
