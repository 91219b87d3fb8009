//! A writer that is inherited by a forked child.

use std::time::{Duration, Instant};

use immuta::{Error, Writer};

use crate::{Args, listen, say};

fn refused<T>(call: &str, result: Result<T, Error>) {
    match result {
        Err(Error::Forked { .. }) => {}
        Err(other) => panic!("{call} in a forked child fails otherwise: {other}"),
        Ok(_) => panic!("{call} in a forked child succeeds"),
    }
}

/// The parent appends, forks, and goes on; `child=` says what the child does. Says `forked`, `child STATUS`, then appends what it is told.
pub fn fork(args: &Args) {
    let mut writer = args.writer().open(args.text("log")).expect("the log opens");
    writer.append(b"by the parent").expect("a record");
    // SAFETY: the child runs only code of its own, and leaves with _exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match args.text("child") {
            "calls" => calls(writer),
            "drops" => drop(writer),
            "closes" => refused("close", writer.close()),
            "opens" => opens(writer, args),
            other => panic!("no such child: {other}"),
        }));
        // SAFETY: always allowed; nothing of the parent's is flushed or dropped.
        unsafe { libc::_exit(if ran.is_ok() { 0 } else { 1 }) }
    }
    let mut status = 0;
    // SAFETY: `status` lives, and the child is ours.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child);
    say(format_args!("child {status}"));
    while let Some(line) = listen() {
        let appended = writer.append(line.as_bytes()).expect("the parent goes on");
        say(format_args!("appended {}", appended.sequence));
    }
    writer.close().expect("a clean close");
}

fn calls(mut writer: Writer) {
    refused("append", writer.append(b"by the child"));
    refused("append_from", writer.append_from(&b"by the child"[..]));
    refused("claim", writer.claim(12));
    refused("sync", writer.sync());
    refused("stat", writer.stat());
    let mut batch = writer.batch();
    refused("batch.append", batch.append(b"by the child"));
    refused("batch.commit", batch.commit());
    // Not dropped: that is another test.
    std::mem::forget(writer);
}

/// A log of the child's own, with a helper thread that keeps its heartbeat going.
fn opens(inherited: Writer, args: &Args) {
    let path = args.text("own");
    let mut own = args.writer().open(path).expect("a child's own log");
    let bytes = vec![3; 1 << 20];
    for _ in 0..40 {
        own.append(&bytes).expect("a record");
    }
    let log = std::fs::metadata(path).expect("the log's identity");
    use std::os::unix::fs::MetadataExt;
    let page = format!("{}/immuta-{}-{}", args.text("control"), log.dev(), log.ino());
    // FORMAT.md: the heartbeat is at offset 256.
    let heartbeat = || std::fs::read(&page).expect("the control page")[256..264].to_vec();
    let (first, begin) = (heartbeat(), Instant::now());
    while heartbeat() == first {
        assert!(begin.elapsed() < Duration::from_secs(20), "no helper thread runs in the child");
        std::thread::sleep(Duration::from_millis(5));
    }
    own.close().expect("a clean close");
    drop(inherited);
}
