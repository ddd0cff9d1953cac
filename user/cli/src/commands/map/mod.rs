//! `amoeba map`: one command for each of many arguments, over the hosts of the pool.
//!
//! [`work`] runs the processes, a few at a time; [`spool`] keeps what they write until its turn has come;
//! [`journal`] remembers what is done.

mod journal;
mod work;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use amoeba_stubs::process;
use amoeba_threads::{Condition, Mutex};
use amoeba_world::World;
use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::failure::{Advise, Code, FAILED};
use crate::graph::Graph;
use crate::launch::files::Porter;
use crate::launch::owner::Owner;
use crate::launch::{self, CANNOT_EXECUTE, Launcher};
use crate::out::printable;
use crate::spool::{self, Spool, Store};
use crate::{Context, Standard, Start};
use journal::Journal;
use work::{Done, Event, Progress, Work};

/// What stands between the command and its arguments.
const SEPARATOR: &str = ":::";
/// Arguments of one map.
const ARGUMENTS_MAX: usize = 1_000_000;
/// Processes that run at the same time.
const JOBS_MAX: usize = 256;
/// Threads that serve the outputs of all processes; each answers at once, or later from elsewhere.
const STREAM_THREADS: usize = 4;
/// Bytes of an output that a line of JSON holds.
const JSON_OUTPUT_MAX: usize = 1 << 20;
/// How long processes may take to end after an interrupt.
const GRACE: Duration = Duration::from_secs(2);
/// The signal that ends this program at once when it comes this often.
const SIGNALS_TO_LEAVE: usize = 3;

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGKILL: u8 = 9;
const SIGTERM: i32 = 15;

/// Run a command once for each of many arguments, over all hosts
///
/// The arguments come after `:::`, or are the lines of the standard input. Each takes the place of every {} in the
/// command's own arguments, or goes to the end where there is no {}. Outputs are shown in the order of the arguments,
/// whichever ends first. After a failure nothing new is started, unless --keep-going says so.
#[derive(Args)]
#[command(after_help = "\
Examples: amoeba map gzip -k ::: *.log
          amoeba map --in {} --out {}.gz gzip -k ::: *.log    (on hosts that do not have the files)
Exit code: 0 when all succeeded; else the code of the first failure in the order of the arguments, as `amoeba run` gives \
it; 128 + N when signal N ended it.")]
pub(crate) struct Arguments {
    /// So many at a time; without it as many as the hosts have processors
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=JOBS_MAX as i64))]
    jobs: Option<u16>,
    /// Go on after a failure
    #[arg(short, long)]
    keep_going: bool,
    /// Try what did not run so often again, elsewhere if need be
    #[arg(long, value_name = "N", default_value_t = 2)]
    retries: u32,
    /// Also try again what may have run (75), because its host was lost: only for what may run twice
    #[arg(long)]
    retry_maybe: bool,
    /// Remember in FILE what has succeeded, and leave out what it remembers: the same command again goes on
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Arguments on the standard input end with a NUL, not with a newline
    #[arg(short = '0', long)]
    null: bool,
    #[command(flatten)]
    how: launch::Options,
    /// Print a line of JSON for each argument: arg, host, code, ms, what it wrote
    #[arg(long)]
    json: bool,
    /// The command and its arguments, `:::`, the arguments of the map
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Serialize)]
struct Line {
    arg: String,
    host: Option<String>,
    code: u8,
    ms: u64,
    /// What went wrong, when that was not the command's own doing.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    stdout: String,
    stderr: String,
    /// Whether more was written than is shown.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
}

impl Arguments {
    pub(crate) fn run(mut self, context: &mut Context<'_>) -> anyhow::Result<ExitCode> {
        let mut arguments = self.take_arguments(&mut io::stdin().lock())?;
        let journal = self.journal.as_deref().map(|path| Journal::open(path, &self.command)).transpose()?;
        let mut journal = journal.map(|mut journal| {
            journal.leave_out(&mut arguments);
            journal
        });
        if arguments.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let graph = Graph::new(context.system.connect(Start::IfNeeded)?);
        let mut launcher = Launcher::new(&graph, &self.how)?;
        let (program, need) = launcher.program(&graph, &self.command[0])?;
        let mut plan = launcher.plan(program, need, &self.command[0], &self.command[1..]);
        launcher.show(&graph, std::slice::from_mut(&mut plan))?;
        let world = graph.world().clone();
        let owner = Owner::serve(&world, false)?;
        plan.descriptor.owner = owner.capability();
        let jobs = self.jobs(&launcher, &world)?.min(arguments.len());
        let hosts = launcher.targets(&plan.need, jobs);
        let hosts = hosts.map_err(|why| anyhow!("no host can run it\n{}", why.trim_end()));
        let hosts = hosts.with_context(|| plan.shown.clone()).code(CANNOT_EXECUTE)?;
        let luggage = if self.how.files.any() { Some((self.how.files, Porter::new(&graph)?)) } else { None };
        let total = arguments.len();
        let work = Arc::new(Work {
            launcher,
            plan,
            arguments,
            luggage,
            retries: self.retries,
            retry_maybe: self.retry_maybe,
            keep_going: self.keep_going,
            streams: spool::streams(&world, STREAM_THREADS)?,
            store: Store::default(),
            progress: Mutex::new(&world.threads, Progress::default()),
            changed: Condition::new(&world.threads),
            world: world.clone(),
        });
        let (sender, events) = mpsc::channel();
        catch_signals(context, &world, sender.clone())?;
        for host in hosts {
            let (work, to) = (work.clone(), sender.clone());
            world.threads.spawn("worker", move || work.work(Some(host), &to))?;
        }
        let bar = bar(context, total);
        let show = Show { work: &work, json: self.json, bar: &bar };
        let shown = show.all(context, &sender, &events, |argument| match &mut journal {
            Some(journal) => journal.write(argument).context("the journal"),
            None => Ok(()),
        });
        bar.finish_and_clear();
        let Some(sight) = &work.launcher.sight else { return shown };
        let (fine, code) = (sight.tell(self.json), shown?);
        if code != ExitCode::SUCCESS {
            sight.advise();
        }
        Ok(if fine || code != ExitCode::SUCCESS { code } else { ExitCode::from(FAILED) })
    }

