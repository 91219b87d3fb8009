//! How a log is opened for appending.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{Work, Writer};
use crate::control::{self, Beginning, ControlWriter, LastPage, Subject};
use crate::cover::Cover;
use crate::durable::Durable;
use crate::error::{Error, Result};
use crate::growth::Growth;
use crate::helper;
use crate::index;
use crate::recovery::{self, Recovered, Wanted};
use crate::settings::Durability;
use crate::space::Space;
use crate::stop::Stopper;
use crate::sys::file::{self, Identity};
use crate::sys::fork::Owner;
use crate::sys::{locks, origin};
use crate::units::WINDOW;
use crate::upkeep::Upkeep;

/// How long a writer that finds the lock taken goes on trying: a follower that asks, or a writer that is closing, is soon gone.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);

/// How often the log's name may lead to another file while it is being opened.
const RENAMES_MOST: u32 = 100;

/// Something that a writer does without, and why. It works all the same, more slowly.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// There is no control page: followers look at the count in the file, within 50 ms.
    NoControlPage {
        /// What stands in the way.
        reason: String,
    },
    /// The file system does not keep reserved space for a file: records are written with pwrite.
    NoReservedSpace {
        /// The log.
        path: PathBuf,
    },
    /// There is no helper thread: appends do its work, so that what the last ones leave is flushed only at the next one, at `sync` or
    /// at close.
    NoHelper,
    /// The index cannot be written: records are sought by a walk, and no checksums are kept.
    NoIndex {
        /// What stands in the way.
        reason: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::NoControlPage { reason } => {
                write!(f, "no control page, so followers see records within 50 ms, not at once: {reason}")
            }
            Notice::NoReservedSpace { path } => write!(
                f,
                "{}: this file system does not keep reserved space, so records are written with system calls, more slowly",
                path.display()
            ),
            Notice::NoHelper => f.write_str("no helper thread could be started, so appends do its work: what they leave is flushed at the next, at sync and at close"),
            Notice::NoIndex { reason } => {
                write!(f, "no index, so records are sought by a walk and no checksums are kept: {reason}")
            }
        }
    }
}

