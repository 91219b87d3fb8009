//! Other processes of a bench: its executable again, told by an environment variable what to be.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The variable that makes this executable one of the other processes: a role and its arguments, in lines.
const ROLE: &str = "IMMUTA_BENCH_ROLE";

/// Whoever waits longer than this for another process gives up.
const LIMIT: Duration = Duration::from_secs(120);

/// What this process is to be, with its arguments in lines of their own; `None` in the one that starts the others.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Another process of this bench; killed when dropped.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: BufReader<ChildStdout>,
}

impl Process {
    pub fn start(role: &[&str]) -> Process {
        let exe = std::env::current_exe().expect("this executable");
        let mut command = Command::new(exe);
        // With the same arguments, so that `scaled` says the same there.
        command.args(std::env::args_os().skip(1)).env(ROLE, role.join("\n"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("this executable runs");
        let lines = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        Process { stdin: child.stdin.take(), child, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        if self.lines.buffer().is_empty() {
            let mut pipe = [PollFd::new(self.lines.get_ref().as_fd(), PollFlags::POLLIN)];
            let limit = PollTimeout::try_from(LIMIT).expect("a short time");
            assert_ne!(poll(&mut pipe, limit).expect("a pipe"), 0, "a process of the bench said nothing");
        }
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).expect("a line");
        assert!(read > 0, "a process of the bench ended before its time");
        line.trim_end().to_owned()
    }

    /// Tells it to go on: the end of its input.
    pub fn go(&mut self) {
        drop(self.stdin.take());
    }

    /// Waits until it has ended by itself.
    pub fn ends(&mut self) {
        let begin = Instant::now();
        while self.is_running() {
            assert!(begin.elapsed() < LIMIT, "a process of the bench did not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and is reaped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says a line to the process that started this one.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the bench listens");
}

/// Until the bench closes the pipe, or has ended.
pub fn wait_for_go() {
    std::io::stdin().read_to_end(&mut Vec::new()).expect("a pipe");
}

/// Private memory of this process, in KiB: clean and dirty, without what it shares with others.
pub fn private_kib() -> u64 {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup").expect("the kernel tells");
    ["Private_Clean", "Private_Dirty"].map(|name| kib_of(&rollup, name)).iter().sum()
}

/// What one of these files of /proc says of `name`, in KiB.
pub fn kib_of(text: &str, name: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("the kernel tells");
    rest.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
}
