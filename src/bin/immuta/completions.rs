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
    // clap_complete offers hidden commands too, and what the demo starts is for nobody to type.
    let all = crate::Cli::command();
    let mut visible = clap::Command::new("immuta")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommands(all.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut visible, "immuta", &mut script);
    io::Write::write_all(&mut io::stdout(), &script).map_err(Failure::Output)
}
