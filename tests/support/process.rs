//! Helper processes: `tests/support/helper.rs`, which cargo builds as an example. A helper gets `role key=value…`, prints lines,
//! and takes lines. It ends with its test, whatever happens.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::SystemTime;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{LIMIT, Log, until};

/// A helper process; killed when dropped.
pub struct Helper {
    role: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Helper {
    /// Starts a helper in `role` on `log`; `options` are words of the form `key=value`.
    pub fn start(role: &str, log: &Log, options: &str) -> Helper {
        static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
        Helper::run(Command::new(PROGRAM.get_or_init(|| program("test_helper", &[]))), role, log, options)
    }

    /// The same of `fault_helper`, with the `fault` that befalls it; "" for none.
    pub fn faulty(role: &str, log: &Log, options: &str, fault: &str) -> Helper {
        static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
        let mut command = Command::new(PROGRAM.get_or_init(|| program("fault_helper", &["--features", "faults"])));
        if !fault.is_empty() {
            command.env("IMMUTA_FAULT", fault);
        }
        Helper::run(command, role, log, options)
    }

    fn run(mut command: Command, role: &str, log: &Log, options: &str) -> Helper {
        command.arg(role).arg(format!("log={}", log.path.display())).arg(format!("control={}", log.control.display()));
        command.args(options.split_whitespace());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a helper process");
        let output = child.stdout.take().expect("piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Helper { role: role.to_owned(), input: child.stdin.take(), child, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).unwrap_or_else(|why| panic!("helper {} says nothing: {why}", self.role))
    }

    /// The next line must begin with the word `first`; returns the words behind it.
    pub fn expect(&self, first: &str) -> Vec<String> {
        let line = self.line();
        let mut words = line.split_whitespace().map(str::to_owned);
        assert_eq!(words.next().as_deref(), Some(first), "helper {} said: {line}", self.role);
        words.collect()
    }

    /// As `expect`, where the words behind the first are numbers.
    pub fn numbers(&self, first: &str) -> Vec<u64> {
        self.expect(first).iter().map(|word| word.parse().expect("a number")).collect()
    }

    /// All lines that it still prints, until it ends.
    pub fn rest(&self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => return lines,
                Err(RecvTimeoutError::Timeout) => panic!("helper {} hangs after {lines:?}", self.role),
            }
        }
    }

    pub fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is open");
        writeln!(input, "{line}").unwrap_or_else(|why| panic!("helper {} does not listen: {why}", self.role));
    }

    /// Closes its input.
    pub fn hush(&mut self) {
        self.input = None;
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id() as i32), signal).expect("a signal to a child");
    }

    /// Kills it with SIGKILL, and returns once it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Kills it; returns what it has said that nobody has read.
    pub fn last_words(&mut self) -> Vec<String> {
        self.kill();
        self.lines.iter().collect()
    }

    /// Returns once it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        until(&format!("helper {} ends", self.role), || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.expect("just found")
    }

    /// It must end by itself, without an error.
    pub fn succeeds(mut self) {
        self.hush();
        let status = self.wait();
        assert!(status.success(), "helper {} ended with {status}", self.role);
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// When the newest of these files was changed: the file itself, or those below the directory. The command line is none of the helper's.
fn changed(path: &Path) -> SystemTime {
    let unknown = SystemTime::UNIX_EPOCH;
    if path.is_dir() && !path.ends_with("src/bin") {
        let below = std::fs::read_dir(path).into_iter().flatten().flatten();
        return below.map(|entry| changed(&entry.path())).max().unwrap_or(unknown);
    }
    let file = path.metadata().ok().filter(|metadata| metadata.is_file());
    file.and_then(|metadata| metadata.modified().ok()).unwrap_or(unknown)
}

/// Where a helper program is; `features` are what cargo needs to build it.
fn program(name: &str, features: &[&str]) -> PathBuf {
    let test = std::env::current_exe().expect("this test's file");
    let target = test.parent().and_then(|deps| deps.parent()).expect("target/PROFILE/deps/TEST");
    let helper = target.join("examples").join(name);
    // `cargo test` builds it; `cargo test --test NAME` does not, and would run an old one.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let newest = ["src", "tests/support"].map(|sources| changed(&root.join(sources))).into_iter().max();
    if Some(changed(&helper)) < newest {
        let profile = if target.ends_with("release") { "release" } else { "dev" };
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--example", name, "--profile", profile]).args(features);
        let built = cargo.current_dir(root).status().expect("cargo runs");
        assert!(built.success() && helper.exists(), "run `cargo build --example {name}` in the profile of this test");
    }
    helper
}
