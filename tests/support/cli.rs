//! The built `immuta`, run in a log's directory with a control directory of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{LIMIT, Log, bounded, skip};

/// `immuta` with these arguments, not started yet.
pub fn immuta(log: &Log, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_immuta"));
    command.args(args).current_dir(log.dir.path()).env("IMMUTA_CONTROL_DIR", &log.control);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to its end, with this on standard input.
pub fn run_with(log: &Log, args: &[&str], input: &[u8]) -> Output {
    let mut child = immuta(log, args).stdin(Stdio::piped()).spawn().expect("immuta starts");
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // It may end without having read all; that is for the test to judge by what it says.
    std::thread::spawn(move || stdin.write_all(&input));
    bounded(&args.join(" "), move || child.wait_with_output().expect("immuta ends"))
}

/// Runs to its end.
pub fn run(log: &Log, args: &[&str]) -> Output {
    run_with(log, args, b"")
}

/// Runs to its end, which must be a good one; returns what it printed.
pub fn ok(log: &Log, args: &[&str], input: &[u8]) -> Vec<u8> {
    let output = run_with(log, args, input);
    assert!(output.status.success(), "{args:?}: {output:?}");
    assert!(output.stderr.is_empty(), "{args:?} says: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// As [`ok`], as text.
pub fn text(log: &Log, args: &[&str]) -> String {
    String::from_utf8(ok(log, args, b"")).expect("text")
}

/// Runs to its end, which must be this exit code, with one line on stderr that contains all of `words`, and nothing on stdout.
#[track_caller]
pub fn fails(log: &Log, args: &[&str], code: i32, words: &[&str]) {
    let output = run(log, args);
    is_failure(&output, code, words);
    assert!(output.stdout.is_empty(), "{args:?} printed {}", String::from_utf8_lossy(&output.stdout));
}

#[track_caller]
pub fn is_failure(output: &Output, code: i32, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.starts_with("immuta: ") && said.trim_end().lines().count() == 1, "one line: {said}");
    words.iter().for_each(|word| assert!(said.contains(word), "{word:?} is not in: {said}"));
}

/// Runs to its end on a terminal of its own; returns what the terminal got. `None`, and SKIPPED, where there is no script(1).
pub fn on_a_terminal(log: &Log, args: &str) -> Option<String> {
    let line = format!("{} {args}", env!("CARGO_BIN_EXE_immuta"));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).current_dir(log.dir.path()).stdin(Stdio::null());
    script.env("IMMUTA_CONTROL_DIR", &log.control).env("TMPDIR", log.dir.path());
    match bounded("script", move || script.output()) {
        Ok(output) => Some(String::from_utf8(output.stdout).expect("text")),
        Err(error) => {
            skip(&format!("script, which makes a terminal: {error}"));
            None
        }
    }
}

/// A running `immuta`, killed by its id if the test ends before it.
pub struct Running {
    child: Child,
    pub stdin: Option<ChildStdin>,
    lines: Receiver<Vec<u8>>,
}

impl Running {
    pub fn start(log: &Log, args: &[&str]) -> Running {
        let mut child = immuta(log, args).stdin(Stdio::piped()).spawn().expect("immuta starts");
        let (send, lines) = channel();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while matches!(out.read_until(b'\n', &mut line), Ok(n) if n > 0) {
                if send.send(std::mem::take(&mut line)).is_err() {
                    break;
                }
            }
        });
        Running { stdin: child.stdin.take(), child, lines }
    }

    /// One whose output nobody reads, so that it stands still once a pipe full of it is there.
    pub fn start_unread(log: &Log, args: &[&str]) -> Running {
        let mut child = immuta(log, args).stdin(Stdio::piped()).spawn().expect("immuta starts");
        Running { stdin: child.stdin.take(), child, lines: channel().1 }
    }

    /// Whether it sleeps in a system call that waits for a file: a read, a write, a poll.
    pub fn waits_for_a_file(&self) -> bool {
        let at = std::fs::read_to_string(format!("/proc/{}/wchan", self.id())).unwrap_or_default();
        ["pipe", "poll", "open"].iter().any(|call| at.contains(call))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Types a line.
    pub fn say(&mut self, line: &str) {
        writeln!(self.stdin.as_mut().expect("its input is open"), "{line}").expect("it reads");
    }

    /// The next line that it prints, which must come.
    pub fn line(&self) -> String {
        let line = self.lines.recv_timeout(LIMIT).expect("a line in time");
        String::from_utf8(line).expect("text").trim_end().to_owned()
    }

    /// Whether it has printed anything that was not taken.
    pub fn has_line(&self) -> bool {
        self.lines.try_recv().is_ok()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it runs");
    }

    /// Waits for its end; returns the exit code and what it said on stderr.
    pub fn end(mut self) -> (Option<i32>, String) {
        drop(self.stdin.take());
        let mut child = std::mem::replace(&mut self.child, Command::new("true").spawn().expect("true starts"));
        bounded("the end of immuta", move || {
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).expect("text");
            (child.wait().expect("it ends").code(), said)
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
