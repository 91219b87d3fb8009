//! What this process, and with it a writer or reader that is started in the same way, may use; what the kernel has.

use immuta::survey;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::finding::Findings;
use crate::units;

/// Descriptors without which nothing can be opened, and with which there is room for a program's own.
const DESCRIPTORS_LEAST: u64 = 16;
const DESCRIPTORS_ENOUGH: u64 = 64;

pub fn examine(findings: &mut Findings, log_bytes: u64) {
    descriptors(findings);
    file_size(findings, log_bytes);
    address_space(findings);
    kernel(findings);
}

/// The soft limit, where there is one.
fn limit(resource: Resource) -> Option<u64> {
    getrlimit(resource).ok().map(|(soft, _)| soft).filter(|soft| *soft != RLIM_INFINITY)
}

fn descriptors(findings: &mut Findings) {
    let check = "descriptors";
    let Some(limit) = limit(Resource::RLIMIT_NOFILE) else { return findings.ok(check, "unlimited (ulimit -n)") };
    let found = format!("{limit} (ulimit -n); a reader holds at most 10");
    let remedy = "raise it: ulimit -n 1024, LimitNOFILE= of a systemd unit, or fewer by ReaderOptions::descriptors";
    match limit {
        0..DESCRIPTORS_LEAST => findings.problem(check, found, remedy),
        DESCRIPTORS_LEAST..DESCRIPTORS_ENOUGH => findings.warning(check, found, remedy),
        _ => findings.ok(check, found),
    }
}

fn file_size(findings: &mut Findings, log_bytes: u64) {
    let check = "file_size";
    let Some(limit) = limit(Resource::RLIMIT_FSIZE) else { return findings.ok(check, "unlimited (ulimit -f)") };
    let found = format!("a file may have {} (ulimit -f)", units::bytes(limit));
    let remedy = "ulimit -f unlimited, or LimitFSIZE=infinity of a systemd unit";
    // A control page is a file as well.
    if limit <= log_bytes.max(survey::CONTROL_BYTES) {
        findings.problem(check, format!("{found}: nothing could be appended"), remedy);
    } else {
        findings.warning(check, format!("{found}: no log can grow beyond"), remedy);
    }
}

fn address_space(findings: &mut Findings) {
    let (check, window) = ("address_space", survey::WINDOW_BYTES);
    match limit(Resource::RLIMIT_AS) {
        None => findings.ok(check, "unlimited (ulimit -v)"),
        Some(limit) if limit > 2 * window => findings.ok(check, format!("{} (ulimit -v)", units::bytes(limit))),
        Some(limit) => findings.warning(
            check,
            format!(
                "{} (ulimit -v): the window of {} is halved until it fits, and moved more often",
                units::bytes(limit),
                units::bytes(window)
            ),
            "ulimit -v unlimited, LimitAS=infinity of a systemd unit, or a small window by WriterOptions::window",
        ),
    }
}

fn kernel(findings: &mut Findings) {
    let check = "kernel";
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let (name, has) = (format!("Linux {}", release.trim()), survey::kernel());
    let remedy = |version| format!("Linux {version} or later, or a sandbox (seccomp) that allows the call");
    if !has.futex_waitv {
        let found = format!("{name} has no futex_waitv here: a Stopper ends a wait after up to 200 ms, not at once");
        findings.warning(check, found, remedy("5.16"));
    }
    if !has.populate_write {
        let found = format!(
            "{name} has no MADV_POPULATE_WRITE here: the first append after a flush takes longer, and followers copy what they read"
        );
        findings.warning(check, found, remedy("5.14"));
    }
    if has.futex_waitv && has.populate_write {
        findings.ok(check, format!("{name} has futex_waitv and MADV_POPULATE_WRITE"));
    }
}
