//! `amoeba run`: a command as an Amoeba process, as if it ran here.
//!
//! This program serves what the process needs of its caller: [`streams`] its standard input and output, [`owner`] the
//! object that hears of its end. [`program`] finds what is to run, [`control`] passes signals on and keeps the time.

mod control;
mod owner;
mod program;
mod streams;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use amoeba_cap::Capability;
use amoeba_name::Environment;
use amoeba_process::{ProcessDescriptor, WindowSize};
use amoeba_stubs::process;
use amoeba_wire::Status;
use amoeba_world::Error as Refusal;
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;

use super::processes;
use crate::failure::{Advise, Code, Hint, MAY_HAVE_RUN};
use crate::graph::{self, Graph};
use crate::{Context, Standard, Start, duration};
use control::Job;
use owner::Owner;
use program::Found;
use streams::Streams;

/// The exit code of what is neither the command's fault nor the caller's.
pub(crate) const OUR_FAULT: u8 = 125;
const CANNOT_EXECUTE: u8 = 126;
const NOT_FOUND: u8 = 127;
const TIMEOUT: u8 = 124;

/// The original's status for a program that is not there.
const NO_PROGRAM: Status = Status(-1900);
/// The original's status for a program that cannot be read.
const UNREADABLE: Status = Status(-1902);
/// The terminal's size where there is none to ask.
const WINDOW_DEFAULT: (u16, u16) = (24, 80);
/// Environment strings that say where this program's own capabilities are; the process gets its own.
const NOT_PASSED_ON: [&str; 2] = ["AMOEBA_CAPS_FD", "AMOEBA_SOCKET"];

/// Run a command as an Amoeba process
///
/// The command reads this standard input, writes this standard output and error, has these environment strings and
/// this working directory, and gets the signals that come here. A third interrupt kills it. Starts a private system when
/// none runs.
///
/// COMMAND is a name in /home/bin or /bin of the directory graph, or a program of the host along PATH. With a `/` in it,
/// a file of the host if there is one, else a path in the graph. A capability is a program too.
#[derive(Args)]
#[command(after_help = "\
Exit code: the command's own; 128 + N when signal N ended it; 124 after the timeout; 125 when this program failed; 126
when the command cannot be executed; 127 when it was not found; 75 when it may have run.")]
pub(crate) struct Arguments {
    /// Do not wait: print the number of the process. Its output goes to a log (`amoeba logs`)
    #[arg(short, long)]
    detach: bool,
    /// Give it a terminal of its own, with this one's keys and size
    #[arg(short, long, conflicts_with = "detach")]
    tty: bool,
    /// End it after this time: 10s, 1.5m, 2h
    #[arg(long, value_name = "TIME", value_parser = duration::parse, conflicts_with = "detach")]
    timeout: Option<Duration>,
    /// Set an environment string for it; may be given several times
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    env: Vec<(OsString, OsString)>,
    /// Its working directory; without it this one
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    /// With -d: print JSON
    #[arg(long, requires = "detach")]
    json: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Serialize)]
