//! Who is writing a log, its control page and doorbell, what a dead writer left in it.

use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use immuta::survey::{self, Doubt, PageContent, PageReport};
use immuta::{Error, Reader, Stat, WriterState};
use nix::unistd::geteuid;

use super::finding::{Findings, quoted, shown};
use crate::units;

const INTERVALS: &str = "followers look at the file, within 50 ms";

pub fn examine(findings: &mut Findings, log: &Path, metadata: &Metadata) {
    let stat = match Reader::open(log).and_then(|reader| reader.stat()) {
        Ok(stat) => stat,
        Err(Error::Damaged { position, message, .. }) => {
            let found = format!("{} is damaged at position {position}: {message}", shown(log));
            return findings.problem(
                "log",
                found,
                format!("immuta verify {0}, then immuta repair --dry-run {0}", quoted(log)),
            );
        }
        Err(error) => return findings.problem("log", error.to_string(), "see what the error says"),
    };
    let size = units::bytes(stat.file_bytes);
    findings.ok("log", format!("{}: records {}, size {size}", shown(log), units::grouped(stat.records)));
    writer(findings, log, metadata, &stat);
    match survey::control_page(log) {
        Ok(report) => control_page(findings, metadata, &report, &stat),
        Err(error) => findings.problem("control_page", error.to_string(), "see what the error says"),
    }
}

fn writer(findings: &mut Findings, log: &Path, metadata: &Metadata, stat: &Stat) {
    let check = "writer";
    if stat.writer != WriterState::Alive
        && let Some(pid) = survey::flock_holder(metadata)
    {
        let found =
            format!("process {pid} holds the flock of {} without being its writer: no writer can start", shown(log));
        return findings.problem(
            check,
            found,
            format!("see what it is (ps {pid}) and end it, or have it close the file"),
        );
    }
    match stat.writer {
        WriterState::Alive => {
            let process =
                stat.pid.map_or_else(|| "a process whose id is hidden".to_owned(), |pid| format!("process {pid}"));
            findings.ok(check, format!("{process} writes it"));
        }
        WriterState::Closed => findings.ok(check, "none; the last one closed it"),
        WriterState::Failed => findings.problem(
            check,
            "it could not flush the log to the disk, and has ended itself",
            "look at the disk (dmesg), end the writer's process, and open the log anew",
        ),
        _ => {
            let tail = units::bytes(stat.file_bytes.saturating_sub(stat.end));
            let found = format!("none; the last one died, and left {tail} behind the end, which are no records");
            let remedy = format!(
                "open it with a writer, which cuts them: immuta append {} </dev/null (until then, \
                 keep programs off it that take a file's size for its end)",
                quoted(log)
            );
            findings.warning(check, found, remedy);
        }
    }
}

fn control_page(findings: &mut Findings, log: &Metadata, report: &PageReport, stat: &Stat) {
    let check = "control_page";
    let alive = stat.writer == WriterState::Alive;
    let PageReport { page, doorbell, says, .. } = report;
    let (name, user) = (shown(page), geteuid());
    if let Some((what, remedy)) = [page, doorbell].iter().find_map(|path| obstacle(path, log, alive)) {
        let found = format!("{what}: the next writer has no control page, and {INTERVALS}");
        return findings.problem(check, found, remedy);
    }
    let next = format!("nothing: the next writer replaces it; or rm {} {}", quoted(page), quoted(doorbell));
    let restart =
        "start followers and writer with the same IMMUTA_CONTROL_DIR; if the page was deleted, start the writer anew";
    let stale = |why: &str| format!("{name} is stale, {why}");
    let why = match says {
        Ok(content) if alive => return live_page(findings, report, content),
        Ok(content) => {
            let process = content.pid.map_or_else(String::new, |pid| format!(", process {pid}"));
            return findings.warning(check, format!("{name} is left of a dead writer{process}"), next);
        }
        Err(Doubt::Missing) if alive => {
            return findings.warning(check, format!("the writer has none under {name}: {INTERVALS}"), restart);
        }
        Err(Doubt::Missing) => return findings.ok(check, format!("none under {name}, as nobody writes")),
        Err(Doubt::Refused(error)) => {
            let found = format!("user {user} cannot use {name} ({error}): {INTERVALS}");
            return findings.warning(
                check,
                found,
                "give the log the read bits that its followers need, and start the writer anew",
            );
        }
        Err(Doubt::Layout) => {
            let found = format!("{name} was made by another version of immuta: {INTERVALS}");
            return findings.warning(check, found, "use one version of immuta for the writer and its followers");
        }
        Err(Doubt::NoPage) => format!("{name} does not hold a control page"),
        Err(Doubt::Owner) => format!("{name} belongs to neither the log's owner nor root"),
        Err(Doubt::Boot) => stale("of before the machine was started"),
        Err(Doubt::Log) => stale("of an earlier file"),
        Err(Doubt::Beyond) => stale("and says more than the log"),
        Err(_) => format!("{name} is not believed"),
    };
    if alive {
        findings.warning(check, format!("{why}: {INTERVALS}"), restart);
    } else {
        findings.warning(check, why, next);
    }
}

