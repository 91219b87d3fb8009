//! `immuta completions`: a script that completes the arguments in a shell.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::failure::Failure;

/// Print a script that completes immuta's arguments in a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: immuta completions bash > ~/.local/share/bash-completion/completions/immuta")]
pub struct Args {
    /// The shell
    shell: Shell,
}

pub fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "immuta", &mut script);
    io::Write::write_all(&mut io::stdout(), &script).map_err(Failure::Output)
}