struct Started {
    id: u16,
    host: String,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let graph = Graph::new(context.system.connect(Start::IfNeeded)?);
        let server = processes::server(&graph)?;
        let directory = self.working_directory()?;
        let program = match program::find(&graph, &self.command[0], &directory)? {
            Found::Program(program) => program,
            Found::Nothing => return Err(self.failed("not found", NOT_FOUND)),
            Found::NoProgram(why) => return Err(self.failed(why, CANNOT_EXECUTE)),
        };
        // The name a program is told it has is seen by everybody on its host.
        let name = program::told_name(&self.command[0]);
        let rest = self.command[1..].iter().map(|argument| argument.as_bytes().to_vec());
        let arguments = std::iter::once(name).chain(rest).collect();
        let mut descriptor = ProcessDescriptor::new("", program, arguments);
        descriptor.environment = self.environment();
        descriptor.working_directory = directory.into_os_string().as_bytes().to_vec();
        descriptor.capabilities = capabilities(&graph)?;
        if self.detach {
            descriptor.detached = true;
            return self.start_detached(context, &graph, &server, &descriptor);
        }
        self.run_attached(context, &graph, &server, descriptor)
    }

    fn start_detached(
        &self,
        context: &mut Context<'_>,
        graph: &Graph,
        server: &Capability,
        descriptor: &ProcessDescriptor,
    ) -> anyhow::Result<ExitCode> {
        let process = process::exec(graph.world(), server, self.encoded(descriptor)?)
            .map_err(|error| self.not_started(error, descriptor))?;
        let id = (process.object().get() & 0xFFFF) as u16;
        if self.json {
            context.out.json(&Started { id, host: graph.session().host_name.clone() })?;
        } else {
            context.out.line(id.to_string())?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn run_attached(
        &self,
        context: &Context<'_>,
        graph: &Graph,
        server: &Capability,
        mut descriptor: ProcessDescriptor,
    ) -> anyhow::Result<ExitCode> {
        let console = context.system.console();
        let world = graph.world();
        let streams = Streams::serve(world)?;
        let owner = Owner::serve(world, context.is_terminal(Standard::Error))?;
        descriptor.owner = owner.capability();
        descriptor.capabilities.extend(streams.capabilities(self.tty));
        if self.tty {
            let (rows, columns) = console.size().unwrap_or(WINDOW_DEFAULT);
            descriptor.terminal = Some(WindowSize { rows, columns });
        }
        let mut job = Job::new(world, console)?;
        job.start(*server, self.encoded(&descriptor)?)?
            .map_err(|error| self.not_started(error, &descriptor))?;
        if let Some(timeout) = self.timeout {
            job.limit(timeout);
        }
        let keys =
            if self.tty && context.is_terminal(Standard::Input) { Some(console.raw_mode()?) } else { None };
        streams.start(world)?;
        let ended = job.wait();
        // Also without the process server's word: what has come is shown.
        let delivered = streams.finish();
        drop(keys);
        let exit = ended
            .map_err(lost)
            .with_context(|| self.shown())
            .hint("it may have run to its end, or not: see `amoeba status`")
            .code(MAY_HAVE_RUN)?;
        owner.wait_until_told();
        if Status(exit.status).is_error() {
            let why = String::from_utf8_lossy(&exit.reason).into_owned();
            let why = if why.is_empty() { Status(exit.status).to_string() } else { why };
            return Err(self.failed(why, exit.code));
        }
        delivered.context("output of the command is lost")?;
        Ok(ExitCode::from(if job.timed_out() { TIMEOUT } else { exit.code }))
    }

    fn encoded(&self, descriptor: &ProcessDescriptor) -> anyhow::Result<Vec<u8>> {
        let hint = "arguments and environment have at most 1 MiB together, and no NUL in them";
        descriptor.encode().with_context(|| self.shown()).hint(hint).code(CANNOT_EXECUTE)
    }

    /// What it means that the process server did not start the process.
    fn not_started(&self, error: Refusal, descriptor: &ProcessDescriptor) -> anyhow::Error {
        match error {
            Refusal::Refused(NO_PROGRAM) => self.failed("not found", NOT_FOUND),
            Refusal::Refused(UNREADABLE) => self.failed("permission denied", CANNOT_EXECUTE),
            Refusal::Refused(process::NOTEXEC) => self.failed("cannot be executed", CANNOT_EXECUTE),
            Refusal::Refused(process::BADARCH) => {
                self.failed("is for another kind of processor", CANNOT_EXECUTE)
            }
            Refusal::Refused(process::NOWORK) => {
                let directory = String::from_utf8_lossy(&descriptor.working_directory);
                anyhow!("the working directory {directory} cannot be entered").context(Code(CANNOT_EXECUTE))
            }
            error => anyhow::Error::from(error).context(self.shown()),
        }
    }

    /// The directory of this host that the command runs in.
    fn working_directory(&self) -> anyhow::Result<PathBuf> {
        let here = std::env::current_dir().context("the working directory of this command")?;
        Ok(self.workdir.as_ref().map_or(here.clone(), |workdir| here.join(workdir)))
    }

    /// This program's environment strings, with what the person asked for.
    fn environment(&self) -> Vec<Vec<u8>> {
        let replaced = |name: &OsString| {
            NOT_PASSED_ON.iter().any(|hidden| name == hidden)
                || self.env.iter().any(|(other, _)| other == name)
        };
        let kept = std::env::vars_os().filter(|(name, _)| !replaced(name));
        let all = kept.chain(self.env.iter().cloned());
        all.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect()
    }

    /// The command for people: a capability is not repeated.
    fn shown(&self) -> String {
        program::shown(&self.command[0])
    }

    fn failed(&self, why: impl Into<String>, code: u8) -> anyhow::Error {
        let hint = match code {
            NOT_FOUND => "`amoeba put FILE /bin/NAME` stores a program; one of the host must be on PATH",
            _ => "a program is executable (chmod +x), for this processor, or begins with #!",
        };
        anyhow::Error::msg(why.into()).context(Code(code)).context(Hint(hint.into())).context(self.shown())
    }
}

/// What it means that nobody can say how a process ended.
fn lost(error: Refusal) -> anyhow::Error {
    match error {
        Refusal::Refused(Status::STD_CAPBAD) => {
            anyhow!("the process server was started again while the command ran")
        }
        _ => anyhow!("the process server stopped answering while the command ran"),
    }
}

/// ROOT, HOME and WORK for the process. A directory that is not there has no capability.
fn capabilities(graph: &Graph) -> anyhow::Result<Vec<(Vec<u8>, Capability)>> {
    let entry = |name: &str, capability| (name.as_bytes().to_vec(), capability);
    let mut entries = vec![entry(Environment::ROOT, graph.session().root)];
    let work = [b"/", &Graph::work_path()?[..]].concat();
    for (name, path) in [(Environment::HOME, graph::HOME), (Environment::WORK, &work[..])] {
        if let Ok(capability) = graph.at_root(path) {
            entries.push(entry(name, capability));
        }
    }
    Ok(entries)
}

fn parse_variable(text: &str) -> Result<(OsString, OsString), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("an environment string is NAME=VALUE".into()),
    }
}
