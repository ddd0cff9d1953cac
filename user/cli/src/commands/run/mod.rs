//! `amoeba run`: a command as an Amoeba process, or several that are joined by pipes, as if they ran here.
//!
//! This program serves what the processes need of their caller: [`streams`] their standard input and output, and the owner
//! that hears of their end. [`pipeline`] takes `a | b` apart, [`control`] passes signals on and keeps the time. [`staying`] is for
//! processes that nobody waits for.

mod control;
mod pipeline;
mod staying;
mod streams;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use amoeba_process::WindowSize;
use amoeba_stubs::process::ResultRecord;
use amoeba_wire::Status;
use anyhow::{Context as _, anyhow};
use clap::Args;
use serde::Serialize;

use crate::failure::{Advise, Code, FAILED, MAY_HAVE_RUN};
use crate::graph::Graph;
use crate::launch::files::Porter;
use crate::launch::owner::Owner;
use crate::launch::{self, Launcher, Plan};
use crate::out::printable;
use crate::{Context, Standard, Start, duration, place};
use control::{End, Job};
use streams::{Joint, Streams};

/// The exit code of what is neither the command's fault nor the caller's.
pub(crate) const OUR_FAULT: u8 = 125;
const TIMEOUT: u8 = 124;

/// The terminal's size where there is none to ask.
const WINDOW_DEFAULT: (u16, u16) = (24, 80);

/// Run a command as an Amoeba process
///
/// The command reads this standard input, writes this standard output and error, has these environment strings and
/// this working directory, and gets the signals that come here. A third interrupt kills it. Starts a private system when
/// none runs. Of several hosts it runs on the least loaded one that can run it.
///
/// COMMAND is a name in /home/bin or /bin of the directory graph, or a program of the host along PATH. With a `/` in it,
/// a file of the host if there is one, else a path in the graph. A capability is a program too. One word with a `|` in it
/// is a pipeline, 'a | b': each of its commands has a host of its own, and what they say to each other does not pass here.
#[derive(Args)]
#[command(after_help = "\
Exit code: the command's own, in a pipeline the last one's; 128 + N when signal N ended it; 124 after the timeout; 125 \
when nothing ran because this program failed or its command line is wrong; 126 when the command cannot be executed; 127 \
when it was not found; 75 when it may have run; 1 when it succeeded, but its output could not be written.")]
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
    /// Be what stays behind of the same command
    #[arg(long, hide = true, requires = "detach")]
    stay: bool,
    #[command(flatten)]
    how: launch::Options,
    /// With -d, and for changes of files: print JSON
    #[arg(long)]
    json: bool,
    /// The command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Serialize)]
struct Detached {
    id: u16,
    host: String,
}

impl Arguments {
    pub(crate) fn run(self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let commands = self.commands()?;
        if self.detach && self.how.files.any() {
            return Err(anyhow!("--in and --out are for a command that is waited for, not with -d"));
        }
        if self.detach && !self.stay && self.how.is_served()? {
            return staying::leave_behind(context, &self.command);
        }
        place::one_standard_input(commands.iter().map(|words| &words[0]))?;
        let graph = Graph::new(context.system.connect(Start::IfNeeded)?);
        let mut launcher = Launcher::new(&graph, &self.how)?;
        let plan = |words: &Vec<OsString>| {
            let (program, need) = launcher.program(&graph, &words[0])?;
            Ok(launcher.plan(program, need, &words[0], &words[1..]))
        };
        // All are found before any is started.
        let mut plans = commands.iter().map(plan).collect::<anyhow::Result<Vec<Plan>>>()?;
        launcher.show(&graph, &mut plans)?;
        if let Some(sight) = &launcher.sight {
            plans.iter_mut().try_for_each(|plan| sight.describe(&mut plan.descriptor))?;
        } else if self.json && !self.detach {
            return Err(anyhow!("--json is for -d, and for changes of files"));
        }
        if self.detach {
            let plan = plans.pop().expect("a pipeline is not detached, and there is one command at least");
            return self.start_detached(context, &graph, &launcher, plan);
        }
        let code =
            self.with_files(&graph, &mut plans, |plans| self.run_attached(context, &graph, &launcher, plans));
        let Some(sight) = &launcher.sight else { return code };
        let (fine, code) = (sight.tell(self.json), code?);
        if code != ExitCode::SUCCESS {
            sight.advise();
        }
        Ok(if fine || code != ExitCode::SUCCESS { code } else { ExitCode::from(FAILED) })
    }

