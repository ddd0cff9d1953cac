//! The workers of a map: each runs one process after the other, on a host that it keeps for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use amoeba_cap::Capability;
use amoeba_name::Environment;
use amoeba_process::ProcessDescriptor;
use amoeba_stream::{Sink, StreamServer};
use amoeba_stubs::process::ResultRecord;
use amoeba_stubs::{Client, process};
use amoeba_threads::{Condition, Mutex};
use amoeba_wire::Status;
use amoeba_world::World;

use crate::failure::{MAY_HAVE_RUN, report};
use crate::launch::files::{self, Luggage, Porter, Sent};
use crate::launch::pool::Target;
use crate::launch::{self, Launcher, Plan};
use crate::spool::{Spool, Store, keep};

/// Processes that are started before the one whose output is shown next has ended.
const AHEAD_MAX: usize = 4096;
/// How long a worker keeps its host before it asks for a better one.
const HOST_AGE_MAX: Duration = Duration::from_secs(5);
/// How long a worker waits before it tries again what did not run; twice as long each time.
const RETRY_WAIT: Duration = Duration::from_millis(200);
/// The exit code of what is neither the command's fault nor the caller's.
const OUR_FAULT: u8 = 125;
const SIGKILL: u8 = 9;

/// What a worker tells.
pub(super) enum Event {
    /// A signal came.
    Signal(u8),
    /// The processes have had their time to end.
    Grace,
    /// One of them has ended, for good or bad.
    Done(Box<Done>),
}

/// What became of one argument.
pub(super) struct Done {
    pub(super) index: usize,
    pub(super) host: String,
    pub(super) code: u8,
    pub(super) time: Duration,
    /// What went wrong, when that was not the command's own doing.
    pub(super) why: Option<String>,
    pub(super) output: Spool,
    pub(super) errors: Spool,
}

/// What is to be done, and how.
pub(super) struct Work {
    pub(super) world: World,
    pub(super) launcher: Launcher,
    /// The process without its argument.
    pub(super) plan: Plan,
    pub(super) arguments: Vec<Vec<u8>>,
    /// Files that go along with each process, `{}` in their names filled, and the way for them.
    pub(super) luggage: Option<(files::FileOptions, Porter)>,
    pub(super) retries: u32,
    /// Whether to try again what may have run.
    pub(super) retry_maybe: bool,
    pub(super) keep_going: bool,
    pub(super) streams: Arc<StreamServer>,
    pub(super) store: Store,
    pub(super) progress: Mutex<Progress>,
    pub(super) changed: Condition,
}

/// How far it is.
#[derive(Default)]
pub(super) struct Progress {
    /// The next argument to be taken.
    next: usize,
    /// Arguments whose output was shown.
    shown: usize,
    /// No more are taken.
    stopped: bool,
    /// Nothing is to go on running.
    ending: bool,
    running: BTreeMap<usize, (Target, Capability)>,
}

/// How one try ended.
#[derive(Default)]
struct Tried {
    host: String,
    code: u8,
    why: Option<String>,
    /// Whether it certainly did not run, and may another time.
    may_pass: bool,
    /// Whether nobody knows if it ran.
    maybe: bool,
    /// Whether it ran to its end, and the files it has left.
    has_run: bool,
    left: Vec<ResultRecord>,
}

impl Work {
    /// The body of a worker: takes one argument after the other until there are no more.
    pub(super) fn work(&self, mut host: Option<Target>, to: &Sender<Event>) {
        let mut since = Instant::now();
        while let Some(index) = self.take() {
            if since.elapsed() > HOST_AGE_MAX {
                self.leave(&mut host);
            }
            if host.is_none() {
                since = Instant::now();
            }
            let done = self.run(index, &mut host);
            if done.code != 0 && !self.keep_going {
                self.stop();
            }
            if to.send(Event::Done(Box::new(done))).is_err() {
                break;
            }
        }
        self.leave(&mut host);
    }

    /// A worker keeps its host no longer: nothing counts as placed there for it.
    fn leave(&self, host: &mut Option<Target>) {
        if let Some(target) = host.take() {
            self.launcher.pool.ended(&target);
        }
    }

    fn take(&self) -> Option<usize> {
        let mut progress = self.progress.lock();
        while !progress.stopped && progress.next >= progress.shown + AHEAD_MAX {
            progress = self.changed.wait(progress);
        }
        let index = progress.next;
        if progress.stopped || index >= self.arguments.len() {
            return None;
        }
        progress.next += 1;
        Some(index)
    }

    /// How many arguments were taken so far.
    pub(super) fn taken(&self) -> usize {
        self.progress.lock().next
    }

