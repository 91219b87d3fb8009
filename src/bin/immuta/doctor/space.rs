//! Free space on a file system.

use std::io;
use std::path::Path;

use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;

use super::finding::{Findings, shown};
use super::mounts::Mount;
use crate::units;

/// What is left for this user.
#[derive(Clone, Copy, Debug)]
struct Space {
    bytes: u64,
    has_inodes: bool,
}

impl Space {
    fn of(path: &Path) -> io::Result<Space> {
        let stat = statvfs(path)?;
        // Some blocks and inodes are kept for root.
        let (blocks, inodes) = match geteuid().is_root() {
            true => (stat.blocks_free(), stat.files_free()),
            false => (stat.blocks_available(), stat.files_available()),
        };
        // A file system that counts no inodes, such as btrfs, says that it has none at all.
        let has_inodes = stat.files() == 0 || inodes > 0;
        Ok(Space { bytes: blocks.saturating_mul(stat.fragment_size()), has_inodes })
    }
}

/// Whether there is space on the file system of `path` for what needs `least` bytes to work, and `enough` to work well.
pub fn examine(findings: &mut Findings, check: &'static str, path: &Path, least: u64, enough: u64, remedy: &str) {
    let space = match Space::of(path) {
        Ok(space) => space,
        Err(error) => {
            return findings.problem(check, format!("{}: {error}", shown(path)), "make the file system reachable");
        }
    };
    let place = Mount::of(path).map_or_else(|| shown(path), |mount| shown(&mount.point));
    let found = format!("{} on {place}", units::bytes(space.bytes));
    if space.bytes < least {
        findings.problem(check, format!("{found}, and {} are needed", units::bytes(least)), remedy);
    } else if !space.has_inodes {
        findings.problem(check, format!("{found}, but no inode for another file"), remedy);
    } else if space.bytes < enough {
        findings.warning(check, format!("{found}, which is little"), remedy);
    } else {
        findings.ok(check, found);
    }
}
