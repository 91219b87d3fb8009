//! System calls. Knows no records; nearly all of the crate's unsafe code is in here.

pub(crate) mod fault;
pub(crate) mod file;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod locks;
pub(crate) mod map;
pub(crate) mod origin;
pub(crate) mod pool;
pub(crate) mod sched;
