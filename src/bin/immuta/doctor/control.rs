//! The control directory, what dead writers left in it, and who else might empty it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use immuta::survey::{self, ControlFiles, Leftover};
use nix::unistd::{AccessFlags, eaccess, geteuid};

use super::finding::{Findings, quoted, shown};
use super::mounts::{Kind, Mount};
use super::space;
use crate::units;

/// What is enough for the pages of some dozens of logs, in bytes.
const SPACE_ENOUGH: u64 = 1 << 20;
/// Ids below are those of the system's own users, whose files systemd leaves alone.
const ORDINARY_USER_LEAST: u32 = 1000;
/// The user of those who have no other.
const NOBODY: u32 = 65534;

const CHECK: &str = "control_directory";

/// `log` is the log that is looked at later, if there is one.
pub fn examine(findings: &mut Findings, log: Option<&Metadata>, etc: &Path) {
    let directory = survey::control_dir();
    let name = shown(&directory);
    let elsewhere = "or choose another with IMMUTA_CONTROL_DIR, the same for the writer and its followers";
    match directory.metadata() {
        Err(error) => {
            let found = format!("{name}: {error}, so writers have no control page and followers look at intervals");
            return findings.problem(
                CHECK,
                found,
                format!("create it: mkdir -m 1777 {}, {elsewhere}", quoted(&directory)),
            );
        }
        Ok(metadata) if !metadata.is_dir() => {
            let found =
                format!("{name} is no directory, so writers have no control page and followers look at intervals");
            return findings.problem(CHECK, found, format!("move it out of the way and make a directory, {elsewhere}"));
        }
        Ok(metadata) => rights(findings, &directory, &metadata, elsewhere),
    }
    file_system(findings, &directory);
    let remedy = format!("remove what is not needed, make it larger (mount -o remount,size=…), {elsewhere}");
    space::examine(findings, "control_directory_space", &directory, survey::CONTROL_BYTES, SPACE_ENOUGH, &remedy);
    leftovers(findings, &directory, log);
    container(findings, &directory);
    logout(findings, &directory, log.map_or(geteuid().as_raw(), Metadata::uid), etc);
}

fn rights(findings: &mut Findings, directory: &Path, metadata: &Metadata, elsewhere: &str) {
    let (user, mode, owner) = (geteuid(), metadata.mode() & 0o7777, metadata.uid());
    let found = format!("{}, of user {owner}, mode {mode:04o}", shown(directory));
    if let Err(error) = eaccess(directory, AccessFlags::W_OK | AccessFlags::X_OK) {
        let found =
            format!("{found}: user {user} can create nothing there ({}): its logs have no control page", error.desc());
        findings.problem(CHECK, found, format!("chmod 1777 {}, {elsewhere}", quoted(directory)));
    } else if mode & 0o1002 == 0o002 {
        let found = format!("{found}: without the sticky bit anybody can remove or replace a control page");
        findings.warning(CHECK, found, format!("chmod +t {}", quoted(directory)));
    } else {
        findings.ok(CHECK, found);
    }
}

fn file_system(findings: &mut Findings, directory: &Path) {
    let check = "control_directory_file_system";
    let Some(mount) = Mount::of(directory) else {
        return findings.warning(check, "unknown: /proc/self/mountinfo cannot be read", "mount /proc");
    };
    let remedy = "use a directory on tmpfs, such as /dev/shm, or mount -t tmpfs one";
    match mount.kind() {
        Kind::Memory => findings.ok(check, mount.kind),
        Kind::Network | Kind::Host | Kind::Fuse => {
            let found = format!(
                "{}: processes of other machines cannot be woken by it, and wait for its writer in vain",
                mount.kind
            );
            findings.warning(check, found, remedy);
        }
        _ => {
            let found = format!(
                "{}: the kernel writes control pages to the disk, and stores into them wait for that",
                mount.kind
            );
            findings.warning(check, found, remedy);
        }
    }
}

