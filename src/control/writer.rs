//! Making the control page and the doorbell, and telling followers by them.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::{Subject, describes, open_plain};
use crate::format::control::{BELL_MAGIC, ControlPage, Doorbell, LAYOUT_VERSION, PAGE_BYTES, PAGE_MAGIC, state};
use crate::protocol::{self, Pair};
use crate::sys::fault;
use crate::sys::file::{self, Identity};
use crate::sys::futex;
use crate::sys::map::{Mapping, View};
use crate::sys::origin::boot_id;

/// What a new page says besides its log: how far that is published and durable, and which history it is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beginning {
    pub(crate) published: Pair,
    pub(crate) durable: Pair,
    pub(crate) history_id: [u64; 2],
    /// Of this run of the writer.
    pub(crate) epoch: u64,
}

/// The writer's side of the control page.
#[derive(Debug)]
pub(crate) struct ControlWriter {
    page: Arc<View<ControlPage>>,
    bell: View<Doorbell>,
    named: Option<Named>,
    event: u64,
    /// The event of the last complete wake-up.
    woken: u64,
}

/// The files under their names, to be unlinked if they are still ours.
#[derive(Debug)]
struct Named {
    page: (PathBuf, Identity),
    bell: (PathBuf, Identity),
}

impl ControlWriter {
    /// A new control page for this run of the writer, put under its name; where that fails, a page that nobody else
    /// sees, and the reason. Fails only for want of memory.
    pub(crate) fn create(
        subject: &Subject,
        beginning: Beginning,
        bell_mode: u32,
    ) -> io::Result<(ControlWriter, Option<String>)> {
        let (page, bell, named, reason) = match create_named(subject, beginning, bell_mode) {
            Ok((page, bell, named)) => (page, bell, Some(named), None),
            Err(reason) => {
                retire(subject);
                let page = View::new(Mapping::private(PAGE_BYTES)?);
                fill(&page, subject, beginning);
                (page, View::new(Mapping::private(PAGE_BYTES)?), None, Some(reason))
            }
        };
        let control = ControlWriter { page: Arc::new(page), bell, named, event: 0, woken: 0 };
        Ok((control, reason))
    }

    pub(crate) fn page(&self) -> Arc<View<ControlPage>> {
        self.page.clone()
    }

    /// Publishes; `true` where somebody may be asleep that [`wake`](ControlWriter::wake) should wake.
    #[inline(always)]
    pub(crate) fn publish(&mut self, pair: Pair) -> bool {
        self.event += 1;
        protocol::publish(&self.page.published, self.event, pair);
        protocol::someone_sleeps(&self.bell.announced, self.event, self.woken)
    }

    /// Wakes at most `most` sleepers, unless all have been woken up to event `woken`; `false` where there may be more.
    #[cold]
    pub(crate) fn wake(&mut self, woken: u64, most: u32) -> bool {
        self.woken = self.woken.max(woken);
        if !protocol::someone_sleeps(&self.bell.announced, self.event, self.woken) {
            return true;
        }
        // The kernel may wake one where none is asked for.
        let complete = most > 0 && futex::wake(&self.page.published.commit, most) < most;
        if complete {
            self.woken = self.event;
        }
        complete
    }

    /// Tells the followers, asleep or not. Those of what is durable are told by [`Durable::tell`](crate::durable::Durable::tell).
    pub(crate) fn set_state(&mut self, state: u64, published: Pair) {
        // Release: whoever sees the state sees all that was published before.
        fault::at("state");
        self.page.state.store(state, Release);
        self.publish(published);
        futex::wake(&self.page.published.commit, i32::MAX as u32);
    }

    /// Takes the names away, where they are still ours.
    pub(crate) fn unlink(&self) {
        if let Some(named) = &self.named {
            named.unlink();
        }
    }
}