/// How to open a log for appending.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    mode: Option<u32>,
    doorbell_mode: u32,
    pub(super) control_dir: Option<PathBuf>,
    window: u64,
    reserve: u64,
    mapped: bool,
    durability: Durability,
    index: bool,
    pub(super) repair: bool,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl WriterOptions {
    /// The defaults.
    pub fn new() -> Self {
        WriterOptions {
            mode: None,
            doorbell_mode: 0o600,
            control_dir: None,
            window: WINDOW,
            reserve: 0,
            mapped: true,
            durability: Durability::default(),
            index: true,
            repair: false,
        }
    }

    /// The rights of a log that is created (default 0666 without the umask's bits).
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = Some(mode);
        self
    }

    /// The rights of the doorbell (default 0600). Who may write it can end the writer by truncating it: open it to a group at most.
    pub fn doorbell_mode(&mut self, mode: u32) -> &mut Self {
        self.doorbell_mode = mode;
        self
    }

    /// The directory of the control page and the doorbell (default: `IMMUTA_CONTROL_DIR`, else `/dev/shm`).
    pub fn control_dir(&mut self, dir: impl Into<PathBuf>) -> &mut Self {
        self.control_dir = Some(dir.into());
        self
    }

    /// Address space for the mapping, in bytes (default 64 GiB; at least 2 MiB; halved when refused). A log may outgrow it.
    pub fn window(&mut self, bytes: u64) -> &mut Self {
        self.window = bytes;
        self
    }

    /// Zeroed space made ready beyond the end when the log is opened, in bytes (default: what a helper thread does ahead,
    /// 64 KiB for a new log and up to 32 MiB for a large one). The first GiB of it is mapped, too, but not in
    /// [`Durability::Sync`], so that appends into it do not fault until the system has written it to the disk.
    pub fn reserve(&mut self, bytes: u64) -> &mut Self {
        self.reserve = bytes;
        self
    }

    /// Appends through a mapping (default) or, with `false`, with pwrite, as is done where reserved space does not hold.
    pub fn mapped(&mut self, mapped: bool) -> &mut Self {
        self.mapped = mapped;
        self
    }

    /// When what is appended is made durable (default [`Durability::Interval`] of a second).
    pub fn durability(&mut self, durability: Durability) -> &mut Self {
        self.durability = durability;
        self
    }

    /// Keeps an index beside the log (default): seeking by sequence and time, checksums, bounded recovery. With `false` one that
    /// is there is removed, since it would not be kept up.
    pub fn index(&mut self, index: bool) -> &mut Self {
        self.index = index;
        self
    }

    /// Opens the log, and creates it where there is none. What the last writer left is recovered; [`Stat::recovery`](crate::Stat::recovery) tells how.
    ///
    /// # Errors
    /// [`Error::Locked`] while another writer has it, [`Error::NotALog`] where the name is a directory or the like,
    /// [`Error::Damaged`] where the file is no log or is damaged where it was durable (it stays as it is), [`Error::Io`] for
    /// what the system refuses.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Writer> {
        let path = path.as_ref();
        let no_memory = |error: io::Error| Error::io("get memory for", path, error);
        let owner = Owner::current().map_err(no_memory)?;
        let (file, metadata) = open_locked(path, self.mode)?;
        let recovered = self.recover(path, Arc::new(file), metadata)?;
        let (file, pair) = (recovered.file, recovered.pair);

        let mut notices = Vec::new();
        let mapped = self.mapped && file::keeps_reserved_space(&file);
        if self.mapped && !mapped {
            notices.push(Notice::NoReservedSpace { path: path.to_owned() });
        }
        notices.extend(recovered.no_index.map(|reason| Notice::NoIndex { reason }));
        let growth = Arc::new(Growth::new(file.clone(), pair.end, self.durability == Durability::Sync));
        let reserve = self.reserve;
        let space = Space::new(file.clone(), path, growth.clone(), pair.end, mapped, self.window, reserve)?;
        let subject = Subject::new(&recovered.metadata, self.control_dir.as_deref());
        let (history_id, epoch, durable) = (recovered.history_id, recovered.epoch, recovered.durable);
        let beginning = Beginning { published: pair, durable, history_id, epoch };
        let (control, reason) = ControlWriter::create(&subject, beginning, self.doorbell_mode).map_err(no_memory)?;
        notices.extend(reason.map(|reason| Notice::NoControlPage { reason }));
        if !mapped {
            growth.end();
        }
        // Of the file, wherever a link lies that leads to it. Once in each run: an earlier one may have been killed before it came to that.
        let directory = file::directory_of(&index::real(path))?;
        let cover = Arc::new(Cover::new(path, file.clone(), recovered.index, mapped));
        let durable = Durable::new(file.clone(), control.page(), cover.clone(), durable, directory);
        let durable = Arc::new(durable);
        let (durability, header) = (self.durability, space.header());
        let upkeep = Upkeep::new(growth.clone(), cover.clone(), durable.clone(), durability, control.page(), header);
        let upkeep = Arc::new(upkeep);
        let employed = helper::employ(upkeep.clone()).map_err(|error| {
            control.unlink();
            no_memory(error)
        })?;
        if !employed.is_helped() {
            notices.push(Notice::NoHelper);
        }
        Ok(Writer {
            space,
            control,
            published: pair,
            owner,
            work: Some(Work { employed, upkeep, growth }),
            durable,
            cover,
            ordered: self.durability == Durability::Sync,
            mark_at: 0,
            path: path.to_owned(),
            file,
            failed: false,
            stopper: Stopper::default(),
            notices,
            history_id,
            recovery: recovered.report,
            not_sync: PhantomData,
        })
    }

    fn recover(&self, path: &Path, file: Arc<File>, metadata: Metadata) -> Result<Recovered> {
        let subject = Subject::new(&metadata, self.control_dir.as_deref());
        let page = last_page(path, &subject)?;
        let [epoch] = file::random_words().map_err(|error| Error::io("read /dev/urandom for", path, error))?;
        let ordered = self.durability == Durability::Sync;
        let wanted = Wanted { index: self.index, repair: self.repair, epoch, ordered };
        let recovered = recovery::recover(path, file, metadata, page, wanted)?;
        if Identity::of(&recovered.metadata) != subject.identity {
            // Another file has the name now: whoever follows the old one is to see that.
            control::retire(&subject);
        }
        Ok(recovered)
    }
}

/// What the last writer's page says; fails where that, or in which boot this is, cannot be found out now. A recovery would take the one
/// for another boot, and miss a failed flush in the other.
pub(super) fn last_page(path: &Path, subject: &Subject) -> Result<LastPage> {
    let boot = origin::find_boot_id();
    boot.map_err(|error| Error::io("read /proc/sys/kernel/random/boot_id, to open", path, error))?;
    control::last_page(subject).map_err(|error| Error::io("look at the control page of", path, error))
}

/// Opens the file and takes the writer's locks, on the file that has the name when they are taken.
pub(super) fn open_locked(path: &Path, mode: Option<u32>) -> Result<(File, Metadata)> {
    for _ in 0..RENAMES_MOST {
        let (file, metadata, _) = file::open_to_write(path, mode)?;
        let identity = Identity::of(&metadata);
        match locks::lock(&file, LOCK_PATIENCE) {
            Ok(true) if matches!(file::names(path, identity), Ok(true)) => return Ok((file, metadata)),
            // Removed or replaced while the lock was waited for: the name is another file's now.
            Ok(true) => {}
            Ok(false) => return Err(Error::Locked { path: path.to_owned(), pid: locks::holder(identity) }),
            Err(error) => return Err(Error::io("lock the log", path, error)),
        }
    }
    Err(Error::io(
        "get hold of the log, whose name leads to another file at each look:",
        path,
        io::ErrorKind::ResourceBusy,
    ))
}