fn leftovers(findings: &mut Findings, directory: &Path, log: Option<&Metadata>) {
    let check = "leftovers";
    let ControlFiles { live, unknown, leftovers, .. } = match survey::control_files(directory) {
        Ok(files) => files,
        Err(error) => {
            let found = format!("{} cannot be listed: {error}", shown(directory));
            return findings.warning(check, found, format!("chmod a+r {}, or run this as root", quoted(directory)));
        }
    };
    // Those of the log itself are looked at with it.
    let is_of_log =
        |leftover: &Leftover| log.is_some_and(|log| (log.dev(), log.ino()) == (leftover.device, leftover.inode));
    let others: Vec<_> = leftovers.iter().filter(|leftover| !is_of_log(leftover)).collect();
    others.iter().for_each(|leftover| leftovers_of(findings, check, leftover));
    if others.is_empty() {
        let hidden = if unknown > 0 { format!(", that this user cannot judge: {unknown}") } else { String::new() };
        findings.ok(check, format!("none; logs with a live writer: {live}{hidden}"));
    }
}

fn leftovers_of(findings: &mut Findings, check: &'static str, leftover: &Leftover) {
    let Leftover { device, inode, pid, files, .. } = leftover;
    let names: Vec<_> =
        files.iter().map(|(path, bytes)| format!("{} ({})", shown(path), units::bytes(*bytes))).collect();
    let process = pid.map_or_else(String::new, |pid| format!(", process {pid},"));
    let found = format!("{}: the writer{process} of inode {inode} on device {device} died", names.join(", "));
    let paths: Vec<_> = files.iter().map(|(path, _)| quoted(path)).collect();
    let find = Mount::of_device(*device)
        .map_or_else(String::new, |mount| format!(" (find {} -xdev -inum {inode} names it)", quoted(&mount.point)));
    findings.warning(
        check,
        found,
        format!("open the log{find} with a writer, or, where it is gone: rm {}", paths.join(" ")),
    );
}

/// A container's /dev/shm is its own, and nobody else sees the pages in it.
fn container(findings: &mut Findings, directory: &Path) {
    let signs = ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"];
    let in_container = signs.iter().any(|sign| Path::new(sign).exists()) || std::env::var_os("container").is_some();
    if in_container && directory.starts_with("/dev/shm") {
        findings.warning(
            "container",
            "this is a container, whose /dev/shm is its own: followers in other \
             containers, and on the host, look at intervals",
            "where there are such followers, share a tmpfs and name it in IMMUTA_CONTROL_DIR, or share \
             /dev/shm (docker run --ipc)",
        );
    }
}

/// systemd deletes an ordinary user's files in /dev/shm when the user logs out.
fn logout(findings: &mut Findings, directory: &Path, user: u32, etc: &Path) {
    let ordinary = user >= ORDINARY_USER_LEAST && user != NOBODY;
    if ordinary && directory.starts_with("/dev/shm") && Path::new("/run/systemd/system").exists() && removes_ipc(etc) {
        findings.warning(
            "logout",
            format!(
                "systemd deletes the files of user {user} in /dev/shm when it logs out, and a writer that \
                 goes on loses its control page"
            ),
            format!(
                "RemoveIPC=no in {}, or loginctl enable-linger, or a user of the system (below \
                 {ORDINARY_USER_LEAST}) for writers",
                shown(&etc.join("systemd/logind.conf"))
            ),
        );
    }
}

/// What systemd's logind is told; yes if nothing.
fn removes_ipc(etc: &Path) -> bool {
    let mut files: Vec<PathBuf> = std::fs::read_dir(etc.join("systemd/logind.conf.d"))
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    files.sort();
    files.insert(0, etc.join("systemd/logind.conf"));
    let text: Vec<String> = files.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
    let mut values =
        text.iter().flat_map(|text| text.lines()).filter_map(|line| line.trim().strip_prefix("RemoveIPC="));
    values
        .next_back()
        .is_none_or(|value| !["no", "false", "0", "off"].contains(&value.trim().to_ascii_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_ipc_counts() {
        let etc = tempfile::tempdir().unwrap();
        assert!(removes_ipc(etc.path()));
        let parts = etc.path().join("systemd/logind.conf.d");
        std::fs::create_dir_all(&parts).unwrap();
        std::fs::write(etc.path().join("systemd/logind.conf"), "[Login]\n#RemoveIPC=yes\nRemoveIPC=no\n").unwrap();
        assert!(!removes_ipc(etc.path()));
        std::fs::write(parts.join("10.conf"), "[Login]\nRemoveIPC=yes\n").unwrap();
        std::fs::write(parts.join("20.ignored"), "[Login]\nRemoveIPC=no\n").unwrap();
        assert!(removes_ipc(etc.path()));
    }
}