    /// No more arguments are taken.
    pub(super) fn stop(&self) {
        self.progress.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Whether no more arguments are taken.
    pub(super) fn is_stopped(&self) -> bool {
        self.progress.lock().stopped
    }

    /// The outputs of the first `count` arguments were shown.
    pub(super) fn shown(&self, count: usize) {
        self.progress.lock().shown = count;
        self.changed.notify_all();
    }

    /// Sends a signal to all that runs, and lets nothing more begin. Hosts that do not answer delay nobody.
    pub(super) fn end(&self, signal: u8) {
        let mut hosts: BTreeMap<String, Vec<(Target, Capability)>> = BTreeMap::new();
        {
            let mut progress = self.progress.lock();
            (progress.stopped, progress.ending) = (true, true);
            for (target, process) in progress.running.values() {
                hosts.entry(target.host.clone()).or_default().push((target.clone(), *process));
            }
        }
        self.changed.notify_all();
        for processes in hosts.into_values() {
            let world = self.world.clone();
            let _ = self.world.threads.spawn("signal", move || {
                for (target, process) in processes {
                    send(&world, &target, &process, signal);
                }
            });
        }
    }

    /// Runs the process of one argument, again if that is allowed.
    fn run(&self, index: usize, host: &mut Option<Target>) -> Done {
        let start = Instant::now();
        let mut wait = RETRY_WAIT;
        for tries in 0.. {
            let (mut output, mut errors) = (self.store.spool(), self.store.spool());
            let tried = self.try_once(index, host, &mut output, &mut errors);
            let again = tried.may_pass || (tried.maybe && self.retry_maybe);
            if again && tries < self.retries && !self.progress.lock().ending {
                self.leave(host);
                self.world.threads.sleep(wait);
                wait *= 2;
                continue;
            }
            let Tried { host, code, why, .. } = tried;
            return Done { index, host, code, time: start.elapsed(), why, output, errors };
        }
        unreachable!("tries are bounded")
    }

    fn try_once(
        &self,
        index: usize,
        host: &mut Option<Target>,
        output: &mut Spool,
        errors: &mut Spool,
    ) -> Tried {
        let (Ok((out_object, out_sink)), Ok((error_object, error_sink))) =
            (self.streams.sink(), self.streams.sink())
        else {
            return Tried::ours("too many streams");
        };
        let mut descriptor = self.descriptor(index);
        let sight = &self.launcher.sight;
        if let Some(Err(error)) = sight.as_ref().map(|sight| sight.describe(&mut descriptor)) {
            return Tried::failed(String::new(), &error);
        }
        let luggage = match self.send_files(index) {
            Ok(luggage) => luggage,
            Err(error) => return Tried::failed(String::new(), &error),
        };
        descriptor.scratch = luggage.as_ref().map(|(_, sent)| sent.scratch.clone());
        for (name, object) in [(Environment::STDOUT, out_object), (Environment::STDERR, error_object)] {
            descriptor.capabilities.push((name.as_bytes().to_vec(), object));
        }
        let mut tried =
            self.start_and_wait(index, host, &descriptor, [(output, out_sink), (errors, error_sink)]);
        self.streams.remove(&out_object);
        self.streams.remove(&error_object);
        if let Some(sight) = sight {
            sight.dismiss(&descriptor);
        }
        if let (Some((luggage, _)), Some((_, porter)), true) = (&luggage, &self.luggage, tried.has_run)
            && let Err(error) = porter.fetch(luggage, &tried.left, tried.code == 0)
        {
            let failed = Tried::failed(tried.host.clone(), &error);
            tried = Tried { code: if tried.code == 0 { failed.code } else { tried.code }, ..failed };
        }
        tried
    }

    /// The files of one argument's process, on their way.
    fn send_files(&self, index: usize) -> anyhow::Result<Option<(Luggage, Sent)>> {
        let Some((options, porter)) = &self.luggage else { return Ok(None) };
        let argument = &self.arguments[index];
        let luggage = options.luggage(|word| fill(word, argument).unwrap_or_else(|| word.to_vec()))?;
        let sent = porter.send(&luggage)?;
        Ok(Some((luggage, sent)))
    }

    fn start_and_wait(
        &self,
        index: usize,
        host: &mut Option<Target>,
        descriptor: &ProcessDescriptor,
        [(output, out_sink), (errors, error_sink)]: [(&mut Spool, Sink); 2],
    ) -> Tried {
        let bytes = match launch::encoded(descriptor, &self.plan.shown) {
            Ok(bytes) => bytes,
            Err(error) => return Tried::failed(String::new(), &error),
        };
        let (launcher, need) = (&self.launcher, &self.plan.need);
        let started = launch::start(launcher, &self.world, need, host.clone(), descriptor, &bytes);
        let (target, process) = match started {
            Ok(started) => (started.target, started.process),
            Err(why) => {
                let (may_pass, maybe) = (why.is_certain() && why.may_pass(), !why.is_certain());
                let error = launch::not_started(why, &self.plan.shown, descriptor);
                return Tried { may_pass, maybe, ..Tried::failed(String::new(), &error) };
            }
        };
        if host.as_ref().is_some_and(|kept| kept.host != target.host) {
            self.leave(host);
        }
        *host = Some(target.clone());
        if self.begun(index, &target, process) {
            send(&self.world, &target, &process, SIGKILL);
        }
        let collect = |sink: &Sink, mut spool: Spool| {
            let sink = sink.clone();
            self.world.threads.spawn("output", move || {
                let kept = keep(&sink, &mut spool);
                (spool, kept)
            })
        };
        let collectors = [collect(&out_sink, self.store.spool()), collect(&error_sink, self.store.spool())];
        target.note(&self.world, &process);
        let ended = target.wait(&self.world, &process);
        self.progress.lock().running.remove(&index);
        let mut lost_output = None;
        for (collector, (spool, sink)) in
            collectors.into_iter().zip([(output, out_sink), (errors, error_sink)])
        {
            sink.end();
            match collector.ok().and_then(amoeba_threads::JoinHandle::join) {
                Some((kept, Ok(()))) => *spool = kept,
                Some((kept, Err(error))) => {
                    *spool = kept;
                    lost_output = Some(format!("its output cannot be kept: {error}"));
                }
                None => lost_output = Some("its output cannot be kept".to_owned()),
            }
        }
        match (ended, lost_output) {
            (Ok(_), Some(why)) => Tried { why: Some(why), ..Tried::ended(&target, OUR_FAULT) },
            (Ok(exit), None) if Status(exit.status).is_error() => {
                let why = String::from_utf8_lossy(&exit.reason).into_owned();
                Tried { why: Some(why), ..Tried::ended(&target, exit.code) }
            }
            (Ok(exit), None) => {
                // It ran, and met a limit.
                let why = (!exit.reason.is_empty())
                    .then(|| format!("{}, exit code {}", String::from_utf8_lossy(&exit.reason), exit.code));
                Tried { has_run: true, left: exit.results, why, ..Tried::ended(&target, exit.code) }
            }
            (Err(error), _) => {
                self.leave(host);
                let why = format!("{}; it may have run", launch::lost(error, &target));
                Tried { why: Some(why), maybe: true, ..Tried::ended(&target, MAY_HAVE_RUN) }
            }
        }
    }

    /// The process runs; whether it is to be ended at once.
    fn begun(&self, index: usize, target: &Target, process: Capability) -> bool {
        let mut progress = self.progress.lock();
        progress.running.insert(index, (target.clone(), process));
        progress.ending
    }

    /// The descriptor with its argument: in the place of every `{}`, or at the end where there is none.
    fn descriptor(&self, index: usize) -> ProcessDescriptor {
        let argument = &self.arguments[index];
        let mut descriptor = self.plan.descriptor.clone();
        let mut replaced = false;
        for word in descriptor.arguments.iter_mut().skip(1) {
            if let Some(filled) = fill(word, argument) {
                (*word, replaced) = (filled, true);
            }
        }
        if !replaced {
            descriptor.arguments.push(argument.clone());
        }
        descriptor
    }
}

impl Tried {
    fn ended(target: &Target, code: u8) -> Tried {
        Tried { host: target.host.clone(), code, ..Tried::default() }
    }