    /// The words of each command: one command, unless it is a pipeline.
    fn commands(&self) -> anyhow::Result<Vec<Vec<OsString>>> {
        let pipeline = match &self.command[..] {
            [word] => word.to_str().filter(|word| pipeline::is_pipeline(word)),
            _ => None,
        };
        let Some(text) = pipeline else { return Ok(vec![self.command.clone()]) };
        if self.detach || self.tty {
            let option = if self.detach { "-d" } else { "-t" };
            return Err(anyhow!("{option} is for one command, not for a pipeline"))
                .hint("`amoeba run ... -- sh -c '...'` runs all of it on one host");
        }
        let commands = pipeline::parse(text).with_context(|| text.to_owned());
        let commands = commands.hint("`amoeba run -- sh -c '...'` has a shell do it, on one host")?;
        Ok(commands.into_iter().map(|words| words.into_iter().map(OsString::from).collect()).collect())
    }

    /// Runs the command with the files that go along, and brings back what it has left.
    fn with_files(
        &self,
        graph: &Graph,
        plans: &mut [Plan],
        run: impl FnOnce(&mut [Plan]) -> anyhow::Result<(u8, Vec<ResultRecord>)>,
    ) -> anyhow::Result<ExitCode> {
        if !self.how.files.any() {
            return Ok(ExitCode::from(run(plans)?.0));
        }
        let [plan] = plans else {
            return Err(anyhow!("--in and --out are for one command, not for a pipeline"));
        };
        let luggage = self.how.files.luggage(<[u8]>::to_vec)?;
        let porter = Porter::new(graph)?;
        let sent = porter.send(&luggage)?;
        plan.need.ship = luggage.size();
        plan.descriptor.scratch = Some(sent.scratch.clone());
        let (code, left) = run(plans)?;
        porter.fetch(&luggage, &left, code == 0)?;
        Ok(ExitCode::from(code))
    }

    fn start_detached(
        &self,
        context: &mut Context<'_>,
        graph: &Graph,
        launcher: &Launcher,
        mut plan: Plan,
    ) -> anyhow::Result<ExitCode> {
        let world = graph.world();
        plan.descriptor.detached = true;
        let bytes = launch::encoded(&plan.descriptor, &plan.shown)?;
        let started = launch::start(launcher, world, &plan.need, None, &plan.descriptor, &bytes)
            .map_err(|why| launch::not_started(why, &plan.shown, &plan.descriptor))?;
        let (target, process) = (&started.target, started.process);
        target.note(world, &process);
        let id = (process.object().get() & 0xFFFF) as u16;
        let name = target.name_of(&process);
        let printed = if self.json {
            context.out.json(&Detached { id, host: target.host.clone() })
        } else {
            context.out.line(&name)
        };
        let printed = printed.and_then(|()| context.out.flush());
        printed.with_context(|| format!("the process {name} runs, but that cannot be said")).code(FAILED)?;
        if self.stay {
            staying::stay(context, world, launcher, &started, self.json);
        }
        Ok(ExitCode::SUCCESS)
    }

