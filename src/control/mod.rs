//! The control page and the doorbell as files: where they lie, who may be believed, finding them; `writer` makes them.
//! The order of the stores is `protocol`'s.

mod writer;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::fence;
use std::time::Duration;

pub(crate) use writer::{Beginning, ControlWriter, retire, start_time};

use crate::format::control::{
    BELL_MAGIC, ControlPage, Doorbell, Extent, LAYOUT_VERSION, PAGE_BYTES, PAGE_MAGIC, state,
};
use crate::protocol::{self, Pair};
use crate::sys::file::{self, Identity};
use crate::sys::futex;
use crate::sys::map::{Mapping, Shared, View};
use crate::sys::origin::boot_id;

// SAFETY: repr(C), of AtomicU64 alone; format::control asserts that the fields leave no gap.
unsafe impl Shared for ControlPage {}
// SAFETY: as above.
unsafe impl Shared for Doorbell {}

/// Of a log: what its control page must agree with.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) identity: Identity,
    /// The user that owns the log.
    pub(crate) owner: u32,
    pub(crate) mode: u32,
    pub(crate) page_path: PathBuf,
    pub(crate) bell_path: PathBuf,
}

impl Subject {
    /// The log with this metadata, its page lying in `directory` or where the environment or the default says.
    pub(crate) fn new(metadata: &std::fs::Metadata, directory: Option<&Path>) -> Subject {
        let directory = file::absolute(&directory.map(Path::to_owned).unwrap_or_else(self::directory));
        let name = format!("immuta-{}-{}", metadata.dev(), metadata.ino());
        Subject {
            identity: Identity::of(metadata),
            owner: metadata.uid(),
            mode: metadata.mode(),
            bell_path: directory.join(format!("{name}.bell")),
            page_path: directory.join(name),
        }
    }
}

/// Where control pages lie, unless the user of the library chooses: as the environment or the default says.
pub(crate) fn directory() -> PathBuf {
    match std::env::var_os("IMMUTA_CONTROL_DIR") {
        Some(directory) if !directory.is_empty() => directory.into(),
        _ => "/dev/shm".into(),
    }
}

/// Why the file that has a control page's name is not believed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Doubt {
    /// Nothing has the name.
    Missing,
    /// The system does not let it be opened or mapped.
    Refused(io::Error),
    /// It is no ordinary file, or does not hold a control page.
    NoPage,
    /// It belongs neither to the log's owner nor to root.
    Owner,
    /// Another version of immuta laid it out.
    Layout,
    /// It is of another file, which had this name or this inode number before.
    Log,
    /// It was made before the machine was last started.
    Boot,
    /// It says more than the log.
    Beyond,
}

pub(crate) fn open_plain(path: &Path, write: bool) -> Result<File, Doubt> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = OpenOptions::new().read(true).write(write).custom_flags(flags).open(path).map_err(|error| {
        match (error.kind(), error.raw_os_error()) {
            (ErrorKind::NotFound, _) => Doubt::Missing,
            // A link, a socket, a directory.
            (_, Some(libc::ELOOP | libc::ENXIO | libc::EISDIR)) => Doubt::NoPage,
            _ => Doubt::Refused(error),
        }
    })?;
    let metadata = file.metadata().map_err(Doubt::Refused)?;
    if metadata.is_file() && metadata.len() >= PAGE_BYTES { Ok(file) } else { Err(Doubt::NoPage) }
}

/// Whether a page that has its magic is of this log, and of now.
fn describes(page: &ControlPage, log: Identity) -> Result<(), Doubt> {
    if page.version.load(Relaxed) != LAYOUT_VERSION || page.page_bytes.load(Relaxed) != PAGE_BYTES {
        return Err(Doubt::Layout);
    }
    if page.boot_id.iter().zip(boot_id()).any(|(word, value)| word.load(Relaxed) != value) {
        return Err(Doubt::Boot);
    }
    let found = [&page.device, &page.inode, &page.birth_ns].map(|word| word.load(Relaxed));
    if found == [log.device, log.inode, log.birth_ns] { Ok(()) } else { Err(Doubt::Log) }
}

/// What the control page of the last writer says, if it is still there: it outlives its writer, not the boot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LastPage {
    /// There is one, of this boot and of this file.
    pub(crate) found: bool,
    /// A flush had failed.
    pub(crate) failed: bool,
}

/// Looks at the page of the last writer. An error that may pass is one: the page might say that a flush had failed.
pub(crate) fn last_page(subject: &Subject) -> io::Result<LastPage> {
    match ControlView::examine(subject) {
        Ok(view) => Ok(LastPage { found: true, failed: view.state() == state::FAILED }),
        Err(Doubt::Refused(error))
            if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EIO)) =>
        {
            Err(error)
        }
        Err(_) => Ok(LastPage::default()),
    }
}