    fn failed(host: String, error: &anyhow::Error) -> Tried {
        let report = report(error, OUR_FAULT);
        let why = report.text.unwrap_or_default();
        let why = why.trim_start_matches("amoeba: ").lines().next().unwrap_or_default().to_owned();
        Tried { host, code: report.code, why: Some(why), ..Tried::default() }
    }

    fn ours(why: &str) -> Tried {
        Tried { code: OUR_FAULT, why: Some(why.into()), ..Tried::default() }
    }
}

/// `word` with `argument` in the place of every `{}`; `None` where there is none.
pub(super) fn fill(word: &[u8], argument: &[u8]) -> Option<Vec<u8>> {
    let mut rest = word;
    let mut filled = Vec::new();
    let mut replaced = false;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"{}") {
        filled.extend_from_slice(&rest[..at]);
        filled.extend_from_slice(argument);
        rest = &rest[at + 2..];
        replaced = true;
    }
    filled.extend_from_slice(rest);
    replaced.then_some(filled)
}

fn send(world: &World, target: &Target, process: &Capability, signal: u8) {
    let options = target.options();
    // A process that has just ended hears nothing, as with any signal.
    let _ = process::signal(Client::new(&*world.transactions, &options), process, signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_are_replaced_everywhere_or_nowhere() {
        let fill = |word: &[u8]| fill(word, b"a.c").map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
        assert_eq!(fill(b"{}"), Some("a.c".into()));
        assert_eq!(fill(b"x{}y{}{"), Some("xa.cya.c{".into()));
        assert_eq!(fill(b"{{}}"), Some("{a.c}".into()));
        assert_eq!(fill(b"plain {"), None);
    }
}
