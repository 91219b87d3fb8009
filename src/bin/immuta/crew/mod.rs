//! Processes of this executable that one command starts, hears and ends. `parent` is their side of it.
//!
//! They talk in lines: each says what it has on its output, and is told to go, or to stop, on its input.

mod parent;

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::failure::Failure;
use crate::place::Place;
pub use parent::Parent;

/// How often it is looked whether one that says nothing has ended.
const INTERVAL: Duration = Duration::from_millis(100);

/// What a member says: its number, and a line, or `None` when it has ended.
pub type Told = (usize, Option<String>);

/// All of them; killed when dropped.
#[derive(Debug)]
pub struct Crew {
    members: Vec<Member>,
    told: Receiver<Told>,
    tell: Sender<Told>,
}

#[derive(Debug)]
struct Member {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Crew {
    pub fn new() -> Crew {
        let (tell, told) = channel();
        Crew { members: Vec::new(), told, tell }
    }

    /// Starts this executable with these arguments, in `place`; returns its number.
    pub fn start(
        &mut self,
        name: &str,
        place: &Place,
        args: impl IntoIterator<Item: AsRef<OsStr>>,
    ) -> Result<usize, Failure> {
        let (variable, control) = place.environment();
        let start = || -> io::Result<Child> {
            Command::new(std::env::current_exe()?)
                .args(args)
                .env(variable, control)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                // Ctrl-C is for this process, which ends the others in order.
                .process_group(0)
                .spawn()
        };
        let mut child = start().map_err(|error| Failure::system(format!("start a {name}"), error))?;
        let (tell, number) = (self.tell.clone(), self.members.len());
        let lines = BufReader::new(child.stdout.take().expect("its output is a pipe")).lines();
        std::thread::spawn(move || {
            // Nobody listens any more once it was ended.
            let _ = lines.map_while(Result::ok).try_for_each(|line| tell.send((number, Some(line))));
            let _ = tell.send((number, None));
        });
        self.members.push(Member { stdin: child.stdin.take(), child });
        Ok(number)
    }

    /// Has one go on with what it waits to do.
    pub fn go(&mut self, number: usize) -> Result<(), Failure> {
        let stdin = self.members[number].stdin.as_mut().expect("it is closed only at the end");
        writeln!(stdin, "go").map_err(|error| Failure::system("reach another process of this command", error))
    }

    /// The next line of any of them, if one comes within `limit`.
    pub fn hear(&self, limit: Duration) -> Option<Told> {
        self.told.recv_timeout(limit).ok() // It cannot be disconnected: this process holds a sender.
    }

    /// Ends all: asks, hears what they still have to say for at most `patience`, then kills.
    pub fn end(&mut self, patience: Duration, mut hear: impl FnMut(usize, &str)) {
        for member in &mut self.members {
            if let Some(stdin) = &mut member.stdin {
                // One that has ended already does not hear it.
                let _ = writeln!(stdin, "stop");
            }
        }
        let begin = Instant::now();
        let mut running = self.members.len();
        while running > 0 && begin.elapsed() < patience {
            match self.told.recv_timeout(INTERVAL) {
                Ok((number, Some(line))) => hear(number, &line),
                Ok((_, None)) => running -= 1,
                Err(_) => {
                    let exits = self.members.iter_mut().filter_map(|member| member.child.try_wait().ok());
                    running = exits.filter(Option::is_none).count();
                }
            }
        }
        self.kill();
        // What these have sent is not to be heard from the next ones.
        (self.tell, self.told) = channel();
    }

    fn kill(&mut self) {
        for mut member in self.members.drain(..) {
            // One that has ended cannot be killed any more, and is reaped.
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.kill();
    }
}
