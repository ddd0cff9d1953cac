//! What `run` and `map` have in common: from words to a process descriptor, and from a descriptor to a process on a host
//! that takes it.
//!
//! - [`program`] finds what is to run, [`pool`] where.
//! - [`limits`]: how much of its host it may use.
//! - [`view`]: which files it sees; [`graph_view`]: the graph's.
//! - [`files`] go along with it and come back.
//! - [`owner`] is the object that hears of a process's end.

pub(crate) mod files;
mod graph_view;
pub(crate) mod limits;
pub(crate) mod owner;
pub(crate) mod pool;
pub(crate) mod program;
pub(crate) mod view;

use std::ffi::{OsStr, OsString};
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::mpsc;

use amoeba_cap::Capability;
use amoeba_name::{Environment, Names};
use amoeba_place::Need;
use amoeba_process::{
    DESCRIPTOR_SIZE_MAX, PATH_SIZE_MAX, ProcessDescriptor, Program, STRING_SIZE_MAX, STRINGS_MAX, View,
};
use amoeba_stubs::{bullet, process};
use amoeba_wire::Status;
use amoeba_world::{Error as Refusal, World};
use anyhow::{Context as _, anyhow};
use clap::Args;

use crate::failure::{Advise, Code, Hint, MAY_HAVE_RUN};
use crate::graph::{self, Graph};
use pool::{Pool, Target};
use program::Found;

/// The exit code of what cannot be executed.
pub(crate) const CANNOT_EXECUTE: u8 = 126;
/// The exit code of what is not there.
pub(crate) const NOT_FOUND: u8 = 127;

/// The original's status for a program that is not there.
const NO_PROGRAM: Status = Status(-1900);
/// The original's status for a program that cannot be read.
const UNREADABLE: Status = Status(-1902);
/// Environment strings that say where this program's own system and capabilities are; the process gets its own.
const NOT_PASSED_ON: [&str; 3] = ["AMOEBA_CAPS_FD", "AMOEBA_SOCKET", "AMOEBA_STATE"];
/// Hosts that are tried for one process.
const HOSTS_TRIED_MAX: usize = 4;
/// Bytes at the beginning of a program that tell what it is for.
const HEAD_SIZE: usize = 20;

/// What a person may say about how a command is to run.
#[derive(Args)]
pub(crate) struct Options {
    /// Run it on this host; without it the pool's least loaded host is chosen
    #[arg(long, value_name = "HOST")]
    on: Option<String>,
    /// Set an environment string for it; may be given several times
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    env: Vec<(OsString, OsString)>,
    /// Its working directory; without it this one
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<PathBuf>,
    #[command(flatten)]
    limits: limits::LimitOptions,
    #[command(flatten)]
    view: view::ViewOptions,
    #[command(flatten)]
    graph_view: graph_view::GraphOptions,
    #[command(flatten)]
    pub(crate) files: files::FileOptions,
    /// Say on standard error where it runs, and when it sees other files than it was meant to
    #[arg(short, long)]
    verbose: bool,
}

impl Options {
    /// Whether this program serves what the processes see.
    ///
    /// # Errors
    /// Options that contradict each other.
    pub(crate) fn is_served(&self) -> anyhow::Result<bool> {
        Ok(self.view.whose(self.files.any())?.0 == view::Whose::Mine)
    }
}

/// What all processes of one command have in common.
pub(crate) struct Launcher {
    pub(crate) pool: Pool,
    on: Option<Target>,
    directory: PathBuf,
    environment: Vec<Vec<u8>>,
    /// The root directory as this program has it.
    root: Capability,
    capabilities: Vec<(Vec<u8>, Capability)>,
    limits: limits::LimitOptions,
    /// What the processes are to see, until it is served.
    chosen: Option<view::Chosen>,
    /// The files of this host that the processes see, unless they see others.
    pub(crate) sight: Option<view::Sight>,
    /// The part of the graph that they see instead.
    graph_view: Option<graph_view::GraphView>,
    verbose: bool,
    /// Names of files that go along and may be the program.
    carried: Vec<Vec<u8>>,
}

/// A process to be started.
pub(crate) struct Plan {
    /// The command for people: a capability is not repeated.
    pub(crate) shown: String,
    pub(crate) descriptor: ProcessDescriptor,
    pub(crate) need: Need,
}

