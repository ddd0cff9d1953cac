//! A compilation on another host: what it is given, and what becomes of it.
//!
//! What it prints is kept until it has ended: when it failed, or its host was lost, nobody has seen anything of it, and it is
//! compiled here.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};

use amoeba_cap::Capability;
use amoeba_name::Environment;
use amoeba_process::{ProcessDescriptor, Program};
use amoeba_stream::Sink;
use amoeba_stubs::Client;
use amoeba_stubs::process::{self, ExitRecord};
use amoeba_threads::JoinHandle;
use amoeba_wire::Status;
use amoeba_world::{Error as Refusal, World};
use anyhow::{Context as _, anyhow};

use super::line::Compilation;
use super::trees::{self, Seen};
use crate::failure::Code;
use crate::graph::Graph;
use crate::launch;
use crate::launch::owner::Owner;
use crate::launch::pool::{Pool, Target};
use crate::launch::view::Sight;
use crate::out::printable;
use crate::spool::{self, Spool, Store};
use crate::{Context, Standard};

/// Threads that serve what it prints.
const STREAM_THREADS: usize = 2;
/// The signal that ends this program at once when it comes this often.
const SIGNALS_TO_LEAVE: usize = 2;
/// Bytes of what a compiler has said in which a reason is looked for.
const COMPLAINT_SIZE_MAX: usize = 64 << 10;
const SIGNALS: [i32; 3] = [1, 2, 15];
/// Programs that look like compilers and are something in front of one.
const IN_FRONT: [&str; 5] = ["ccache", "distcc", "icecc", "sccache", "amoeba"];
/// Has a compiler colour what it says, although it does not see the terminal.
const COLOUR: &str = "-fdiagnostics-color=always";

/// See the module.
pub(super) struct Job {
    program: PathBuf,
    arguments: Vec<OsString>,
    seen: Seen,
    colour: bool,
}

enum Event {
    Signal(i32),
    Ended(Result<ExitRecord, Refusal>),
}

/// An output, while it comes.
struct Output {
    sink: Sink,
    collector: JoinHandle<(Spool, std::io::Result<()>)>,
}

impl Job {
    /// What another host is to do.
    ///
    /// # Errors
    /// A clause for people: why it would not be the same there.
    pub(super) fn new(command: &[OsString], compilation: &Compilation) -> Result<Job, String> {
        let directory = std::env::current_dir().map_err(|error| format!("the working directory: {error}"))?;
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let named = std::env::var_os("PWD");
        let seen = trees::seen(compilation, &directory, named.as_deref(), home.as_deref())?;
        let program = find(command, &seen).ok_or("the compiler is not where other hosts see it")?;
        let colour = !compilation.says_colour;
        Ok(Job { program, arguments: command.to_vec(), seen, colour })
    }

    /// Compiles on `target`. The outer error: the person has interrupted it.
    ///
    /// # Errors
    /// A clause for people: why it has to be compiled here.
    pub(super) fn run(
        &self,
        context: &mut Context<'_>,
        graph: &Graph,
        pool: &Pool,
        target: &Target,
    ) -> anyhow::Result<Result<(), String>> {
        let world = graph.world();
        let (sender, events) = mpsc::channel();
        catch_signals(context, world, sender.clone())?;
        let streams = spool::streams(world, STREAM_THREADS)?;
        let ((out, out_sink), (errors, error_sink)) = (streams.sink()?, streams.sink()?);
        let owner = Owner::serve(world, false)?;
        let sight = Sight::of_project(world, &self.seen.project)?;
        let mut descriptor = self.descriptor(context);
        sight.describe(&mut descriptor)?;
        descriptor.owner = owner.capability();
        for (name, object) in [(Environment::STDOUT, out), (Environment::STDERR, errors)] {
            descriptor.capabilities.push((name.as_bytes().to_vec(), object));
        }
        let bytes = descriptor.encode()?;
        let started = match target.exec(world, bytes) {
            Ok(process) => process,
            Err(error) => {
                if matches!(error, Refusal::NotSent(_)) {
                    pool.doubt(&target.host);
                }
                return Ok(Err(error.to_string()));
            }
        };
        let store = Store::default();
        let outputs = [Output::keep(world, &store, out_sink)?, Output::keep(world, &store, error_sink)?];
        wait(world, target, started, sender)?;
        let ended = until_it_ends(world, target, &started, &events)?;
        let [out, errors] = outputs.map(Output::end);
        if let Err(why) = judge(ended) {
            let said = errors.as_ref().and_then(complaint);
            return Ok(Err(said.map_or(why.clone(), |said| format!("{why}: {said}"))));
        }
        if !sight.is_fine() {
            return Ok(Err("not all that it wrote has come back".into()));
        }
        let (Some(out), Some(errors)) = (out, errors) else {
            return Ok(Err("what it printed is lost".into()));
        };
        errors.write_to(&mut std::io::stderr().lock()).context("standard error")?;
        out.write_to(&mut context.out).context("standard output")?;
        context.out.flush()?;
        Ok(Ok(()))
    }