/// A follower's side of the control page.
#[derive(Debug)]
pub(crate) struct ControlView {
    page: View<ControlPage>,
    /// Of the page's file, to see when another has taken its name.
    identity: Identity,
    bell: Option<View<Doorbell>>,
}

impl ControlView {
    /// The control page of a log, if there is one that can be believed.
    pub(crate) fn open(subject: &Subject) -> Option<ControlView> {
        ControlView::examine(subject).ok()
    }

    /// As [`open`](ControlView::open), with the reason why there is none.
    pub(crate) fn examine(subject: &Subject) -> Result<ControlView, Doubt> {
        let file = open_plain(&subject.page_path, false)?;
        let metadata = file.metadata().map_err(Doubt::Refused)?;
        if metadata.uid() != subject.owner && metadata.uid() != 0 {
            return Err(Doubt::Owner);
        }
        let page = View::<ControlPage>::new(Mapping::read_only(&file, 0, PAGE_BYTES).map_err(Doubt::Refused)?);
        let magic = page.magic.load(Relaxed);
        fence(Acquire); // Pairs with the release store of the magic in `fill`.
        if magic != PAGE_MAGIC {
            return Err(Doubt::NoPage);
        }
        describes(&page, subject.identity)?;
        let bell = ControlView::open_bell(subject, page.epoch.load(Relaxed), metadata.uid());
        Ok(ControlView { page, identity: Identity::of(&metadata), bell })
    }

    fn open_bell(subject: &Subject, epoch: u64, owner: u32) -> Option<View<Doorbell>> {
        let file = open_plain(&subject.bell_path, true).ok()?;
        if file.metadata().ok()?.uid() != owner {
            return None;
        }
        let bell = View::<Doorbell>::new(Mapping::writable(&file, 0, PAGE_BYTES).ok()?);
        let magic = bell.magic.load(Acquire); // Pairs with the release store in `create_named`.
        (magic == BELL_MAGIC && bell.version.load(Relaxed) == LAYOUT_VERSION && bell.epoch.load(Relaxed) == epoch)
            .then_some(bell)
    }

    /// Of the page's file.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether the page still has its name.
    pub(crate) fn is_named(&self, subject: &Subject) -> bool {
        std::fs::symlink_metadata(&subject.page_path).is_ok_and(|metadata| Identity::of(&metadata) == self.identity)
    }

    pub(crate) fn page(&self) -> &ControlPage {
        &self.page
    }

    pub(crate) fn bell(&self) -> Option<&Doorbell> {
        self.bell.as_deref()
    }

    /// The page's state; whoever sees it sees all that was published before it was set.
    pub(crate) fn state(&self) -> u64 {
        let state = self.page.state.load(Relaxed);
        fence(Acquire); // Pairs with the release store in `set_state` and `supersede`.
        state
    }

    /// Whether records may still come by it.
    pub(crate) fn is_followed(&self) -> bool {
        !matches!(self.state(), state::SUPERSEDED | state::CLOSED)
    }

    /// Moves while the writer's process runs, if it has a helper thread.
    pub(crate) fn heartbeat(&self) -> u64 {
        self.page.heartbeat.load(Relaxed)
    }

    /// How long ago the heartbeat was, by the clock; the boot is the writer's, or the page would not be believed.
    pub(crate) fn age(&self) -> Duration {
        futex::monotonic().saturating_sub(Duration::from_nanos(self.heartbeat()))
    }

    /// The writer's process. For messages only.
    pub(crate) fn pid(&self) -> u64 {
        self.page.pid.load(Relaxed)
    }

    /// The pair of the last event; `None` where the writer is too fast for it to be read.
    pub(crate) fn pair(&self) -> Option<Pair> {
        (0..1000).find_map(|_| protocol::try_pair(&self.page.published))
    }

    /// The same of what is durable.
    pub(crate) fn durable_pair(&self) -> Option<Pair> {
        (0..1000).find_map(|_| protocol::try_pair(&self.page.durable))
    }

    /// The words that a follower goes by.
    #[inline(always)]
    pub(crate) fn extent(&self, durable: bool) -> &Extent {
        if durable { &self.page.durable } else { &self.page.published }
    }

    /// Another one means that counted records may be others than before.
    pub(crate) fn history_id(&self) -> [u64; 2] {
        [0, 1].map(|n| self.page.history_id[n].load(Relaxed))
    }
}