/// A process that runs.
pub(crate) struct Started {
    pub(crate) target: Target,
    pub(crate) process: Capability,
    /// Whether it sees files that this program serves.
    pub(crate) needs_us: bool,
}

/// Why a process was not started.
#[derive(Debug)]
pub(crate) enum NotStarted {
    /// No host can take it; the text says why for each.
    NoHost(String),
    /// The process server of this host said no, or was not heard of.
    Host { host: String, is_here: bool, error: Refusal },
}

impl NotStarted {
    /// Whether it certainly does not run, so that another try is no second run.
    pub(crate) fn is_certain(&self) -> bool {
        match self {
            NotStarted::NoHost(_) => true,
            NotStarted::Host { error, .. } => !matches!(error, Refusal::MaybeExecuted(_) | Refusal::BadReply),
        }
    }

    /// Whether a later try may do better.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(
            self,
            NotStarted::NoHost(_)
                | NotStarted::Host {
                    error: Refusal::NotSent(_)
                        | Refusal::Refused(Status::STD_NOMEM | Status::STD_SYSERR | Status::STD_CAPBAD),
                    ..
                }
        )
    }
}

impl Launcher {
    pub(crate) fn new(graph: &Graph, options: &Options) -> anyhow::Result<Launcher> {
        let here = std::env::current_dir().context("the working directory of this command")?;
        let directory = options.workdir.as_ref().map_or(here.clone(), |workdir| here.join(workdir));
        let chosen = options.view.choose(&directory, options.files.any())?;
        let sees_host = chosen.whose == view::Whose::Host;
        let root = if sees_host { graph.session().root } else { graph.confined_root()? };
        let home = Asked::home(graph, root);
        let pool = Pool::new(graph)?;
        let on = options.on.as_deref().map(|host| pool.on(host)).transpose().code(CANNOT_EXECUTE)?;
        let environment = environment(&options.env);
        let (carried, limits) = (options.files.names(), options.limits.clone());
        let capabilities = match options.view.is_alone() {
            true => Vec::new(),
            false => capabilities(graph, root, home)?,
        };
        let is_graph = chosen.whose == view::Whose::Graph;
        let graph_view =
            options.graph_view.find(graph, root, is_graph, options.workdir.as_deref(), &options.env)?;
        let (sight, verbose) = (None, options.verbose);
        Ok(Launcher {
            pool,
            on,
            directory,
            environment,
            root: graph.session().root,
            capabilities,
            limits,
            chosen: Some(chosen),
            sight,
            graph_view,
            verbose,
            carried,
        })
    }

    /// Begins to serve what the processes of these plans are to see of this host.
    ///
    /// # Errors
    /// See [`view::Chosen::serve`].
    pub(crate) fn show(&mut self, graph: &Graph, plans: &mut [Plan]) -> anyhow::Result<()> {
        let chosen = self.chosen.take().expect("what is to be seen is shown once");
        let descriptors = plans.iter_mut().map(|plan| &mut plan.descriptor);
        self.sight = chosen.serve(graph.world(), graph.session().is_own, descriptors)?;
        Ok(())
    }

    /// Finds the program that `word` names, and what a process of it needs.
    ///
    /// # Errors
    /// 127: there is no such program. 126: it cannot be executed.
    pub(crate) fn program(&self, graph: &Graph, word: &OsStr) -> anyhow::Result<(Program, Need)> {
        if word.is_empty() {
            return Err(failed("''", "the name is empty", NOT_FOUND));
        }
        if let Some(name) = word.as_bytes().strip_prefix(b"./")
            && self.carried.iter().any(|carried| carried == name)
        {
            return Ok((Program::HostPath(word.as_bytes().to_vec()), self.pool.need()));
        }
        if let Some(view) = &self.graph_view
            && let Some(program) = view.program(word)?
        {
            return Ok((program, self.pool.need()));
        }
        let program = match program::find(graph, word, &self.directory)? {
            Found::Program(program) => program,
            Found::Nothing => return Err(failed(&program::shown(word), "not found", NOT_FOUND)),
            Found::NoProgram(why) => {
                return Err(failed(&program::shown(word), why, CANNOT_EXECUTE));
            }
        };
        let need = self.need(graph, &program);
        Ok((program, need))
    }

