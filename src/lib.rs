//! A local message bus that is a file.
//!
//! One process appends records to a log; any number of processes follow it at memory speed. There is no broker and
//! no daemon. The log is an ordinary file that a stranger can parse in ten lines (see FORMAT.md), and a small
//! shared-memory page tells readers how far it has grown and wakes them.
//!
//! ```
//! use immuta::{Reader, Start, Writer};
//! use std::time::Duration;
//!
//! # fn main() -> immuta::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("events.log");
//! let mut writer = Writer::open(&path)?;
//! let appended = writer.append(b"hello world")?;
//! assert_eq!((appended.sequence, appended.position, appended.size), (0, 8, 11));
//!
//! let reader = Reader::open(&path)?;
//! let mut tailer = reader.tail(Start::Beginning)?;
//! let record = tailer.next_timeout(Duration::from_secs(2))?.expect("nobody stops this tailer");
//! assert_eq!(record.payload(), b"hello world");
//! # Ok(())
//! # }
//! ```

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
compile_error!(
    "immuta needs 64-bit little-endian Linux: its format is little-endian and its sleepers wait on a Linux futex"
);

#[cfg(feature = "capi")]
mod capi;
mod chunk;
mod control;
mod cover;
mod durable;
mod error;
mod format;
mod growth;
mod helper;
mod index;
mod marks;
mod opened;
mod protocol;
mod reader;
mod recovery;
mod scan;
mod settings;
mod space;
mod stat;
mod stop;
#[doc(hidden)]
pub mod survey;
mod sys;
mod tailer;
mod units;
mod upkeep;
mod verify;
mod window;
mod writer;

pub use error::{Error, Result};
pub use reader::{Reader, ReaderOptions};
pub use settings::{Durability, ReadMode, WaitStrategy};
pub use stat::{Discarded, Evidence, Recovery, Stat, WriterState};
pub use stop::Stopper;
#[cfg(feature = "faults")]
#[doc(hidden)]
pub use sys::fault::on_each_point;
pub use tailer::{Record, Start, Tailer, WaitCounts};
pub use verify::{IndexState, Problem, Progress, Verification};
pub use writer::{Appended, Batch, Claim, Notice, Repair, Writer, WriterOptions};
