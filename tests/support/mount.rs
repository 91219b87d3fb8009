//! Small file systems of a test's own, for full and read-only disks. Root only.

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted file system, unmounted when dropped.
pub struct Mount {
    pub dir: PathBuf,
    /// Where the file system's image and the directory are.
    place: TempDir,
}

impl Mount {
    /// A tmpfs of `bytes`.
    pub fn tmpfs(bytes: u64) -> Mount {
        let (place, dir) = place();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "immuta-test"]).arg(&dir));
        Mount { dir, place }
    }

    /// An ext4 of `bytes`, in a file; `None` where this machine has no loop devices or no mkfs.ext4.
    pub fn ext4(bytes: u64) -> Option<Mount> {
        Mount::in_a_file(bytes, &["mkfs.ext4", "-m", "0"])
    }

    /// The same for ext2, which has ext4's magic number and cannot reserve blocks.
    pub fn ext2(bytes: u64) -> Option<Mount> {
        Mount::in_a_file(bytes, &["mkfs.ext2"])
    }

    /// An ext4 of which all bytes have blocks in the file system of `parent`, so that a full one does not harm it before
    /// [`take_blocks`](Mount::take_blocks). In blocks of a page: less than that cannot be taken away.
    pub fn dense_ext4(parent: &Path, bytes: u64) -> Option<Mount> {
        let mount = Mount::made_in(place_in(parent), bytes, &["mkfs.ext4", "-m", "0", "-b", "4096"])?;
        let image = std::fs::File::options().write(true).open(mount.image()).expect("the image");
        nix::fcntl::fallocate(&image, nix::fcntl::FallocateFlags::empty(), 0, bytes as i64).expect("blocks");
        Some(mount)
    }

    /// Takes away from the image the blocks of the bytes from `from` on of a file in it: they are zeros now, and cannot be written to
    /// where the file system around is full.
    pub fn take_blocks(&self, path: &Path, from: u64) {
        use nix::fcntl::{FallocateFlags, fallocate};
        let image = std::fs::File::options().write(true).open(self.image()).expect("the image");
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let mut taken = 0;
        for (logical, physical, length) in extents(path) {
            let skip = from.saturating_sub(logical).min(length);
            if length > skip {
                fallocate(&image, hole, (physical + skip) as i64, (length - skip) as i64).expect("a hole");
                taken += length - skip;
            }
        }
        assert!(taken > 0, "{}: no blocks from {from} on", path.display());
    }

    /// How many blocks of 512 bytes the image has.
    pub fn image_blocks(&self) -> u64 {
        std::os::unix::fs::MetadataExt::blocks(&self.image().metadata().expect("the image"))
    }

    fn in_a_file(bytes: u64, make: &[&str]) -> Option<Mount> {
        Mount::made_in(place_in(&fast(bytes)), bytes, make)
    }

    fn made_in((place, dir): (TempDir, PathBuf), bytes: u64, make: &[&str]) -> Option<Mount> {
        let image = place.path().join("image");
        std::fs::File::create(&image).and_then(|file| file.set_len(bytes)).expect("an image file");
        let made =
            Command::new(make[0]).args(&make[1..]).arg("-q").arg(&image).status().is_ok_and(|status| status.success());
        let mounted = made
            && Command::new("mount")
                .args(["-o", "loop"])
                .args([&image, &dir])
                .status()
                .is_ok_and(|status| status.success());
        mounted.then(|| Mount { dir, place })
    }

    /// An overlayfs of the new directories `lower` and `upper` in `place_of_layers`; `None` where this machine has none.
    pub fn overlay(place_of_layers: &Path) -> Option<Mount> {
        let (place, dir) = place();
        let layer = |name: &str| {
            let path = place_of_layers.join(name);
            std::fs::create_dir(&path).expect("a directory for a layer");
            format!("{name}dir={}", path.display())
        };
        let options = ["lower", "upper", "work"].map(layer).join(",");
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "-o", &options, "immuta-test"]).arg(&dir);
        mount.status().is_ok_and(|status| status.success()).then(|| Mount { dir, place })
    }

    /// From now on nothing can be written to it.
    pub fn make_read_only(&self) {
        run(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.dir));
    }

    /// From now on everything on this ext4 fails, and what was not flushed is lost.
    pub fn cut_power(&self) {
        const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
        let no_log_flush: u32 = 2;
        let dir = std::fs::File::open(&self.dir).expect("the mounted directory");
        // SAFETY: the call reads the flags during the call, and the descriptor is open.
        let result = unsafe { libc::ioctl(dir.as_raw_fd(), EXT4_IOC_SHUTDOWN, &raw const no_log_flush) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    /// After [`cut_power`](Mount::cut_power): what the disk holds.
    pub fn restore_power(&self) {
        // The helper thread of a writer that has ended may hold its file for an instant more.
        crate::support::until("the file system is unmounted", || {
            Command::new("umount").arg("-q").arg(&self.dir).status().is_ok_and(|status| status.success())
        });
        run(Command::new("mount").args(["-o", "loop"]).args([&self.image(), &self.dir]));
    }

    fn image(&self) -> PathBuf {
        self.place.path().join("image")
    }

    /// A file that takes all the space that is left; removing it gives it back.
    pub fn fill(&self) -> PathBuf {
        let path = self.dir.join("filler");
        take_all_space(&path);
        path
    }

    /// Removes it; returns once the space can be had, which on ext4 is when its journal says so.
    pub fn give_back(&self, filler: &Path) {
        let _ = std::fs::remove_file(filler);
        // Twice, each with something to say: ext4 gives blocks back in the last step of a commit, for which a flush does not wait, but
        // the next commit does.
        for _ in 0..2 {
            let dir = std::fs::File::open(&self.dir).expect("the mounted directory");
            let rights = dir.metadata().expect("its rights").permissions();
            dir.set_permissions(rights).and_then(|()| dir.sync_all()).expect("to flush the directory");
        }
    }

    /// The same, but leaves `free` bytes.
    pub fn fill_but(&self, free: u64) -> PathBuf {
        let path = self.fill();
        let file = std::fs::OpenOptions::new().write(true).open(&path).expect("the filler");
        let bytes = file.metadata().expect("the filler's size").len();
        file.set_len(bytes.saturating_sub(free)).and_then(|()| file.sync_all()).expect("a smaller filler");
        path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: something of a test that failed may still be in it.
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
    }
}

/// A directory in memory, where there is plenty: a flush of a file system there waits for no disk that others use.
fn fast(bytes: u64) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let free = nix::sys::statvfs::statvfs(memory).map_or(0, |stat| stat.blocks_available() * stat.fragment_size());
    if free > 8 * bytes { memory.to_owned() } else { std::env::temp_dir() }
}