    /// A process of `program` with arguments: the descriptor has no streams and no owner yet.
    pub(crate) fn plan(&self, program: Program, mut need: Need, word: &OsStr, rest: &[OsString]) -> Plan {
        // The name a program is told it has is seen by everybody on its host.
        let name = program::told_name(word);
        let rest = rest.iter().map(|argument| argument.as_bytes().to_vec());
        let mut descriptor = ProcessDescriptor::new("", program, std::iter::once(name).chain(rest).collect());
        descriptor.environment = self.environment.clone();
        descriptor.working_directory = self.directory.as_os_str().as_bytes().to_vec();
        descriptor.capabilities = self.capabilities.clone();
        self.limits.describe(&mut descriptor);
        if let Some(view) = &self.graph_view {
            view.describe(&mut descriptor);
        }
        need.limits = descriptor.limits.wanted().bits();
        Plan { shown: program::shown(word), descriptor, need }
    }

    /// The host that was asked for, or else one that is chosen, for each of `count` processes.
    ///
    /// # Errors
    /// No host can take any; the text says why for each.
    pub(crate) fn targets(&self, need: &Need, count: usize) -> Result<Vec<Target>, String> {
        match &self.on {
            Some(target) => Ok(vec![target.clone(); count]),
            None => self.pool.choose(need, count),
        }
    }

    fn started(&self, target: Target, process: Capability, needs_us: bool) -> Started {
        if self.verbose {
            eprintln!("amoeba: process {} runs on {}", process.object().get() & 0xFFFF, target.host);
        }
        Started { target, process, needs_us }
    }

    /// Whether the person said where it is to run.
    pub(crate) fn is_pinned(&self) -> bool {
        self.on.is_some()
    }

    /// What a program needs of its host. Nobody is asked when there is nothing to choose.
    fn need(&self, graph: &Graph, program: &Program) -> Need {
        let mut need = self.pool.need();
        let Program::File(file) = program else {
            return need;
        };
        if self.pool.is_alone() || self.is_pinned() {
            return need;
        }
        let mut hasher = std::hash::DefaultHasher::new();
        (file.port.to_bytes(), file.object().get()).hash(&mut hasher);
        need.program = hasher.finish().to_ne_bytes();
        // What cannot be learnt is not needed: the process server looks again.
        need.text = bullet::size(graph.world(), file).unwrap_or(0);
        let head = bullet::read(graph.world(), file, 0, HEAD_SIZE as u32).unwrap_or_default();
        need.architecture = architecture(&head).to_owned();
        need
    }
}

/// Starts a process on `target`; when that host cannot be reached or lacks what the process needs, and nobody insists on
/// it, on another.
///
/// A process that was to see this host's files, on this host, which cannot show any, sees its own files: they are the same.
/// Unless the person asked for nothing else.
pub(crate) fn start(
    launcher: &Launcher,
    world: &World,
    need: &Need,
    target: Option<Target>,
    descriptor: &ProcessDescriptor,
    encoded: &[u8],
) -> Result<Started, NotStarted> {
    let mut need = need.clone();
    let is_served = matches!(descriptor.view, View::Mine(_));
    let mut target = match target {
        Some(target) => target,
        None => choose_one(launcher, &need)?,
    };
    for tried in 1.. {
        let error = match target.exec(world, encoded.to_vec()) {
            Ok(process) => return Ok(launcher.started(target, process, is_served)),
            Err(error) => error,
        };
        let cannot_show = matches!(error, Refusal::Refused(process::NOVIEW));
        let refused = NotStarted::Host { host: target.host.clone(), is_here: target.is_here, error };
        if target.is_here && cannot_show && launcher.sight.as_ref().is_some_and(|sight| sight.falls_back) {
            return start_with_own_files(launcher, world, target, descriptor);
        }
        if launcher.is_pinned() || (target.is_here && !cannot_show) || tried == HOSTS_TRIED_MAX {
            return Err(refused);
        }
        target = match error {
            Refusal::NotSent(_) => {
                launcher.pool.doubt(&target.host);
                need.avoid.push(target.host);
                choose_one(launcher, &need)?
            }
            // Another host may show them.
            Refusal::Refused(process::NOVIEW) if tried + 1 < HOSTS_TRIED_MAX => {
                let was_here = target.is_here;
                need.avoid.push(target.host);
                match choose_one(launcher, &need) {
                    Ok(target) if !need.avoid.contains(&target.host) => target,
                    _ if was_here => return Err(refused),
                    _ => launcher.pool.here(),
                }
            }
            // What that host lacks is most likely here, where the person typed the command.
            Refusal::Refused(
                NO_PROGRAM
                | process::NOTEXEC
                | process::NOWORK
                | process::BADARCH
                | process::NOLIMIT
                | process::NOVIEW
                | Status::STD_NOMEM
                | Status::STD_CAPBAD,
            ) => launcher.pool.here(),
            _ => return Err(refused),
        };
    }
    unreachable!("the loop ends at its bound")
}