    /// Takes the arguments of the map off the command line, or reads them.
    fn take_arguments(&mut self, input: &mut dyn BufRead) -> anyhow::Result<Vec<Vec<u8>>> {
        let separator = self.command.iter().position(|word| word == SEPARATOR);
        let Some(at) = separator else { return read_arguments(input, if self.null { 0 } else { b'\n' }) };
        let mut arguments = self.command.split_off(at);
        if self.command.is_empty() {
            bail!("there is no command before {SEPARATOR}");
        }
        Ok(arguments.drain(1..).map(OsStringExt::into_vec).collect())
    }

    /// How many processes are to run at the same time.
    fn jobs(&self, launcher: &Launcher, world: &World) -> anyhow::Result<usize> {
        if let Some(jobs) = self.jobs {
            return Ok(jobs.into());
        }
        let cpus = if launcher.is_pinned() || launcher.pool.is_alone() {
            let target =
                launcher.targets(&launcher.pool.need(), 1).ok().and_then(|hosts| hosts.first().cloned());
            let target = target.unwrap_or_else(|| launcher.pool.here());
            process::load(world, &target.server)?.cpus
        } else {
            let hosts = launcher.pool.hosts()?;
            let up = hosts.iter().filter(|host| host.state == amoeba_stubs::pool::STATE_UP);
            up.map(|host| host.cpus).fold(0, u32::saturating_add)
        };
        Ok(usize::try_from(cpus).unwrap_or(JOBS_MAX).clamp(1, JOBS_MAX))
    }
}

/// One argument a line; empty ones are left out, as at the end of a file.
fn read_arguments(input: &mut dyn BufRead, end: u8) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut arguments = Vec::new();
    loop {
        let mut line = Vec::new();
        if input.read_until(end, &mut line).context("standard input")? == 0 {
            return Ok(arguments);
        }
        if line.last() == Some(&end) {
            line.pop();
        }
        if line.is_empty() {
            continue;
        }
        if arguments.len() == ARGUMENTS_MAX {
            bail!("more than {ARGUMENTS_MAX} arguments");
        }
        arguments.push(line);
    }
}

fn catch_signals(context: &Context<'_>, world: &World, to: Sender<Event>) -> anyhow::Result<()> {
    let mut signals = context.system.console().signals(&[SIGHUP, SIGINT, SIGTERM])?;
    world.threads.spawn("signals", move || {
        let mut count = 0;
        while let Some(signal) = signals.next() {
            count += 1;
            let number = u8::try_from(signal).unwrap_or(SIGKILL);
            if count == SIGNALS_TO_LEAVE || to.send(Event::Signal(number)).is_err() {
                std::process::exit(128 + signal);
            }
        }
    })?;
    Ok(())
}

fn bar(context: &Context<'_>, total: usize) -> ProgressBar {
    let target = if context.is_terminal(Standard::Error) {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(total as u64), target);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} {elapsed}") {
        bar.set_style(style);
    }
    bar
}

/// Shows what has ended, in the order of the arguments.
struct Show<'a> {
    work: &'a Arc<Work>,
    json: bool,
    bar: &'a ProgressBar,
}

