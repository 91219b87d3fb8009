//! A log, or the directory in which it would be created.

use std::ffi::OsString;
use std::fs::Metadata;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use immuta::survey;
use nix::unistd::geteuid;

use super::finding::{Findings, quoted, shown};
use super::mounts::{Kind, Mount};
use super::{logrotate, rights, space, writer};

/// Without this much, nothing can be appended, in bytes.
const SPACE_LEAST: u64 = 64 << 10;
/// What a writer of a large log keeps ready ahead, twice, in bytes.
const SPACE_ENOUGH: u64 = 64 << 20;

pub fn examine(findings: &mut Findings, log: &Path, etc: &Path) {
    let directory = directory_of(log);
    match log.metadata() {
        Ok(metadata) if metadata.is_file() => existing(findings, log, &metadata, &directory),
        Ok(_) => {
            let found = format!("{} is not an ordinary file, and a log is one", shown(log));
            return findings.problem("log", found, "name another file");
        }
        Err(error) if error.kind() == ErrorKind::NotFound && !log.is_symlink() => {
            if !missing(findings, log, &directory) {
                return;
            }
        }
        Err(error) if log.is_symlink() => {
            let found = format!("{} is a link that leads nowhere: {error}", shown(log));
            return findings.problem(
                "log",
                found,
                "make the directory or the file that it leads to, or remove the link",
            );
        }
        Err(error) => {
            let found = format!("{}: {error}", shown(log));
            return findings.problem("log", found, format!("let user {} search the directories above it", geteuid()));
        }
    }
    side_files(findings, log, &directory);
    logrotate::examine(findings, log, etc);
}

fn directory_of(log: &Path) -> PathBuf {
    match log.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => ".".into(),
    }
}

fn existing(findings: &mut Findings, log: &Path, metadata: &Metadata, directory: &Path) {
    file_system(findings, log);
    free_space(findings, log);
    let alive = survey::is_written(log).unwrap_or(false);
    let readable = rights::examine(findings, log, metadata, alive);
    rights::directory(findings, directory, false);
    if readable {
        writer::examine(findings, log, metadata);
    }
}

/// Whether the directory is there.
fn missing(findings: &mut Findings, log: &Path, directory: &Path) -> bool {
    let (name, place) = (shown(log), shown(directory));
    match directory.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            findings.ok("log", format!("{name} does not exist yet; a writer would create it in {place}"));
            file_system(findings, directory);
            free_space(findings, directory);
            rights::directory(findings, directory, true);
            true
        }
        Ok(_) => {
            findings.problem("log", format!("{name} cannot be created: {place} is no directory"), "name another place");
            false
        }
        Err(error) => {
            let found = format!("{name} cannot be created: {place}: {error}");
            findings.problem("log", found, format!("mkdir -p {}", quoted(directory)));
            false
        }
    }
}

fn free_space(findings: &mut Findings, path: &Path) {
    let remedy =
        "free some space, or put the log elsewhere: a full disk is an error of append, and what was published stays";
    space::examine(findings, "free_space", path, SPACE_LEAST, SPACE_ENOUGH, remedy);
}

fn file_system(findings: &mut Findings, path: &Path) {
    let check = "file_system";
    let reserves = match survey::keeps_reserved_space(path) {
        Ok(reserves) => reserves,
        Err(error) => return findings.problem(check, format!("{}: {error}", shown(path)), "make it reachable"),
    };
    let Some(mount) = Mount::of(path) else {
        return findings.warning(check, "unknown: /proc/self/mountinfo cannot be read", "mount /proc");
    };
    let (name, slower) = (&mount.kind, "records are written and read by system calls, more slowly");
    let local = "put the log on a local ext4, XFS, F2FS or tmpfs";
    match mount.kind() {
        Kind::Memory => {
            let found = format!("{name}, in memory: the log is gone when the machine stops, synced or not");
            findings.warning(check, found, "put a log that must survive on a disk");
        }
        _ if reserves => findings.ok(check, format!("{name}, which keeps reserved space")),
        Kind::CopyOnWrite => {
            let found = format!("{name} copies on write and keeps no reserved space: {slower}");
            findings.warning(check, found, format!("{local}, where speed counts"));
        }
        Kind::Network => {
            let found =
                format!("{name}, a network file system: followers on other machines may see old bytes, and {slower}");
            findings.warning(check, found, format!("{local}; immuta is for the processes of one machine"));
        }
        Kind::Host => {
            let found =
                format!("{name}, shared with a host: neither its mappings nor its locks are promised, and {slower}");
            findings.warning(check, found, local);
        }
        Kind::Fuse => {
            let found = format!("{name}, by FUSE, which promises neither mappings nor locks: {slower}");
            findings.warning(check, found, local);
        }
        Kind::Overlay => overlay(findings, check, path, &mount, slower),
        Kind::Other => findings.warning(check, format!("{name}, of which nothing is known: {slower}"), local),
    }
}

fn overlay(findings: &mut Findings, check: &'static str, path: &Path, mount: &Mount, slower: &str) {
    let remedy = "put the log on a volume, or on a bind mount of a local file system";
    let layer = match mount.is_in_lower_layer(path) {
        _ if path.is_dir() => "the log is gone with the container",
        Some(true) => {
            "the log lies in a lower layer: the first writer copies it up, and who has it open goes on seeing the old file"
        }
        Some(false) => "the log lies in the upper layer, and is gone with the container",
        None => {
            "where the log lies in a lower layer (an image), the first writer copies it up, and who has it open \
             goes on seeing the old file"
        }
    };
    findings.warning(check, format!("overlay: {layer}; {slower}"), remedy);
}

/// What recovery set aside.
fn side_files(findings: &mut Findings, log: &Path, directory: &Path) {
    let Some(name) = log.file_name() else { return };
    let mut prefix = OsString::from(name);
    prefix.push(".lost-");
    let is_side_file = |name: &OsString| name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).filter(is_side_file).collect();
    names.sort();
    for name in names {
        let path = directory.join(name);
        let found = format!("{}: bytes that recovery took out of the log after a crash", shown(&path));
        findings.warning("side_files", found, format!("look whether they are needed, then rm {}", quoted(&path)));
    }
}