    fn run_attached(
        &self,
        context: &Context<'_>,
        graph: &Graph,
        launcher: &Launcher,
        plans: &mut [Plan],
    ) -> anyhow::Result<(u8, Vec<ResultRecord>)> {
        let console = context.system.console();
        let world = graph.world();
        let streams = Streams::serve(world, plans.len(), self.tty)?;
        let mut joints = Joint::between(world, plans.len())?;
        let owner = Owner::serve(world, context.is_terminal(Standard::Error))?;
        for (number, plan) in plans.iter_mut().enumerate() {
            plan.descriptor.owner = owner.capability();
            streams.join(number, &joints, self.tty, &mut plan.descriptor);
        }
        // Of a pipeline, those who read what others write must hear of its end.
        let awaited = plans.len() == 1;
        plans[0].descriptor.awaited = awaited;
        if self.tty {
            let (rows, columns) = console.size().unwrap_or(WINDOW_DEFAULT);
            plans[0].descriptor.terminal = Some(WindowSize { rows, columns });
        }
        let mut job = Job::new(world, console)?;
        // From the right to the left, so that whoever writes finds a reader.
        for plan in plans.iter().rev() {
            let started = launch::encoded(&plan.descriptor, &plan.shown).and_then(|bytes| {
                launch::start(launcher, world, &plan.need, None, &plan.descriptor, &bytes)
                    .map_err(|why| launch::not_started(why, &plan.shown, &plan.descriptor))
            });
            match started {
                Ok(started) => job.add(started.target, started.process)?,
                Err(error) => {
                    job.kill();
                    return Err(error);
                }
            }
        }
        job.all_run();
        if let Some(timeout) = self.timeout {
            job.limit(timeout);
        }
        let keys =
            if self.tty && context.is_terminal(Standard::Input) { Some(console.raw_mode()?) } else { None };
        streams.start(world)?;
        let last = plans.len() - 1;
        // The process that was started first is the last one of the pipeline.
        let mut ends = job.wait(|number| Joint::close(world, &mut joints, last - number));
        ends.reverse();
        // Also without the process server's word: what has come is shown.
        let delivered = streams.finish();
        drop(keys);
        if !awaited {
            owner.wait_until_told(ends.iter().filter(|end| end.result.is_ok()).count());
        }
        let (code, left) = result_of(plans, ends)?;
        let code = if job.timed_out() { TIMEOUT } else { code };
        delivered.map_err(|error| not_delivered(error, code))?;
        Ok((code, left))
    }
}

/// The command ran, so it is not our exit code: its own, unless that would say that all is well.
fn not_delivered(error: std::io::Error, code: u8) -> anyhow::Error {
    let code = if code == 0 { FAILED } else { code };
    anyhow::Error::from(error)
        .context("the command ran, but its output could not be written")
        .context(Code(code))
}

/// The exit code of the last command and the files it has left, when all have run to their end.
fn result_of(plans: &[Plan], ends: Vec<End>) -> anyhow::Result<(u8, Vec<ResultRecord>)> {
    let (mut code, mut left) = (0, Vec::new());
    for (plan, End { target, result }) in plans.iter().zip(ends) {
        let exit = result
            .map_err(|error| launch::lost(error, &target))
            .with_context(|| plan.shown.clone())
            .hint("nobody knows whether it ran to its end: `amoeba ps -a` and `amoeba status` show what is left")
            .code(MAY_HAVE_RUN)?;
        if Status(exit.status).is_error() {
            let why = String::from_utf8_lossy(&exit.reason).into_owned();
            let why = if why.is_empty() { Status(exit.status).to_string() } else { why };
            return Err(launch::failed(&plan.shown, why, exit.code));
        }
        if !exit.reason.is_empty() {
            // It ran, so how it ended is its own; this says why it may have ended so.
            let why = printable(&exit.reason);
            let _ = writeln!(std::io::stderr(), "amoeba: {}: {why}", plan.shown);
        }
        (code, left) = (exit.code, exit.results);
    }
    Ok((code, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_output_is_a_failure_but_not_one_to_start_the_command() {
        for (code, expected) in [(0, 1), (7, 7), (TIMEOUT, TIMEOUT)] {
            let error = not_delivered(std::io::Error::from_raw_os_error(28), code);
            let report = crate::failure::report(&error, OUR_FAULT);
            let text = "amoeba: the command ran, but its output could not be written: \
                        No space left on device (os error 28)\n";
            assert_eq!((report.text.as_deref(), report.code), (Some(text), expected));
        }
    }
}