/// What has the name of a control file and cannot be replaced by a writer of this user.
fn obstacle(path: &Path, log: &Metadata, alive: bool) -> Option<(String, String)> {
    let metadata = match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            return Some((format!("{}: {error}", shown(path)), "make the control directory searchable".to_owned()));
        }
        Ok(metadata) => metadata,
    };
    let (owner, mode, user) = (metadata.uid(), metadata.mode() & 0o7777, geteuid().as_raw());
    // In a directory with the sticky bit, what root's writer left can be replaced by root alone.
    let sticky =
        path.parent().and_then(|directory| directory.metadata().ok()).is_some_and(|at| at.mode() & 0o1000 != 0);
    let stuck = owner == 0 && user != 0 && sticky && !alive;
    if metadata.is_file() && [user, log.uid(), 0].contains(&owner) && !stuck {
        return None;
    }
    let kind = if metadata.is_file() { "a file" } else { "no ordinary file" };
    let what = format!("the name {} is taken by {kind} of user {owner}, mode {mode:04o}", shown(path));
    Some((what, format!("as user {owner} or root, look what it is and remove it: {}", quoted(path))))
}

fn live_page(findings: &mut Findings, report: &PageReport, content: &PageContent) {
    let name = shown(&report.page);
    let process = content.pid.map_or_else(|| "the writer".to_owned(), |pid| format!("the writer, process {pid},"));
    if content.heartbeat_is_old {
        let age = content.heartbeat_age.as_secs();
        findings.warning(
            "control_page",
            format!("{name}: {process} holds its lock and has shown no life for {age} s"),
            "see whether it was stopped (fg, kill -CONT), or died while a child that it forked keeps the lock (end the child)",
        );
    } else {
        findings.ok("control_page", format!("{name} is of {process} and believed"));
    }
    doorbell(findings, &report.doorbell, content);
}

fn doorbell(findings: &mut Findings, path: &Path, content: &PageContent) {
    let (check, name, user) = ("doorbell", shown(path), geteuid());
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) => {
            let found = format!("{name}: {error}: followers are not woken, they look every 0.2 to 10 ms");
            return findings.warning(check, found, "start the writer anew");
        }
    };
    let whose = format!("{name} is of user {}, mode {:04o}", metadata.uid(), metadata.mode() & 0o7777);
    if metadata.mode() & 0o002 != 0 {
        let found = format!("{whose}: anybody may cut it, which ends the writer with SIGBUS");
        findings.warning(check, found, format!("chmod o-w {}, and open it to a group at most", quoted(path)));
    } else if content.has_doorbell {
        findings.ok(check, format!("{name}: followers of user {user} are woken"));
    } else {
        let found = format!("{whose}: followers of user {user} are not woken by it, they look every 0.2 to 10 ms");
        findings.warning(
            check,
            found,
            "follow as the writer's user, or open it to a group (WriterOptions::doorbell_mode)",
        );
    }
}
