//! The other processes of the integration tests: `test_helper ROLE key=value…`. Prints lines, takes lines; an error ends it
//! with a panic on stderr, which its test sees as a failure.

mod acknowledge;
mod content;
mod follow;
mod fork;
mod hostile;
mod limits;
mod moves;
mod produce;
mod witness;

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::str::FromStr;

use immuta::{Durability, ReadMode, ReaderOptions, Start, WaitStrategy, WriterOptions};

fn main() {
    // Ends with the test that started it, whatever happens to that.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).expect("a signal at the parent's death");
    let mut words = std::env::args().skip(1);
    let role = words.next().expect("a role");
    let args = Args(words.filter_map(|word| word.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))).collect());
    match role.as_str() {
        "follow" => follow::follow(&args),
        "idle" => follow::idle(&args),
        "echo" => follow::echo(&args),
        "ask" => follow::ask(&args),
        "descriptors" => follow::descriptors(&args),
        "produce" => produce::produce(&args),
        "hold" => produce::hold(&args),
        "die" => produce::die(&args),
        "thousand" => produce::thousand(&args),
        "acknowledge" => acknowledge::acknowledge(&args),
        "witness" => witness::witness(&args),
        "fork" => fork::fork(&args),
        "fork_with_claim" => fork::fork_with_claim(&args),
        "fork_in_source" => fork::fork_in_source(&args),
        "follow_from_elsewhere" => moves::follow_from_elsewhere(&args),
        "write_from_elsewhere" => moves::write_from_elsewhere(&args),
        "follow_with_fewer_rights" => moves::follow_with_fewer_rights(&args),
        "write_alone" => moves::write_alone(&args),
        "few_descriptors" => limits::few_descriptors(&args),
        "hostile" => hostile::hostile(&args),
        "file_size" => limits::file_size(&args),
        "open" => limits::open(&args),
        _ => panic!("no such role: {role}"),
    }
}

/// The words `key=value` behind the role.
struct Args(HashMap<String, String>);

impl Args {
    fn text(&self, key: &str) -> &str {
        self.0.get(key).unwrap_or_else(|| panic!("{key}=… is missing"))
    }

    fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    fn number<T: FromStr>(&self, key: &str, default: T) -> T {
        self.0.get(key).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{key}={text} is no number")))
    }

    fn writer(&self) -> WriterOptions {
        let mut options = WriterOptions::new();
        options.control_dir(self.text("control")).doorbell_mode(self.number("bell_mode", 0o600));
        if self.has("interval_ms") {
            options.durability(Durability::Interval(std::time::Duration::from_millis(self.number("interval_ms", 0))));
        }
        if self.has("window") {
            options.window(self.number("window", 0));
        }
        match self.0.get("durability").map(String::as_str) {
            Some("buffered") => {
                options.durability(Durability::Buffered);
            }
            Some("sync") => {
                options.durability(Durability::Sync);
            }
            Some(other) => panic!("no such durability: {other}"),
            None => {}
        }
        options
    }

    fn reader(&self) -> ReaderOptions {
        let mut options = ReaderOptions::new();
        options.control_dir(self.text("control")).descriptors(self.number("descriptors", 10));
        options.wait_for_log(std::time::Duration::from_millis(self.number("wait_ms", 0)));
        options.read_mode(match self.0.get("read").map(String::as_str) {
            Some("mapped") => ReadMode::Mapped,
            Some("pread") => ReadMode::Pread,
            _ => ReadMode::Auto,
        });
        options.wait_strategy(match self.0.get("wait").map(String::as_str) {
            Some("spin") => WaitStrategy::Spin,
            Some("park") => WaitStrategy::Park,
            _ => WaitStrategy::SpinThenPark,
        });
        options
    }

    fn start(&self) -> Start {
        Start::from(self.number::<i64>("start", 0))
    }

    /// Becomes the user `uid=…`, for good.
    fn become_user(&self) {
        use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
        if self.has("uid") {
            let id = self.number("uid", 0);
            setgroups(&[]).expect("to give up the groups");
            setgid(Gid::from_raw(id)).expect("to change the group");
            setuid(Uid::from_raw(id)).expect("to change the user");
            // The kernel forgets it where the user changes.
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).expect("a signal at the parent's death");
        }
    }
}

/// Says a line to the test.
fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("the test listens");
}

/// The next line from the test; `None` once it has closed its side.
fn listen() -> Option<String> {
    std::io::stdin().lock().lines().next().map(|line| line.expect("a line"))
}
