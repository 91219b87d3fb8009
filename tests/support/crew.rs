//! A command that starts processes of its own and uses temporary directories: what of that is there, and that none of it stays.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::{bounded, until};

/// A running `immuta` with a temporary directory of its own; killed if the test ends before it.
pub struct Crew {
    pub place: TempDir,
    pub control: TempDir,
    child: Option<Child>,
}

impl Crew {
    pub fn start(command: &str, args: &[&str]) -> Crew {
        let (place, control) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut immuta = Command::new(env!("CARGO_BIN_EXE_immuta"));
        immuta.arg(command).args(args).env("TMPDIR", place.path()).env("IMMUTA_CONTROL_DIR", control.path());
        immuta.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Crew { child: Some(immuta.spawn().unwrap()), place, control }
    }

    fn id(&self) -> i32 {
        self.child.as_ref().unwrap().id() as i32
    }

    /// The processes that work for it, or did before its directory was removed.
    pub fn parts(&self) -> Vec<i32> {
        parts_in(self.place.path())
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.id()), signal).unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// The sizes of its files of this name, or 0.
    pub fn bytes_of(&self, name: &str) -> u64 {
        bytes_of(self.place.path(), name)
    }

    /// Waits for its end, and looks for what it left behind.
    pub fn end(mut self) -> Output {
        let child = self.child.take().unwrap();
        let output = bounded("the end of the command", move || child.wait_with_output().unwrap());
        until("its processes have ended", || self.parts().is_empty());
        for place in [&self.place, &self.control] {
            let left = entries(place.path());
            assert!(left.is_empty(), "left behind: {left:?}");
        }
        output
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended.
            let _ = child.kill();
            let _ = child.wait();
        }
        // By their ids; those that it left are the failure that is being reported.
        for id in self.parts() {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
    }
}

/// The processes of a command that was told to work in `place`: by the directory that they have in their arguments.
pub fn parts_in(place: &Path) -> Vec<i32> {
    let place = place.join("immuta-").into_os_string();
    let place = place.as_encoded_bytes();
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let works_here = |id: &i32| {
        let arguments = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        arguments.windows(place.len()).any(|bytes| bytes == place)
    };
    processes.filter(works_here).collect()
}

/// What is in a directory.
pub fn entries(place: &Path) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// The sizes of the files of this name in the directories of `place`.
pub fn bytes_of(place: &Path, name: &str) -> u64 {
    let directories = std::fs::read_dir(place).into_iter().flatten().filter_map(Result::ok);
    let files = directories.filter_map(|entry| std::fs::metadata(entry.path().join(name)).ok());
    files.map(|metadata| metadata.len()).sum()
}
