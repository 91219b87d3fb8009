//! Who may read and write a log, and create files beside it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, eaccess, geteuid};

use super::finding::{Findings, quoted, shown};

/// The log itself; `alive` where a writer has it. Returns whether this user may read it.
pub fn examine(findings: &mut Findings, log: &Path, metadata: &Metadata, alive: bool) -> bool {
    let check = "permissions";
    let (user, owner, mode) = (geteuid(), metadata.uid(), metadata.mode() & 0o7777);
    let found = format!("{} is of user {owner}, mode {mode:04o}", shown(log));
    if eaccess(log, AccessFlags::R_OK).is_err() {
        let remedy = format!(
            "as its owner: chmod o+r {0}, or chgrp it to a group of user {user} and chmod g+r {0}",
            quoted(log)
        );
        findings.problem(check, format!("{found}: user {user} cannot read it, so neither follow nor append"), remedy);
        return false;
    }
    let writable = eaccess(log, AccessFlags::W_OK);
    match writable {
        Ok(()) if mode & 0o002 != 0 => {
            let found = format!("{found}: anybody may cut it, which ends with SIGBUS whoever has it mapped");
            findings.warning(check, found, format!("chmod o-w {}", quoted(log)));
        }
        Ok(()) if owner != user.as_raw() && !user.is_root() => {
            let found = format!(
                "{found}: a writer of user {user} has no control page, as only the owner's and root's are believed"
            );
            findings.warning(check, found, format!("append as user {owner}"));
        }
        Ok(()) => findings.ok(check, format!("{found}: user {user} may follow and append")),
        Err(_) if alive => findings.ok(check, format!("{found}: user {user} may follow it")),
        Err(error) => {
            let (why, remedy) = why_not(error, log, owner);
            findings.problem(check, format!("{found}: user {user} may follow it, but not append: {why}"), remedy);
        }
    }
    true
}

/// The directory of the log: for the index and the side files, or for the log itself, where it is `missing`.
pub fn directory(findings: &mut Findings, directory: &Path, missing: bool) {
    let check = "directory";
    let (user, name) = (geteuid(), shown(directory));
    let Err(error) = eaccess(directory, AccessFlags::W_OK | AccessFlags::X_OK) else {
        return findings.ok(check, format!("user {user} may create files in {name}"));
    };
    let owner = directory.metadata().map_or(0, |metadata| metadata.uid());
    let (why, remedy) = why_not(error, directory, owner);
    if missing {
        findings.problem(check, format!("user {user} cannot create the log in {name}: {why}"), remedy);
    } else {
        let found =
            format!("user {user} can create neither an index nor side files in {name}, as a writer would: {why}");
        findings.warning(check, found, remedy);
    }
}

fn why_not(error: Errno, path: &Path, owner: u32) -> (&'static str, String) {
    let remedy = match error {
        Errno::EROFS => "mount the file system for writing (mount -o remount,rw), or put the log elsewhere".to_owned(),
        Errno::EPERM => format!("as root: chattr -i {}", quoted(path)),
        _ => format!("append as user {owner}, or as the owner: chmod g+w {} for a group of writers", quoted(path)),
    };
    (error.desc(), remedy)
}
