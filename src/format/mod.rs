//! Bytes and their meaning, as FORMAT.md says: no I/O, no unsafe code.

pub(crate) mod control;
pub(crate) mod index;
pub(crate) mod log;
