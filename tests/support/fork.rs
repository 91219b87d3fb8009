//! A writer that is inherited by a forked child.

use std::io::Read;
use std::time::{Duration, Instant};

use immuta::{Error, Writer};

use crate::follow::held;
use crate::{Args, listen, say};

fn refused<T>(call: &str, result: Result<T, Error>) {
    match result {
        Err(Error::Forked { .. }) => {}
        Err(other) => panic!("{call} in a forked child fails otherwise: {other}"),
        Ok(_) => panic!("{call} in a forked child succeeds"),
    }
}

/// Forks a child that does `work` and leaves with 0, or with 1 where that panics; returns its id.
fn forked(work: impl FnOnce()) -> i32 {
    // SAFETY: the child runs only code of its own, and leaves with _exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        // SAFETY: always allowed; nothing of the parent's is flushed or dropped.
        unsafe { libc::_exit(if ran.is_ok() { 0 } else { 1 }) }
    }
    child
}

/// How the child has ended.
fn status_of(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` lives, and the child is ours.
    let waited = unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(waited, child);
    status
}

fn writer_of(inherited: &mut Option<Writer>) -> Writer {
    inherited.take().expect("the child has inherited it")
}

/// The parent appends, forks, and goes on; `child=` says what the child does. Says `child STATUS`, then appends what it is told.
/// With `stays=` the child says `left PID DESCRIPTORS` and goes on until the end of input.
pub fn fork(args: &Args) {
    let mut writer = args.writer().open(args.text("log")).expect("the log opens");
    writer.append(b"by the parent").expect("a record");
    let mut writer = Some(writer);
    let child = forked(|| {
        match args.text("child") {
            "calls" => calls(writer_of(&mut writer)),
            "drops" => drop(writer_of(&mut writer)),
            "closes" => refused("close", writer_of(&mut writer).close()),
            "opens" => opens(writer_of(&mut writer), args),
            other => panic!("no such child: {other}"),
        }
        if args.has("stays") {
            say(format_args!("left {} {}", std::process::id(), held(args.text("log"))));
            while listen().is_some() {}
        }
    });
    let mut writer = writer.expect("the parent has it");
    say(format_args!("child {}", status_of(child)));
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

/// The parent has a claim when it forks; the child tries to change it. Says `child STATUS`; the parent commits.
pub fn fork_with_claim(args: &Args) {
    let mut writer = args.writer().open(args.text("log")).expect("the log opens");
    let mut claim = writer.claim(13).expect("space");
    claim.copy_from_slice(b"by the parent");
    let mut claim = Some(claim);
    let child = forked(|| {
        let mut claim = claim.take().expect("the child has inherited it");
        assert_eq!(&claim[..], b"by the parent");
        std::panic::set_hook(Box::new(|_| {}));
        let changes = std::panic::AssertUnwindSafe(|| claim.copy_from_slice(b"by the child "));
        let panic = std::panic::catch_unwind(changes).expect_err("a claim changes nothing in a forked child");
        assert!(panic.downcast_ref::<&str>().is_some_and(|message| message.contains("forked child")));
        refused("claim.commit", claim.commit());
    });
    say(format_args!("child {}", status_of(child)));
    claim.expect("the parent has it").commit().expect("a record");
    writer.close().expect("a clean close");
}

/// A source that forks at its first read: the child goes on within `append_from`.
struct Forks {
    child: Option<i32>,
    given: bool,
}

impl Read for Forks {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.child.is_none() {
            // SAFETY: the child runs only code of its own, and leaves with _exit.
            self.child = Some(unsafe { libc::fork() });
        }
        if std::mem::replace(&mut self.given, true) || self.child != Some(0) {
            return Ok(0);
        }
        into[..5].copy_from_slice(b"child");
        Ok(5)
    }
}

/// Forks while it appends from a source. Says `child STATUS`: 0 where the child could not publish.
pub fn fork_in_source(args: &Args) {
    let mut writer = args.writer().open(args.text("log")).expect("the log opens");
    let mut source = Forks { child: None, given: false };
    let appended = writer.append_from(&mut source);
    if source.child == Some(0) {
        let refused = matches!(appended, Err(Error::Forked { .. }));
        // SAFETY: always allowed; nothing of the parent's is flushed or dropped.
        unsafe { libc::_exit(if refused { 0 } else { 1 }) }
    }
    appended.expect("an empty record");
    say(format_args!("child {}", status_of(source.child.expect("it was read"))));
    writer.close().expect("a clean close");
}
