//! The library for C, and for every language that can call C. `include/immuta.h` is made of this module by cbindgen, comments
//! and all: what is said at a function here is what its user reads there.
//!
//! It uses nothing but the crate's public interface. What every call goes through is in `border`: no panic leaves the library, and what
//! can be checked of an argument is checked before anything is done.
#![allow(non_camel_case_types, reason = "the names are C's, so that one search finds them in both languages")]

mod border;
mod error;
mod growing;
mod reader;
mod tailer;
mod writer;
