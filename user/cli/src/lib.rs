//! The subcommands of `amoeba`: what people type, and what it does with capabilities and transactions.
//!
//! One module a subcommand under `commands/` holds its arguments, its help, what it does and its tests. The binary
//! implements [`System`] over a world and calls [`main`]. Data goes to stdout, everything else to stderr.
//!
//! - [`Place`](place) is what a PATH argument says, [`Graph`](graph) what is done with names.
//! - [`failure`] turns errors into one line, one hint and one exit code; [`out`] prints data.
#![forbid(unsafe_code)]

pub mod archive;
mod commands;
mod diagnosis;
mod duration;
mod everywhere;
mod failure;
mod files;
mod graph;
mod keeping;
mod launch;
mod masks;
mod members;
mod mounting;
mod out;
mod place;
mod progress;
mod rights;
mod shown;
mod spool;
mod staying;
mod system;
#[cfg(test)]
mod testing;
mod tree;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{FromArgMatches, Subcommand};

pub use diagnosis::{Check, Diagnosis, Health, Trace, TraceBatch, TraceOptions};
pub use failure::{Code, Hint};
pub use graph::FILE_SERVER;
pub use keeping::{Restoring, Secrets};
pub use mounting::{HostAccounts, MountOptions, Mounted, Mounting};
pub use staying::Staying;
pub use system::{
    Console, DaemonStatus, DevOptions, Invitation, InvitationState, InviteOptions, Invited, JoinOptions,
    JoinedSystem, Session, Signals, Standard, Start, System, SystemKind, SystemStatus, UpOptions,
};
pub use system::{Slot, Turn};

use commands::Command;
use graph::Graph;
use out::Out;

const AFTER_HELP: &str = "\
A PATH is a name in the directory graph: from the root of your directories when it begins with `/`, else from /home \
(or AMOEBA_WORK). It may also be a capability, which is a secret: @FILE, `-` (standard input) and fd:N keep it off the \
command line; cap:TEXT does not. What looks like one of these but is a name is written with ./ in front.";

/// The definition of the command line, with all commands.
pub(crate) fn definition() -> clap::Command {
    ours(Command::augment_subcommands(clap::Command::new("amoeba")))
}

/// The same with one command alone, if `word` is one.
fn definition_of(word: &OsStr) -> Option<clap::Command> {
    let command = commands::definition(word.to_str()?)?;
    Some(ours(clap::Command::new("amoeba").subcommand(command)))
}

fn ours(command: clap::Command) -> clap::Command {
    let command = command.about("Amoeba: a few machines, one computer").version(env!("CARGO_PKG_VERSION"));
    let command = command.max_term_width(100).after_help(AFTER_HELP);
    command.subcommand_required(true).arg_required_else_help(true)
}

/// What a subcommand works with.
pub(crate) struct Context<'a> {
    pub(crate) system: &'a dyn System,
    pub(crate) out: Out<'a>,
    errors: &'a mut dyn Write,
}

impl Context<'_> {
    /// The directory graph of a system that runs.
    pub(crate) fn graph(&self) -> anyhow::Result<Graph> {
        Ok(Graph::new(self.system.connect(Start::Never)?))
    }

    /// Does something for each of several arguments, and goes on after a failure, which is told at once.
    ///
    /// # Errors
    /// Something failed: what is left to say is the gravest exit code. Nobody reads the output any more.
    pub(crate) fn for_each<T>(
        &mut self,
        arguments: impl IntoIterator<Item = T>,
        mut operation: impl FnMut(&mut Self, T) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut gravest = None;
        for argument in arguments {
            let Err(error) = operation(self, argument) else { continue };
            let report = failure::report(&error, failure::FAILED);
            let Some(text) = report.text else { return Err(error) };
            // Standard error may be closed; the exit code still tells.
            let _ = self.errors.write_all(text.as_bytes());
            gravest = gravest.max(Some(report.code));
        }
        gravest.map_or(Ok(()), |code| Err(failure::Told(code).into()))
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
    let wrong = commands::usage_code(args.get(1).map(OsString::as_os_str));
    let command = match parse(args) {
        Ok(command) => command,
        Err(error) => {
            // Help and version are data; if even they cannot be written there is nobody to tell.
            let _ = error.print();
            return if error.exit_code() == 0 { ExitCode::SUCCESS } else { ExitCode::from(wrong) };
        }
    };
    let otherwise = command.failure_code();
    let mut context = Context { system, out: Out::new(stdout), errors: &mut *stderr };
    let result = command.run(&mut context).and_then(|code| {
        context.out.flush()?;
        Ok(code)
    });
    drop(context);
    result.unwrap_or_else(|error| {
        let report = failure::report(&error, otherwise);
        if let Some(text) = report.text {
            // Standard error may be closed; the exit code still tells.
            let _ = stderr.write_all(text.as_bytes());
        }
        ExitCode::from(report.code)
    })
}