impl Named {
    fn unlink(&self) {
        for (path, identity) in [&self.page, &self.bell] {
            if std::fs::symlink_metadata(path).is_ok_and(|metadata| Identity::of(&metadata) == *identity) {
                // What stays is superseded by the next writer.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

fn fill(page: &ControlPage, subject: &Subject, beginning: Beginning) {
    page.version.store(LAYOUT_VERSION, Relaxed);
    page.page_bytes.store(PAGE_BYTES, Relaxed);
    page.device.store(subject.identity.device, Relaxed);
    page.inode.store(subject.identity.inode, Relaxed);
    page.birth_ns.store(subject.identity.birth_ns, Relaxed);
    for (word, value) in page.boot_id.iter().zip(boot_id()) {
        word.store(value, Relaxed);
    }
    for (word, value) in page.history_id.iter().zip(beginning.history_id) {
        word.store(value, Relaxed);
    }
    page.epoch.store(beginning.epoch, Relaxed);
    page.pid.store(std::process::id().into(), Relaxed);
    page.start_time.store(start_time("self").unwrap_or(0), Relaxed);
    page.state.store(state::OPEN, Relaxed);
    page.heartbeat.store(futex::monotonic().as_nanos() as u64, Relaxed);
    for (extent, pair) in [(&page.published, beginning.published), (&page.durable, beginning.durable)] {
        // As of event 0.
        extent.slots[0].count.store(pair.count, Relaxed);
        extent.slots[0].end.store(pair.end, Relaxed);
        extent.end.store(pair.end, Relaxed);
    }
    // Release, with the fence behind the load of the magic in `ControlView::open`: a page with a magic is whole.
    fault::at("magic");
    page.magic.store(PAGE_MAGIC, Release);
}

/// When a process began, in clock ticks since boot; `process` is its id, or "self".
pub(crate) fn start_time(process: &str) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in parentheses, may hold anything; field 3 follows it.
    stat.rsplit_once(')')?.1.split_whitespace().nth(22 - 3)?.parse().ok()
}

fn create_named(
    subject: &Subject,
    beginning: Beginning,
    bell_mode: u32,
) -> Result<(View<ControlPage>, View<Doorbell>, Named), String> {
    let user = nix::unistd::geteuid().as_raw();
    if user != subject.owner && user != 0 {
        return Err(format!("the log belongs to user {}, and this is user {user}", subject.owner));
    }
    let old = squatter_or_page(&subject.page_path, subject)?;
    squatter_or_page(&subject.bell_path, subject)?;
    let made = make_both(subject, beginning, bell_mode);
    match &made {
        Ok(_) => {
            if let Some(old) = old {
                supersede(&old, subject);
            }
        }
        Err(_) => {
            // Only the holder of the writer's lock makes files of these names.
            let _ = std::fs::remove_file(temporary(&subject.page_path));
            let _ = std::fs::remove_file(temporary(&subject.bell_path));
        }
    }
    made
}

/// Makes both and puts them under their names; where that fails, temporary names may be left.
fn make_both(
    subject: &Subject,
    beginning: Beginning,
    bell_mode: u32,
) -> Result<(View<ControlPage>, View<Doorbell>, Named), String> {
    let (bell_file, bell_id) = create_file(&subject.bell_path, bell_mode & 0o777, |mapping| {
        let bell = View::<Doorbell>::new(mapping);
        bell.version.store(LAYOUT_VERSION, Relaxed);
        bell.epoch.store(beginning.epoch, Relaxed);
        // Release: as for the page's magic.
        bell.magic.store(BELL_MAGIC, Release);
    })?;
    // The log's read bits, and the owner's right to mark it superseded.
    let mode = subject.mode & 0o444 | 0o600;
    let (page_file, page_id) = create_file(&subject.page_path, mode, |mapping| {
        fill(&View::<ControlPage>::new(mapping), subject, beginning);
    })?;
    let map_error = |error: io::Error| format!("{}: cannot map it: {error}", subject.page_path.display());
    let page = View::new(Mapping::writable(&page_file, 0, PAGE_BYTES).map_err(map_error)?);
    let bell = View::new(Mapping::read_only(&bell_file, 0, PAGE_BYTES).map_err(map_error)?);
    let named = Named { page: (subject.page_path.clone(), page_id), bell: (subject.bell_path.clone(), bell_id) };
    // The doorbell first: a follower that finds the page finds its doorbell. The old page is told last, by the caller: whoever
    // it wakes finds the new one. (DESIGN has it the other way round, which lets them find the old one again.)
    for path in [&subject.bell_path, &subject.page_path] {
        std::fs::rename(temporary(path), path).map_err(|error| {
            named.unlink();
            format!("{}: cannot put it in place: {error}", path.display())
        })?;
    }
    Ok((page, bell, named))
}

/// What lies under the name: nothing, a file that a writer of this log may have left, or an obstacle.
fn squatter_or_page(path: &Path, subject: &Subject) -> Result<Option<File>, String> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", path.display())),
        Ok(metadata) => metadata,
    };
    let user = nix::unistd::geteuid().as_raw();
    if !metadata.is_file() || ![user, subject.owner, 0].contains(&metadata.uid()) {
        let kind = if metadata.is_file() { "a file" } else { "no ordinary file" };
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
        return Err(format!("{}: the name is taken by {kind} of user {owner}, mode {mode:04o}", path.display()));
    }
    Ok(open_plain(path, true).ok())
}

/// The name under which a file is made: one name a log, so that what a killed writer left is found by the next.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn create_file(path: &Path, mode: u32, fill: impl FnOnce(Mapping)) -> Result<(File, Identity), String> {
    let path = temporary(path);
    let create = || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
    let make = || -> io::Result<(File, Identity)> {
        let file = create().or_else(|error| match error.kind() {
            // Only the holder of the writer's lock comes here, so it is the leftover of a writer that was killed, or a
            // squatter's, which can be removed only by one who may.
            ErrorKind::AlreadyExists => std::fs::remove_file(&path).and_then(|()| create()),
            _ => Err(error),
        })?;
        // Blocks for all of it: a store into a page without one is a SIGBUS where the file system is full.
        file::grow(&file, 0, PAGE_BYTES, PAGE_BYTES)?;
        fill(Mapping::writable(&file, 0, PAGE_BYTES)?);
        file.set_permissions(Permissions::from_mode(mode))?;
        let identity = Identity::of(&file.metadata()?);
        Ok((file, identity))
    };
    make().map_err(|error| format!("{}: cannot create it: {error}", path.display()))
}