/// Starts a process on this host, whose own files it sees.
fn start_with_own_files(
    launcher: &Launcher,
    world: &World,
    here: Target,
    descriptor: &ProcessDescriptor,
) -> Result<Started, NotStarted> {
    let descriptor = view::with_hosts_files(descriptor, launcher.root);
    let encoded = descriptor.encode().expect("it has less to say than one that was encoded");
    match here.exec(world, encoded) {
        Ok(process) => {
            if launcher.verbose {
                eprintln!("amoeba: this host cannot show a file tree: the command sees the host's own files");
            }
            Ok(launcher.started(here, process, false))
        }
        Err(error) => Err(NotStarted::Host { host: here.host, is_here: true, error }),
    }
}

fn choose_one(launcher: &Launcher, need: &Need) -> Result<Target, NotStarted> {
    let targets = launcher.targets(need, 1).map_err(NotStarted::NoHost)?;
    Ok(targets.into_iter().next().unwrap_or_else(|| launcher.pool.here()))
}

/// The bytes of a descriptor.
pub(crate) fn encoded(descriptor: &ProcessDescriptor, shown: &str) -> anyhow::Result<Vec<u8>> {
    let encoded = descriptor.encode().map_err(|error| match bound_hit(descriptor) {
        Some(why) => anyhow!(why),
        None => error.into(),
    });
    let hint = "what is long can go by a file (`amoeba put`) or the standard input, or in several runs (`amoeba map`)";
    encoded.with_context(|| shown.to_owned()).hint(hint).code(CANNOT_EXECUTE)
}

/// Which bound a command is over that cannot be encoded, if that is why.
fn bound_hit(descriptor: &ProcessDescriptor) -> Option<String> {
    let size = |strings: &[Vec<u8>]| strings.iter().map(Vec::len).sum::<usize>();
    let kinds = [("arguments", &descriptor.arguments), ("environment strings", &descriptor.environment)];
    for (what, strings) in kinds {
        if strings.len() > STRINGS_MAX {
            return Some(format!("{} {what}, and there can be {STRINGS_MAX}", strings.len()));
        }
        if let Some(long) = strings.iter().find(|string| string.len() > STRING_SIZE_MAX) {
            let size = long.len();
            return Some(format!("one of the {what} has {size} bytes, and one can have {STRING_SIZE_MAX}"));
        }
    }
    let directory = descriptor.working_directory.len();
    if directory > PATH_SIZE_MAX {
        return Some(format!(
            "the path of the working directory has {directory} bytes, not {PATH_SIZE_MAX} at most"
        ));
    }
    let (arguments, environment) = (size(&descriptor.arguments), size(&descriptor.environment));
    (arguments + environment > DESCRIPTOR_SIZE_MAX / 2).then(|| {
        format!(
            "arguments ({arguments} bytes) and environment strings ({environment} bytes) are too large: \
             together with what else describes the process they can have {DESCRIPTOR_SIZE_MAX}"
        )
    })
}

