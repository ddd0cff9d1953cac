//! The subcommands, one module each.

mod backup;
mod cap;
mod cat;
mod cc;
mod compact;
mod completions;
mod cp;
mod dev;
mod df;
mod doctor;
mod down;
mod fsck;
mod get;
mod host;
mod invite;
mod join;
pub(crate) mod kill;
mod ln;
mod logs;
mod ls;
mod man;
mod map;
mod mkdir;
mod mount;
mod mounts;
mod mv;
mod ping;
mod processes;
mod ps;
mod put;
mod restore;
mod resume;
mod rm;
mod run;
mod server;
mod stat;
mod status;
mod stun;
mod top;
mod trace;
mod umount;
mod up;
mod wait;
mod why;

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use amoeba_cap::Capability;
use clap::Subcommand;

use crate::Context;
use crate::failure::FAILED;
use crate::graph::Graph;

/// The exit code of a command line that cannot be understood.
const WRONG_COMMAND_LINE: u8 = 2;

/// The commands, in the order of the help, each called as its module.
macro_rules! commands {
    ($($command:ident $module:ident,)*) => {
        /// What a person can ask for.
        #[derive(Subcommand)]
        pub(crate) enum Command {
            $($command($module::Arguments),)*
        }

        /// The definition of the command that is called `word`.
        pub(crate) fn definition(word: &str) -> Option<clap::Command> {
            match word {
                $(stringify!($module) => {
                    let command = clap::Command::new(stringify!($module));
                    Some(<$module::Arguments as clap::Args>::augment_args(command))
                })*
                _ => None,
            }
        }
    };
}

commands! {
    Run run, Map map, Cc cc, Ps ps, Kill kill, Wait wait, Logs logs, Why why, Stun stun, Resume resume,
    Ls ls, Put put, Get get, Cat cat, Cp cp, Mv mv, Ln ln, Mkdir mkdir, Rm rm, Stat stat, Mount mount,
    Umount umount, Cap cap, Up up, Down down, Invite invite, Join join, Status status, Df df, Fsck fsck,
    Compact compact, Backup backup, Restore restore, Host host, Top top, Ping ping, Doctor doctor,
    Trace trace, Dev dev, Completions completions, Man man,
}

/// The process that NUMBER or HOST:NUMBER names.
///
/// # Errors
/// There is none, or the text is neither.
pub(crate) fn process(graph: &Graph, number: &OsStr) -> anyhow::Result<Capability> {
    processes::find_by_number(graph, &number.to_string_lossy())
}

/// The command of a line that is not worth the time of parsing it: a build starts hundreds of compilers a second.
pub(crate) fn at_once(args: &[OsString]) -> Option<Command> {
    match args {
        [_, word, rest @ ..] if word == "cc" => cc::Arguments::plain(rest).map(Command::Cc),
        _ => None,
    }
}

/// The exit code of a wrong command line; `word` says which command it was to be. Where exit codes are those of what is
/// run, it is the one that says that nothing ran.
pub(crate) fn usage_code(word: Option<&OsStr>) -> u8 {
    match word.and_then(OsStr::to_str) {
        Some("run" | "map" | "cc" | "dev") => run::OUR_FAULT,
        _ => WRONG_COMMAND_LINE,
    }
}

impl Command {
    /// The exit code of a failure that asks for no other.
    pub(crate) fn failure_code(&self) -> u8 {
        match self {
            Command::Run(_) | Command::Map(_) | Command::Cc(_) | Command::Dev(_) => run::OUR_FAULT,
            _ => FAILED,
        }
    }

    /// Does it.
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        match self {
            Command::Run(arguments) => return arguments.run(context),
            Command::Map(arguments) => return arguments.run(context),
            Command::Cc(arguments) => return arguments.run(context),
            Command::Wait(arguments) => return arguments.run(context),
            Command::Dev(arguments) => return arguments.run(context),
            Command::Up(arguments) => return arguments.run(context),
            Command::Status(arguments) => return arguments.run(context),
            Command::Ping(arguments) => return arguments.run(context),
            Command::Doctor(arguments) => return arguments.run(context),
            Command::Fsck(arguments) => return arguments.run(context),
            Command::Df(arguments) => arguments.run(context)?,
            Command::Compact(arguments) => arguments.run(context)?,
            Command::Backup(arguments) => arguments.run(context)?,
            Command::Restore(arguments) => arguments.run(context)?,
            Command::Ps(arguments) => arguments.run(context)?,
            Command::Kill(arguments) => arguments.run(context)?,
            Command::Logs(arguments) => arguments.run(context)?,
            Command::Why(arguments) => arguments.run(context)?,
            Command::Top(arguments) => arguments.run(context)?,
            Command::Trace(arguments) => arguments.run(context)?,
            Command::Completions(arguments) => arguments.run(context)?,
            Command::Man(arguments) => arguments.run(context)?,
            Command::Host(arguments) => arguments.run(context)?,
            Command::Stun(arguments) => arguments.run(context)?,
            Command::Resume(arguments) => arguments.run(context)?,
            Command::Ls(arguments) => arguments.run(context)?,
            Command::Put(arguments) => arguments.run(context)?,
            Command::Get(arguments) => arguments.run(context)?,
            Command::Cat(arguments) => arguments.run(context)?,
            Command::Cp(arguments) => arguments.run(context)?,
            Command::Mv(arguments) => arguments.run(context)?,
            Command::Ln(arguments) => arguments.run(context)?,
            Command::Mkdir(arguments) => arguments.run(context)?,
            Command::Rm(arguments) => arguments.run(context)?,
            Command::Mount(arguments) => arguments.run(context)?,
            Command::Umount(arguments) => arguments.run(context)?,
            Command::Stat(arguments) => arguments.run(context)?,
            Command::Cap(arguments) => arguments.run(context)?,
            Command::Down(arguments) => arguments.run(context)?,
            Command::Join(arguments) => arguments.run(context)?,
            Command::Invite(arguments) => arguments.run(context)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