/// Takes away the page of a dead writer, where there is no new one: it must not keep followers from looking at the file.
pub(crate) fn retire(subject: &Subject) {
    let (user, path) = (nix::unistd::geteuid().as_raw(), &subject.page_path);
    if (user == subject.owner || user == 0)
        && let Ok(Some(old)) = squatter_or_page(path, subject)
    {
        supersede(&old, subject);
        // What stays is superseded at least.
        let _ = std::fs::remove_file(path);
        if matches!(squatter_or_page(&subject.bell_path, subject), Ok(Some(_))) {
            let _ = std::fs::remove_file(&subject.bell_path);
        }
    }
}

/// Sends the followers of a dead writer's page to the new one.
fn supersede(file: &File, subject: &Subject) {
    let Ok(mapping) = Mapping::writable(file, 0, PAGE_BYTES) else { return };
    let page = View::<ControlPage>::new(mapping);
    if page.magic.load(Acquire) == PAGE_MAGIC && describes(&page, subject.identity).is_ok() {
        fault::at("superseded");
        page.state.store(state::SUPERSEDED, Release);
        for extent in [&page.published, &page.durable] {
            // The slot of the new event repeats the pair, so that the pair stays readable. The dead writer stores no more.
            let event = protocol::commit(extent);
            let pair = protocol::try_pair(extent).unwrap_or(Pair { count: 0, end: 0 });
            protocol::publish(extent, event.wrapping_add(1), pair);
            futex::wake(&extent.commit, i32::MAX as u32);
        }
    }
}
