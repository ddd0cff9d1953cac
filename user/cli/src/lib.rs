//! The subcommands of `amoeba`: what people type, and what it does with capabilities and transactions.
//!
//! One module a subcommand under `commands/` holds its arguments, its help, what it does and its tests. The binary
//! implements [`System`] over a world and calls [`main`]. Data goes to stdout, everything else to stderr.
//!
//! - [`Place`](place) is what a PATH argument says, [`Graph`](graph) what is done with names.
//! - [`failure`] turns errors into one line, one hint and one exit code; [`out`] prints data.
#![forbid(unsafe_code)]

mod commands;
mod duration;
mod everywhere;
mod failure;
mod files;
mod graph;
mod launch;
mod masks;
mod out;
mod place;
mod progress;
mod rights;
mod shown;
mod system;
#[cfg(test)]
mod testing;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

pub use failure::{Code, Hint};
pub use system::{
    Console, DaemonStatus, DevOptions, JoinOptions, Session, Signals, Standard, Start, System, SystemKind,
    SystemStatus, UpOptions,
};

use commands::Command;
use graph::Graph;
use out::Out;

/// A few machines, one computer.
#[derive(Parser)]
#[command(name = "amoeba", version, about, max_term_width = 100)]
#[command(after_help = "\
A PATH is a name in the directory graph: from the root of your directories when it begins with `/`, else from /home
(or AMOEBA_WORK). It may also be a capability, which is a secret: @FILE, `-` (standard input) and fd:N keep it off the
command line; cap:TEXT does not. What looks like one of these but is a name is written with ./ in front.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What a subcommand works with.
pub(crate) struct Context<'a> {
    pub(crate) system: &'a dyn System,
    pub(crate) out: Out<'a>,
}

impl Context<'_> {
    /// The directory graph of a system that runs.
    pub(crate) fn graph(&self) -> anyhow::Result<Graph> {
        Ok(Graph::new(self.system.connect(Start::Never)?))
    }

    /// Whether people read what is written to `stream`.
    pub(crate) fn is_terminal(&self, stream: Standard) -> bool {
        self.system.console().is_terminal(stream)
    }
}

/// Runs one subcommand: `args` as a program gets them, its own name first. Prints what goes wrong.
pub fn main(args: impl Iterator<Item = OsString>, system: &dyn System) -> ExitCode {
    execute(args.collect(), system, &mut io::stdout().lock(), &mut io::stderr())
}

fn execute(
    args: Vec<OsString>,
    system: &dyn System,
    stdout: &mut dyn Write,
    stderr: &mut dyn Write,
) -> ExitCode {
    let cli = match Cli::try_parse_from(commands::kill::signal_as_option(args)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are data; if even they cannot be written there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let otherwise = cli.command.failure_code();
    let mut context = Context { system, out: Out::new(stdout) };
    let result = cli.command.run(&mut context).and_then(|code| {
        context.out.flush()?;
        Ok(code)
    });
    result.unwrap_or_else(|error| {
        let report = failure::report(&error, otherwise);
        if let Some(text) = report.text {
            // Standard error may be closed; the exit code still tells.
            let _ = stderr.write_all(text.as_bytes());
        }
        ExitCode::from(report.code)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_is_in_the_book() {
        let chapter = include_str!("../../../docs/commands.md");
        for command in Cli::command().get_subcommands() {
            let heading = match command.get_subcommands().next() {
                Some(inner) => format!("`amoeba {} {}", command.get_name(), inner.get_name()),
                None => format!("**`amoeba {}", command.get_name()),
            };
            assert!(chapter.contains(&heading), "docs/commands.md has no {heading}");
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
        }
    }
}