impl Show<'_> {
    fn all(
        &self,
        context: &mut Context<'_>,
        sender: &Sender<Event>,
        events: &Receiver<Event>,
        mut succeeded: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<ExitCode> {
        let mut waiting: BTreeMap<usize, Done> = BTreeMap::new();
        let (mut ended, mut next, mut failed, mut first_failure, mut signal) = (0, 0, 0, None, None);
        while ended < self.work.arguments.len() && !self.is_over(ended) {
            match events.recv().context("all workers are gone")? {
                Event::Done(done) => {
                    ended += 1;
                    failed += usize::from(done.code != 0);
                    self.bar.set_position(ended as u64);
                    self.bar.set_message(format!("{failed} failed"));
                    waiting.insert(done.index, *done);
                }
                Event::Signal(number) => {
                    self.work.end(if signal.is_some() { SIGKILL } else { number });
                    signal = Some(number);
                    self.kill_after_grace(sender);
                }
                Event::Grace => self.work.end(SIGKILL),
            }
            while let Some(done) = waiting.remove(&next) {
                next += 1;
                if done.code != 0 {
                    first_failure.get_or_insert(done.code);
                }
                let (index, is_good) = (done.index, done.code == 0);
                self.one(context, done)?;
                if is_good {
                    succeeded(&self.work.arguments[index])?;
                }
                self.work.shown(next);
            }
        }
        match (signal, first_failure) {
            (Some(signal), _) => Err(anyhow!("interrupted").context(Code(128u8.saturating_add(signal)))),
            (None, code) => Ok(ExitCode::from(code.unwrap_or(0))),
        }
    }

    /// Whether nothing more will end because nothing more was begun.
    fn is_over(&self, ended: usize) -> bool {
        self.work.is_stopped() && self.work.taken() == ended
    }

    fn kill_after_grace(&self, sender: &Sender<Event>) {
        let (threads, to) = (self.work.world.threads.clone(), sender.clone());
        // Without a thread the person interrupts a second time.
        let _ = self.work.world.threads.spawn("grace", move || {
            threads.sleep(GRACE);
            // Nobody waits any more when all has ended before.
            let _ = to.send(Event::Grace);
        });
    }

    fn one(&self, context: &mut Context<'_>, done: Done) -> anyhow::Result<()> {
        if self.json {
            return self.bar.suspend(|| {
                let text = serde_json::to_string(&self.line(&done)?).context("cannot be said in JSON")?;
                context.out.line(text)?;
                context.out.flush()
            });
        }
        self.bar.suspend(|| {
            if !done.output.is_empty() {
                done.output.write_to(&mut context.out).context("standard output")?;
                context.out.flush()?;
            }
            // Standard error may be closed; the exit code still tells.
            let mut stderr = io::stderr().lock();
            let _ = done.errors.write_to(&mut stderr);
            if done.code != 0 {
                let argument = printable(&self.work.arguments[done.index]);
                let at = if done.host.is_empty() { String::new() } else { format!(" on {}", done.host) };
                let why = done.why.unwrap_or_else(|| format!("exit code {}{at}", done.code));
                let _ = writeln!(stderr, "amoeba: {argument}: {why}");
            }
            Ok(())
        })
    }

    fn line(&self, done: &Done) -> anyhow::Result<Line> {
        let (stdout, stdout_cut) = text(&done.output)?;
        let (stderr, stderr_cut) = text(&done.errors)?;
        Ok(Line {
            arg: String::from_utf8_lossy(&self.work.arguments[done.index]).into_owned(),
            host: Some(done.host.clone()).filter(|host| !host.is_empty()),
            code: done.code,
            ms: u64::try_from(done.time.as_millis()).unwrap_or(u64::MAX),
            why: done.why.clone(),
            stdout,
            stderr,
            cut: stdout_cut || stderr_cut,
        })
    }
}

/// The beginning of an output as text, and whether there was more.
fn text(output: &Spool) -> anyhow::Result<(String, bool)> {
    let mut beginning = Beginning::default();
    output.write_to(&mut beginning).context("what was kept of the output")?;
    Ok((String::from_utf8_lossy(&beginning.bytes).into_owned(), beginning.cut))
}

/// The first bytes of what is written to it.
#[derive(Default)]
struct Beginning {
    bytes: Vec<u8>,
    cut: bool,
}

impl Write for Beginning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = JSON_OUTPUT_MAX - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        self.cut |= bytes.len() > room;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        map: Arguments,
    }

    fn taken(words: &[&str], input: &str) -> (Vec<OsString>, Vec<Vec<u8>>) {
        let mut line = Line::try_parse_from(["map"].iter().chain(words)).expect("the line is right");
        let arguments = line.map.take_arguments(&mut input.as_bytes()).expect("there are not too many");
        (line.map.command, arguments)
    }

    #[test]
    fn arguments_come_after_three_colons_or_from_lines() {
        let (command, arguments) = taken(&["-j", "2", "echo", "-n", "x", ":::", "a", "-b", ":::"], "");
        assert_eq!(command, ["echo", "-n", "x"]);
        assert_eq!(arguments, [&b"a"[..], b"-b", b":::"]);
        let (command, arguments) = taken(&["echo"], "one\ntwo words\n\nlast");
        assert_eq!(command, ["echo"]);
        assert_eq!(arguments, [&b"one"[..], b"two words", b"last"]);
        let (_, arguments) = taken(&["-0", "echo"], "a\nb\0c\0");
        assert_eq!(arguments, [&b"a\nb"[..], b"c"]);
        let (_, arguments) = taken(&["echo", ":::"], "not read");
        assert!(arguments.is_empty());
    }

    #[test]
    fn a_map_needs_a_command() {
        let mut line = Line::try_parse_from(["map", ":::", "a"]).expect("clap does not know");
        assert!(line.map.take_arguments(&mut &b""[..]).is_err());
        assert!(Line::try_parse_from(["map"]).is_err());
        assert!(Line::try_parse_from(["map", "-j", "0", "x"]).is_err());
    }
}
