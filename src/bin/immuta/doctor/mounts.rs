//! What is mounted where, as /proc/self/mountinfo says.

use std::path::{Path, PathBuf};

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// "254:1"
    device: String,
    /// The directory of the file system that is mounted.
    root: PathBuf,
    pub point: PathBuf,
    /// "ext4", "fuse.sshfs"
    pub kind: String,
    options: String,
}

/// How well a log does on a kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Memory,
    CopyOnWrite,
    Network,
    /// Of a host that this machine is a guest of.
    Host,
    Fuse,
    Overlay,
    Other,
}

impl Mount {
    /// The one that `path`, which exists, lies on.
    pub fn of(path: &Path) -> Option<Mount> {
        let path = path.canonicalize().ok()?;
        covering(all(), &path)
    }

    /// The first that shows a file system, by the device that stat(2) tells of its files.
    pub fn of_device(device: u64) -> Option<Mount> {
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        all().into_iter().find(|mount| mount.device == format!("{major}:{minor}"))
    }

    pub fn kind(&self) -> Kind {
        match self.kind.as_str() {
            "tmpfs" | "ramfs" => Kind::Memory,
            "btrfs" | "zfs" | "bcachefs" => Kind::CopyOnWrite,
            "9p" | "virtiofs" | "vboxsf" => Kind::Host,
            "cifs" | "smb3" | "ceph" | "afs" | "lustre" | "gfs2" | "ocfs2" => Kind::Network,
            "overlay" => Kind::Overlay,
            kind if kind.starts_with("nfs") => Kind::Network,
            kind if kind.starts_with("fuse") => Kind::Fuse,
            _ => Kind::Other,
        }
    }

    /// Whether `path`, on this overlayfs, lies in a lower layer; `None` where the upper layer cannot be seen from here.
    pub fn is_in_lower_layer(&self, path: &Path) -> Option<bool> {
        let upper = PathBuf::from(self.options.split(',').find_map(|option| option.strip_prefix("upperdir="))?);
        let path = path.canonicalize().ok()?;
        let inside = self.root.join(path.strip_prefix(&self.point).ok()?);
        upper.is_dir().then(|| upper.join(inside.strip_prefix("/").unwrap_or(&inside)).symlink_metadata().is_err())
    }
}

fn all() -> Vec<Mount> {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(parse).collect()
}

/// "36 35 98:0 /root /mount mount-options optional… - type source options"
fn parse(line: &str) -> Option<Mount> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut words = mount.split(' ').skip(2);
    let (device, root, point) = (words.next()?, words.next()?, words.next()?);
    let mut words = file_system.split(' ');
    let (kind, options) = (words.next()?, words.nth(1).unwrap_or_default());
    let (root, point) = (unescape(root).into(), unescape(point).into());
    Some(Mount { device: device.into(), root, point, kind: kind.into(), options: unescape(options) })
}

/// Blanks and backslashes are written as three octal digits.
fn unescape(text: &str) -> String {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.iter().fold(text.to_owned(), |text, (code, character)| text.replace(code, character))
}

/// The longest mount point above a path; of those mounted over each other, the last.
fn covering(mounts: Vec<Mount>, path: &Path) -> Option<Mount> {
    mounts
        .into_iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:20 / /dev/shm rw,nosuid shared:3 - tmpfs tmpfs rw
23 21 0:41 / /mnt/my\\040disk rw - fuse.sshfs host:/ rw,user_id=0
24 21 0:42 / /mnt/my\\040disk rw - nfs4 host:/ rw
25 21 0:43 /sub /layers rw - overlay overlay rw,lowerdir=/a,upperdir=/b,workdir=/c";

    #[test]
    fn a_path_lies_on_the_mount_with_the_longest_name() {
        let mounts: Vec<_> = LINES.lines().filter_map(parse).collect();
        let of = |path: &str| covering(mounts.clone(), Path::new(path)).unwrap();
        assert_eq!((of("/tmp/log").kind(), of("/tmp/log").kind.as_str()), (Kind::Other, "ext4"));
        assert_eq!(of("/dev/shm/x").kind(), Kind::Memory);
        assert_eq!(of("/dev/shmx").kind(), Kind::Other);
        assert_eq!(of("/mnt/my disk/log").kind(), Kind::Network);
        assert_eq!(mounts[2].kind(), Kind::Fuse);
        assert_eq!((of("/layers/x").kind(), of("/layers/x").root), (Kind::Overlay, "/sub".into()));
    }
}
