//! Where and when something was written: the boot of the machine and the mount of the file system. Of a file that was
//! written in the same boot through the same mount, the page cache still holds what was not flushed.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::OnceLock;

/// A boot and a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) boot_id: [u64; 2],
    /// Never given twice in one boot; 0 where the kernel (before 6.8) does not tell.
    pub(crate) mount_id: u64,
    /// Of the mounts that this process sees: in another namespace the same mount has another id. Not given twice in one boot,
    /// as its inode number is; 0 where the kernel (before 6.12) does not tell.
    pub(crate) namespace: u32,
}

impl Origin {
    /// Of this file, here and now.
    pub(crate) fn of(file: &File) -> Origin {
        Origin { boot_id: boot_id(), mount_id: mount_id(file), namespace: namespace_id() }
    }

    /// Whether it can be told at all whether `earlier` was in the same boot.
    pub(crate) fn can_be_compared_with(&self, earlier: &Origin) -> bool {
        self.boot_id != [0; 2] && earlier.boot_id != [0; 2]
    }

    /// Whether nothing tells that the page cache was lost since `earlier`. That would be a mount of the same namespace that is
    /// gone. Where it is still there, this is another one of the same file system, as by a bind; and from another namespace (a
    /// service or a container that was started anew) ids cannot be compared.
    pub(crate) fn has_kept_cache_since(&self, earlier: &Origin) -> bool {
        let remounted = self.namespace == earlier.namespace
            && self.mount_id != earlier.mount_id
            && ![self.namespace.into(), self.mount_id, earlier.mount_id].contains(&0)
            && !is_mounted(earlier.mount_id);
        self.can_be_compared_with(earlier) && self.boot_id == earlier.boot_id && !remounted
    }
}

/// Words to tell one boot of the machine from another; zeros where the system hides it. Once it is known, this cannot fail.
pub(crate) fn find_boot_id() -> io::Result<[u64; 2]> {
    static BOOT_ID: OnceLock<[u64; 2]> = OnceLock::new();
    if let Some(id) = BOOT_ID.get() {
        return Ok(*id);
    }
    let text = match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => String::new(),
        text => text?,
    };
    let number = u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap_or(0);
    Ok(*BOOT_ID.get_or_init(|| [(number >> 64) as u64, number as u64]))
}

/// The same; zeros also where it cannot be read now.
pub(crate) fn boot_id() -> [u64; 2] {
    find_boot_id().unwrap_or_default()
}

fn namespace_id() -> u32 {
    const NS_GET_MNTNS_ID: libc::c_ulong = 0x8008_b705;
    let Ok(namespace) = File::open("/proc/self/ns/mnt") else { return 0 };
    let mut id = 0u64;
    // SAFETY: the kernel writes a number of 8 bytes to a live one.
    let result = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_MNTNS_ID, &raw mut id) };
    // They are counted up from a small number, so that the low half is as good.
    if result == 0 { id as u32 } else { 0 }
}

/// Whether there is a mount of this unique id; `false` also where the kernel does not let it be found out.
fn is_mounted(mount_id: u64) -> bool {
    /// As in <linux/mount.h>; libc does not have it.
    #[repr(C)]
    struct Request {
        size: u32,
        spare: u32,
        mount_id: u64,
        wanted: u64,
    }
    const SYS_STATMOUNT: libc::c_long = 457;
    const STATMOUNT_SB_BASIC: u64 = 1;
    let request = Request { size: size_of::<Request>() as u32, spare: 0, mount_id, wanted: STATMOUNT_SB_BASIC };
    let mut answer = [0u64; 128];
    // SAFETY: the kernel reads one live request and writes at most the given number of bytes to a live buffer.
    let result =
        unsafe { libc::syscall(SYS_STATMOUNT, &raw const request, answer.as_mut_ptr(), size_of_val(&answer), 0) };
    result == 0
}

fn mount_id(file: &File) -> u64 {
    // SAFETY: statx is made of numbers, for which zeros are a value.
    let mut statx: libc::statx = unsafe { std::mem::zeroed() };
    let (empty, flags) = (c"".as_ptr(), libc::AT_EMPTY_PATH);
    // SAFETY: the name is a live string with its NUL, and the kernel writes one statx to a live one.
    let result = unsafe { libc::statx(file.as_raw_fd(), empty, flags, libc::STATX_MNT_ID_UNIQUE, &raw mut statx) };
    if result == 0 && statx.stx_mask & libc::STATX_MNT_ID_UNIQUE != 0 { statx.stx_mnt_id } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_and_a_mount_are_told_from_others() {
        let here = Origin::of(&tempfile::tempfile().unwrap());
        assert!(here.has_kept_cache_since(&here));
        assert!(!here.has_kept_cache_since(&Origin { boot_id: [1, 2], ..here }));
        let tells = here.mount_id != 0 && here.namespace != 0;
        assert_eq!(is_mounted(here.mount_id), here.mount_id != 0);
        let gone = Origin { mount_id: u64::MAX >> 1, ..here };
        assert_eq!(here.has_kept_cache_since(&gone), !tells, "mounted anew");
        assert!(here.has_kept_cache_since(&Origin { namespace: 7, ..gone }), "seen from another container");
        assert!(here.has_kept_cache_since(&Origin { namespace: 0, ..gone }), "not known from where");
        // The root of all mounts is another mount than the one that is asked for, or the same; it is there in any case.
        let root = Origin { mount_id: mount_id(&File::open("/").unwrap()), ..here };
        assert!(here.has_kept_cache_since(&root), "another mount that is still there");
    }
}