/// What it means, for people, that a process was not started.
pub(crate) fn not_started(why: NotStarted, shown: &str, descriptor: &ProcessDescriptor) -> anyhow::Error {
    let (host, is_here, error) = match why {
        NotStarted::NoHost(why) => {
            let hint = "`amoeba host ls` shows the hosts; --on HOST insists on one";
            return anyhow!("no host can run it\n{}", why.trim_end())
                .context(Code(CANNOT_EXECUTE))
                .context(Hint(hint.into()))
                .context(shown.to_owned());
        }
        NotStarted::Host { host, is_here, error } => (host, is_here, error),
    };
    let at = if is_here { String::new() } else { format!(" on {host}") };
    match error {
        Refusal::Refused(NO_PROGRAM) => failed(shown, format!("not found{at}"), NOT_FOUND),
        Refusal::Refused(UNREADABLE) => failed(shown, format!("permission denied{at}"), CANNOT_EXECUTE),
        Refusal::Refused(process::NOTEXEC) => {
            failed(shown, format!("cannot be executed{at}"), CANNOT_EXECUTE)
        }
        Refusal::Refused(process::NOLIMIT) => {
            let limits = &descriptor.limits;
            anyhow!("a limit that was asked for ({limits}) cannot be enforced{at}")
                .context(Code(CANNOT_EXECUTE))
                .context(Hint(
                    "hosts limit by control groups, which a process server must be allowed to make".into(),
                ))
                .context(shown.to_owned())
        }
        Refusal::Refused(process::NOVIEW) => anyhow!("the file tree that was asked for cannot be shown{at}")
            .context(Code(CANNOT_EXECUTE))
            .context(Hint("`--view host` lets it see the files of the host where it runs".into()))
            .context(shown.to_owned()),
        Refusal::Refused(process::NOHOST) => {
            let host = if is_here { "this host's".to_owned() } else { format!("{host}'s") };
            anyhow!("a process that sees {host} own files cannot be started from here")
                .context(Code(CANNOT_EXECUTE))
                .context(Hint(
                    "this process was started with `--view mine` or `graph`; leave `--view host`, --in and --out out"
                        .into(),
                ))
                .context(shown.to_owned())
        }
        Refusal::Refused(process::NOINPUT) => {
            anyhow!("its files cannot be brought{at}").context(Code(CANNOT_EXECUTE)).context(shown.to_owned())
        }
        Refusal::Refused(process::BADARCH) => {
            failed(shown, format!("is for another kind of processor{at}"), CANNOT_EXECUTE)
        }
        Refusal::Refused(process::NOWORK) => {
            let directory = String::from_utf8_lossy(&descriptor.working_directory);
            anyhow!("the working directory {directory} cannot be entered{at}").context(Code(CANNOT_EXECUTE))
        }
        Refusal::MaybeExecuted(_) if !is_here => {
            anyhow!("host {host} was lost while it was being started there; it may have run")
                .context(Code(MAY_HAVE_RUN))
                .context(Hint("look whether it was done before you do it again".into()))
                .context(shown.to_owned())
        }
        Refusal::NotSent(_) if !is_here => anyhow!("host {host} cannot be reached")
            .context(Code(CANNOT_EXECUTE))
            .context(Hint("`amoeba host ls` shows which hosts answer".into()))
            .context(shown.to_owned()),
        error => anyhow::Error::from(error).context(shown.to_owned()),
    }
}

/// A command that does not run, its exit code and what to do about it.
pub(crate) fn failed(shown: &str, why: impl Into<String>, code: u8) -> anyhow::Error {
    let hint = match code {
        NOT_FOUND => "`amoeba put FILE /bin/NAME` stores a program; one of the host must be on PATH",
        _ => "a program is executable (chmod +x), for this processor, or begins with #!",
    };
    anyhow::Error::msg(why.into()).context(Code(code)).context(Hint(hint.into())).context(shown.to_owned())
}

/// What it means that nobody can say how a process ended.
pub(crate) fn lost(error: Refusal, target: &Target) -> anyhow::Error {
    let host = &target.host;
    match error {
        Refusal::Refused(Status::STD_CAPBAD) if target.is_here => {
            anyhow!("the process server was started again while the command ran")
        }
        Refusal::Refused(Status::STD_CAPBAD) => {
            anyhow!("host {host} was started again while the command ran there")
        }
        _ if target.is_here => {
            anyhow!("the process server stopped answering while the command ran")
        }
        _ => anyhow!("host {host} was lost while the command ran there"),
    }
}

