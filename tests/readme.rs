//! What the README shows is run as it stands: the library example, the terminal session, the reader in Python.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// How long anything may take, on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(60);

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(name)).unwrap()
}

/// The blocks of code of one language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The directory of the built `immuta`, first in the search path of a command.
fn command(program: &str, directory: &Path) -> Command {
    let immuta = PathBuf::from(env!("CARGO_BIN_EXE_immuta"));
    let mut path = vec![immuta.parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    let mut command = Command::new(program);
    command.current_dir(directory).env("PATH", std::env::join_paths(path).unwrap());
    command.env("IMMUTA_CONTROL_DIR", directory);
    command
}

#[test]
fn the_library_example_is_the_one_that_is_built_and_runs() {
    let rust = blocks(&document("README.md"), "rust");
    assert_eq!(rust.len(), 1, "README.md has one example in Rust");
    assert_eq!(
        rust[0],
        document("examples/readme.rs"),
        "README.md and examples/readme.rs say the same: copy one over the other"
    );
    let built =
        Command::new(env!("CARGO")).args(["build", "--quiet", "--example", "readme"]).current_dir(ROOT).status();
    assert!(built.unwrap().success());
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(ROOT).join("target"), PathBuf::from);
    let scratch = tempfile::tempdir().unwrap();
    let example = target.join("debug/examples/readme");
    let output = command(example.to_str().unwrap(), scratch.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "record 0 at position 8, 11 bytes\nhello world\n");
}

#[test]
fn the_terminal_session_shows_what_the_commands_print() {
    let sessions = blocks(&document("README.md"), "console");
    assert!(!sessions.is_empty(), "README.md shows a session");
    for session in sessions {
        let scratch = tempfile::tempdir().unwrap();
        for step in session.split("$ ").filter(|step| !step.is_empty()) {
            let (line, expected) = step.split_once('\n').unwrap();
            let output = command("sh", scratch.path()).args(["-c", line]).output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{line}");
        }
    }
}

/// Kills and reaps what a test has started, also when the test fails.
struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lines that come out of a process, so that a test need not wait for ever for the next one.
fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (send, receive) = channel();
    let lines = BufReader::new(output).lines();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
    receive
}

#[test]
fn the_two_terminals_show_the_same_lines_at_once() {
    let blocks = blocks(&document("README.md"), "sh");
    let session = blocks.iter().find(|block| block.contains("# terminal 1")).expect("README.md has two terminals");
    let column = session.find("# terminal 2").expect("they stand side by side");
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for line in session.lines().skip(1) {
        left.push(line[..column].trim());
        right.push(line[column..].trim());
    }
    assert!(left.len() > 1 && left[1..] == right[1..], "what is typed here is shown there: {session}");
    let scratch = tempfile::tempdir().unwrap();
    let shell = |line: &str| {
        // The shell becomes the command, so that its end is the command's.
        let mut command = command("sh", scratch.path());
        command.args(["-c", &format!("exec {line}")]).stdin(Stdio::piped()).stdout(Stdio::piped());
        Ended(command.spawn().unwrap())
    };
    let mut follower = shell(right[0]);
    let mut append = shell(left[0]);
    let shown = lines_of(follower.0.stdout.take().unwrap());
    let typed = append.0.stdin.as_mut().unwrap();
    for line in &left[1..] {
        writeln!(typed, "{line}").unwrap();
        assert_eq!(shown.recv_timeout(LIMIT).expect("it is shown"), *line);
    }
    drop(append.0.stdin.take());
    assert!(append.0.wait().unwrap().success());
}

#[test]
fn the_dependency_names_this_version() {
    let [toml] = &blocks(&document("README.md"), "toml")[..] else { panic!("README.md has one line for Cargo.toml") };
    let line = format!(
        "{} = {{ version = \"{}.{}\"",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR")
    );
    assert!(toml.contains(&line) && toml.contains("default-features = false"), "{toml}");
}

#[test]
fn the_reader_in_python_reads_a_live_log() {
    let python = blocks(&document("README.md"), "python");
    assert_eq!(python.len(), 1, "README.md has one reader in Python");
    assert_eq!(python, blocks(&document("FORMAT.md"), "python"), "README.md and FORMAT.md show the same reader");
    assert!(python[0].lines().count() <= 10, "the reader has ten lines");
    if Command::new("python3").arg("--version").output().is_err() {
        assert!(
            std::env::var_os("IMMUTA_REQUIRE_ALL").is_none(),
            "python3 is missing, and nothing may be skipped here"
        );
        eprintln!("SKIPPED: python3 is missing");
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("events.log");
    let mut writer = immuta::WriterOptions::new().control_dir(scratch.path()).open(&path).unwrap();
    writer.append(b"before").unwrap();
    let reader = command("python3", scratch.path())
        .args(["-u", "-c", &python[0], "events.log"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = Ended(reader);
    let shown = lines_of(reader.0.stdout.take().unwrap());
    let line = || shown.recv_timeout(LIMIT).expect("it prints a line");
    let first = line();
    writer.append(b"").unwrap();
    let second = line();
    assert_eq!((first.as_str(), second.as_str()), ("0 b'before'", "1 b''"));
}