fn parse(args: Vec<OsString>) -> Result<Command, clap::Error> {
    if let Some(command) = commands::at_once(&args) {
        return Ok(command);
    }
    // Defining all commands takes longer than what many of them do: where one is named, it is the only one.
    let mut definition = args.get(1).and_then(|word| definition_of(word)).unwrap_or_else(definition);
    let matches = definition.try_get_matches_from_mut(commands::kill::signal_as_option(args))?;
    Command::from_arg_matches(&matches).map_err(|error| error.format(&mut definition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        definition().debug_assert();
    }

    #[test]
    fn a_command_is_the_same_alone_and_among_all() {
        for command in definition().get_subcommands() {
            let mut whole = definition();
            whole.build();
            let alone = definition_of(OsStr::new(command.get_name()));
            let mut alone = alone.expect("all commands are in one table");
            alone.build();
            let help = |all: &mut clap::Command| {
                let command = all.find_subcommand_mut(command.get_name()).expect("it is there");
                command.render_long_help().to_string()
            };
            assert_eq!(help(&mut alone), help(&mut whole), "{}", command.get_name());
        }
        assert!(definition_of(OsStr::new("help")).is_none());
    }

    #[test]
    fn a_wrong_command_line_has_the_code_that_says_that_nothing_ran() {
        let system = testing::TestSystem::new();
        for (line, code) in [
            (&["run"][..], 125),
            (&["run", "--timeout", "5s", "-d", "--", "true"], 125),
            (&["map", "--no-such-option"], 125),
            (&["dev", "x"], 125),
            (&["ls", "--no-such-option"], 2),
            (&["no-such-command"], 2),
            (&[], 2),
        ] {
            system.run(line).failed(code, "");
        }
    }

    #[test]
    fn help_says_what_it_is_and_is_wrapped_by_nobody_else() {
        let help = definition().term_width(80).render_help().to_string();
        assert!(help.starts_with("Amoeba: a few machines, one computer\n"), "{help}");
        let after = &help[help.find("A PATH is").expect("it says what a PATH is")..];
        let lines: Vec<usize> = after.trim_end().lines().map(str::len).collect();
        let (_, full) = lines.split_last().expect("it is a paragraph");
        assert!(full.iter().all(|size| (60..=80).contains(size)), "{after}");
        for width in [80, 100] {
            for command in definition().get_subcommands() {
                let help = command.clone().term_width(width).render_long_help().to_string();
                let too_long = help.lines().find(|line| line.chars().count() > width);
                assert_eq!(too_long, None, "{}", command.get_name());
            }
        }
    }

    #[test]
    fn every_command_is_in_the_book() {
        let chapter = include_str!("../../../docs/commands.md");
        for command in definition().get_subcommands() {
            let heading = match command.get_subcommands().next() {
                Some(inner) => format!("`amoeba {} {}", command.get_name(), inner.get_name()),
                None => format!("**`amoeba {}", command.get_name()),
            };
            assert!(chapter.contains(&heading), "docs/commands.md has no {heading}");
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
        }
    }
}