fn place() -> (TempDir, PathBuf) {
    place_in(&std::env::temp_dir())
}

fn place_in(parent: &Path) -> (TempDir, PathBuf) {
    let place = tempfile::tempdir_in(parent).expect("a temporary directory");
    let dir = place.path().join("mount");
    std::fs::create_dir(&dir).expect("a directory to mount on");
    (place, dir)
}

fn run(command: &mut Command) {
    let status = command.status().expect("mount runs");
    assert!(status.success(), "{command:?} ended with {status}");
}

/// Where the bytes of a file lie on its device: offset in the file, offset on the device, length.
fn extents(path: &Path) -> Vec<(u64, u64, u64)> {
    const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;
    const EXTENTS: usize = 64;
    const LAST: u64 = 1;
    // fm_start, fm_length, fm_flags and fm_mapped_extents, fm_extent_count and reserved; then extents of seven words.
    let mut words = [0_u64; 4 + 7 * EXTENTS];
    (words[1], words[3]) = (u64::MAX, EXTENTS as u64);
    let file = std::fs::File::open(path).expect("the file");
    // SAFETY: the kernel fills at most fm_extent_count extents of the array, which has room for them, and the descriptor is open.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP, words.as_mut_ptr()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    let mapped = (words[2] >> 32) as usize;
    let found: Vec<_> =
        words[4..4 + 7 * mapped].chunks_exact(7).map(|extent| (extent[0], extent[1], extent[2])).collect();
    assert!(mapped > 0 && words[4 + 7 * (mapped - 1) + 5] & LAST != 0, "more than {EXTENTS} extents");
    found
}

fn take_all_space(path: &Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).expect("a file that fills the disk");
    let mut piece = 1 << 20;
    while piece > 0 {
        if file.write_all(&vec![1; piece]).is_err() {
            piece /= 2;
        }
    }
}