/// CPU type and system of what begins with these bytes; empty when any will do, or nobody knows.
fn architecture(head: &[u8]) -> &'static str {
    if head.len() < HEAD_SIZE || !head.starts_with(b"\x7FELF") {
        return "";
    }
    let machine = if head[5] == 1 {
        u16::from_le_bytes([head[18], head[19]])
    } else {
        u16::from_be_bytes([head[18], head[19]])
    };
    match machine {
        62 => "x86_64-linux",
        183 => "aarch64-linux",
        243 => "riscv64-linux",
        _ => "",
    }
}

/// This program's environment strings, with what the person asked for.
pub(crate) fn environment(set: &[(OsString, OsString)]) -> Vec<Vec<u8>> {
    let replaced = |name: &OsString| {
        NOT_PASSED_ON.iter().any(|hidden| name == hidden) || set.iter().any(|(other, _)| other == name)
    };
    let kept = std::env::vars_os().filter(|(name, _)| !replaced(name));
    let all = kept.chain(set.iter().cloned());
    all.map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()).collect()
}

/// ROOT, HOME and WORK for the process, as they are seen from its `root`. A directory that is not there has no capability.
fn capabilities(graph: &Graph, root: Capability, home: Asked) -> anyhow::Result<Vec<(Vec<u8>, Capability)>> {
    let entry = |name: &str, capability| (name.as_bytes().to_vec(), capability);
    let mut entries = vec![entry(Environment::ROOT, root)];
    let work = Graph::work_path()?;
    let names = Names::new(graph.world(), root);
    let home = home.answer(&names);
    // Most work at home: nobody is asked twice.
    let work = if work == graph::HOME { home } else { names.resolve(&work).ok() };
    for (name, capability) in [(Environment::HOME, home), (Environment::WORK, work)] {
        entries.extend(capability.map(|capability| entry(name, capability)));
    }
    Ok(entries)
}

/// Something that is looked up while something else is.
struct Asked(mpsc::Receiver<Option<Capability>>);

impl Asked {
    /// The directory that every process has as its home, below `root`.
    fn home(graph: &Graph, root: Capability) -> Asked {
        let (tell, told) = mpsc::sync_channel(1);
        let names = Names::new(graph.world(), root);
        // Whoever asked may have failed meanwhile.
        let look = move || {
            let _ = tell.send(names.resolve(graph::HOME).ok());
        };
        // Without a thread nobody tells, and whoever wants to know asks again.
        drop(graph.world().threads.spawn("home", look));
        Asked(told)
    }

    fn answer(self, names: &Names) -> Option<Capability> {
        self.0.recv().unwrap_or_else(|_| names.resolve(graph::HOME).ok())
    }
}

fn parse_variable(text: &str) -> Result<(OsString, OsString), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("an environment string is NAME=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_that_a_command_is_over_is_named() {
        let told = |arguments: Vec<Vec<u8>>| {
            let descriptor = ProcessDescriptor::new("", Program::HostPath(b"true".to_vec()), arguments);
            let error = encoded(&descriptor, "true").expect_err("it is over a bound");
            let report = crate::failure::report(&error, 1);
            assert_eq!(report.code, CANNOT_EXECUTE);
            report.text.expect("there is somebody to tell")
        };
        let many = told(vec![Vec::new(); STRINGS_MAX + 1]);
        assert!(many.starts_with("amoeba: true: 16385 arguments, and there can be 16384\nhint:"), "{many}");
        let long = told(vec![vec![b'x'; STRING_SIZE_MAX + 1]]);
        assert!(long.contains("one of the arguments has 131072 bytes, and one can have 131071"), "{long}");
        let large = told(vec![vec![b'x'; STRING_SIZE_MAX]; 9]);
        assert!(large.contains("arguments (1179639 bytes)") && large.contains("1048576"), "{large}");
    }

    #[test]
    fn a_program_says_what_it_is_for() {
        let mut head = [0; HEAD_SIZE];
        head[..6].copy_from_slice(b"\x7FELF\x02\x01");
        for (machine, name) in [(62, "x86_64-linux"), (183, "aarch64-linux"), (3, ""), (0, "")] {
            head[18] = machine;
            assert_eq!(architecture(&head), name);
        }
        assert_eq!(architecture(b"#!/bin/sh\necho and more"), "");
        assert_eq!(architecture(b"\x7FELF"), "");
    }
}