    fn descriptor(&self, context: &Context<'_>) -> ProcessDescriptor {
        let mut arguments: Vec<Vec<u8>> =
            self.arguments.iter().map(|word| word.as_bytes().to_vec()).collect();
        if self.colour && context.is_terminal(Standard::Error) && is_coloured() {
            arguments.insert(1, COLOUR.into());
        }
        let program = Program::HostPath(self.program.as_os_str().as_bytes().to_vec());
        let mut descriptor = ProcessDescriptor::new("", program, arguments);
        descriptor.environment = launch::environment(&[]);
        descriptor.working_directory = self.seen.directory.as_os_str().as_bytes().to_vec();
        descriptor
    }
}

impl Output {
    fn keep(world: &World, store: &Store, sink: Sink) -> anyhow::Result<Output> {
        let (from, mut spool) = (sink.clone(), store.spool());
        let collector = world.threads.spawn("output", move || {
            let kept = spool::keep(&from, &mut spool);
            (spool, kept)
        })?;
        Ok(Output { sink, collector })
    }

    /// All that came; `None` if not all of it was kept.
    fn end(self) -> Option<Spool> {
        self.sink.end();
        let (spool, kept) = self.collector.join()?;
        kept.ok().map(|()| spool)
    }
}

/// The program that the first word names along PATH, unless it is not the compiler itself, or lies where only this host sees it.
fn find(command: &[OsString], seen: &Seen) -> Option<PathBuf> {
    let word = Path::new(command.first()?);
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    let found = if word.components().count() > 1 || word.is_absolute() {
        Some(seen.directory.join(word)).filter(is_program)
    } else {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|folder| folder.join(word)).find(is_program)
    }?;
    let real = found.canonicalize().ok()?;
    let name = real.file_name()?.to_string_lossy().into_owned();
    let visible =
        [&found, &real].into_iter().all(|path| trees::is_of_system(path) || path.starts_with(&seen.project));
    (visible && !IN_FRONT.iter().any(|front| name.contains(front))).then_some(found)
}

/// Whether compilers colour what they say to a terminal.
fn is_coloured() -> bool {
    let term = std::env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    term && std::env::var_os("GCC_COLORS").is_none_or(|colours| !colours.is_empty())
}

fn catch_signals(context: &Context<'_>, world: &World, to: Sender<Event>) -> anyhow::Result<()> {
    let mut signals = context.system.console().signals(&SIGNALS)?;
    world.threads.spawn("signals", move || {
        let mut count = 0;
        while let Some(signal) = signals.next() {
            count += 1;
            if count == SIGNALS_TO_LEAVE || to.send(Event::Signal(signal)).is_err() {
                std::process::exit(128 + signal);
            }
        }
    })?;
    Ok(())
}

fn wait(world: &World, target: &Target, process: Capability, to: Sender<Event>) -> anyhow::Result<()> {
    let (waiting, target) = (world.clone(), target.clone());
    world.threads.spawn("process", move || {
        // A receiver that has gone has ended the program.
        let _ = to.send(Event::Ended(target.wait(&waiting, &process)));
    })?;
    Ok(())
}

/// How it ended; a signal that comes here goes there, and then ends this program too.
fn until_it_ends(
    world: &World,
    target: &Target,
    process: &Capability,
    events: &Receiver<Event>,
) -> anyhow::Result<Result<ExitRecord, Refusal>> {
    let mut interrupted = None;
    loop {
        match events.recv().context("nobody waits for it")? {
            Event::Signal(signal) => {
                interrupted = Some(u8::try_from(signal).unwrap_or(0));
                let options = target.options();
                let client = Client::new(&*world.transactions, &options);
                // One that has just ended hears nothing, as with any signal.
                let _ = process::signal(client, process, u8::try_from(signal).unwrap_or(9));
            }
            Event::Ended(ended) => {
                return match interrupted {
                    Some(signal) => Err(anyhow!("interrupted").context(Code(128u8.saturating_add(signal)))),
                    None => Ok(ended),
                };
            }
        }
    }
}

/// The line of what a compiler has said that tells what is wrong.
fn complaint(errors: &Spool) -> Option<String> {
    let mut said = Vec::new();
    errors.write_to(&mut said).ok()?;
    let said = String::from_utf8_lossy(&said[..said.len().min(COMPLAINT_SIZE_MAX)]);
    let line = said.lines().find(|line| line.contains("error")).or_else(|| said.lines().next())?;
    Some(printable(line.as_bytes()))
}

fn judge(ended: Result<ExitRecord, Refusal>) -> Result<(), String> {
    let exit = ended.map_err(|error| format!("it was lost: {error}"))?;
    if Status(exit.status).is_error() {
        return Err(String::from_utf8_lossy(&exit.reason).into_owned());
    }
    if exit.code == 0 { Ok(()) } else { Err(format!("exit code {}", exit.code)) }
}
