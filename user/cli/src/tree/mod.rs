//! Whole trees of local files into the graph, and out of it.
//!
//! - [`put()`] and [`get()`] walk a tree on one thread and hand its files to several ([`in_parallel`]).
//! - [`facts`] is what a row's attributes say of a local file, [`rows`] writes rows of many directories at a time.
//! - [`Report`] collects what was done and what failed: one bad file does not stop the others.

pub(crate) mod accounts;
mod facts;
mod fetch;
mod get;
mod links;
mod put;
mod rows;
mod ship;

use std::io::{self, Read, Write};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use amoeba_cap::Capability;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::failure::{self, FAILED};
use crate::out::{counted, printable};
use crate::progress::Interrupt;
use crate::shown::Name;
use crate::{Context, Standard};

pub(crate) use get::{Fetch, Source, get};
pub(crate) use put::{Store, put};

/// Files that are carried at the same time when nobody says how many.
pub(crate) const PARALLEL: u8 = 8;
/// Directories inside each other that are followed; each is an open descriptor.
pub(crate) const DEPTH_MAX: usize = 256;
/// Failures, and files that were left out, that are told one by one.
const TOLD_MAX: usize = 1000;
/// Jobs that wait for each thread.
const JOBS_EACH: usize = 4;
/// Work that takes less than this shows nothing.
const QUIET: Duration = Duration::from_millis(500);

/// What a row is to say of a local file that it is made from; nothing of what is no file.
pub(crate) fn attributes_of(file: &std::fs::File) -> Vec<u8> {
    let facts = amoeba_tree::facts(file).ok().filter(|facts| facts.kind == amoeba_tree::Kind::File);
    let attributes = facts.map(|facts| facts::attributes(&facts, &accounts::Accounts::read()));
    attributes.and_then(|attributes| attributes.to_bytes().ok()).unwrap_or_default()
}

/// How any tree is carried.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    /// Compare contents, not times.
    pub(crate) checksum: bool,
    /// Finish the tree although something failed.
    pub(crate) partial: bool,
    /// Files that travel at the same time.
    pub(crate) parallel: u8,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// In the tree that was asked for.
    pub(crate) files: u64,
    pub(crate) directories: u64,
    pub(crate) links: u64,
    /// Bytes of the files.
    pub(crate) bytes: u64,
    /// Files whose contents travelled, and those that were there already.
    pub(crate) shipped: u64,
    pub(crate) shipped_bytes: u64,
    pub(crate) unchanged: u64,
    /// What is no file, directory or symbolic link.
    pub(crate) skipped_count: u64,
    pub(crate) failed_count: u64,
    /// The first of them.
    pub(crate) skipped: Vec<Told>,
    pub(crate) failed: Vec<Told>,
    /// Whether the tree has its name, and is all there.
    pub(crate) complete: bool,
    #[serde(skip)]
    gravest: u8,
}

/// Something that did not go with the others, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Told {
    #[serde(flatten)]
    path: Name,
    why: String,
    #[serde(skip)]
    text: String,
}

/// What was done, while it is being done.
pub(crate) struct Report {
    summary: Mutex<Summary>,
    bar: ProgressBar,
    interrupt: Interrupt,
    started: Instant,
    /// Whether nothing more is to be drawn by [`Report::show`].
    shown: Mutex<bool>,
}

impl Report {
    pub(crate) fn new(context: &Context<'_>, interrupt: &Interrupt, what: &str) -> Report {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let template = "{spinner} {prefix} {msg}, {binary_bytes}, {binary_bytes_per_sec}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_owned());
        Report {
            summary: Mutex::default(),
            bar,
            interrupt: interrupt.clone(),
            started: Instant::now(),
            shown: Mutex::new(!context.is_terminal(Standard::Error)),
        }
    }

    /// An error once a signal has come: what is begun ends, nothing new begins.
    pub(crate) fn go_on(&self) -> io::Result<()> {
        self.interrupt.check()
    }

    pub(crate) fn is_interrupted(&self) -> bool {
        self.go_on().is_err()
    }

    /// Counts something that is done.
    pub(crate) fn done(&self, count: impl FnOnce(&mut Summary)) {
        let mut summary = held(&self.summary);
        count(&mut summary);
        let files = summary.files;
        drop(summary);
        self.show(files);
    }

    /// Something failed. What failed because of an interrupt is told once, at the end.
    pub(crate) fn failed(&self, path: &[u8], error: &anyhow::Error) {
        if self.is_interrupted() {
            return;
        }
        let report = failure::report(error, FAILED);
        let text = report.text.unwrap_or_default();
        let why = text.lines().next().unwrap_or_default().trim_start_matches("amoeba: ").to_owned();
        let mut summary = held(&self.summary);
        summary.failed_count += 1;
        summary.gravest = summary.gravest.max(report.code);
        if summary.failed.len() < TOLD_MAX {
            summary.failed.push(Told { path: Name::from(path), why, text });
        }
    }

    /// Something is nothing that a tree here can have.
    pub(crate) fn skipped(&self, path: &[u8], why: &str) {
        let mut summary = held(&self.summary);
        summary.skipped_count += 1;
        if summary.skipped.len() < TOLD_MAX {
            summary.skipped.push(Told { path: Name::from(path), why: why.to_owned(), text: String::new() });
        }
    }

    pub(crate) fn has_failures(&self) -> bool {
        held(&self.summary).failed_count > 0
    }

    /// What was done, at the end.
    pub(crate) fn finish(self, complete: bool) -> Summary {
        self.bar.finish_and_clear();
        let mut summary = self.summary.into_inner().unwrap_or_else(PoisonError::into_inner);
        summary.complete = complete;
        summary
    }

    fn show(&self, files: u64) {
        self.bar.set_message(counted(files, "file", "files"));
        let mut shown = held(&self.shown);
        if !*shown && self.started.elapsed() > QUIET {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            *shown = true;
        }
    }
}

impl Summary {
    /// Tells people what was left out and what failed.
    ///
    /// # Errors
    /// Something failed: what is left to say is the gravest exit code.
    pub(crate) fn tell(&self, context: &mut Context<'_>) -> anyhow::Result<()> {
        let mut text = String::new();
        for told in &self.skipped {
            text += &format!("amoeba: {}: {}\n", printable(told.path.name.as_bytes()), told.why);
        }
        if self.skipped_count > 0 {
            text += &format!("amoeba: {} left out\n", counted(self.skipped_count, "entry", "entries"));
        }
        for told in &self.failed {
            text += &told.text;
        }
        if self.failed_count > 1 {
            let all = self.files + self.directories + self.links + self.failed_count;
            text += &format!("amoeba: {} of {all} failed\n", self.failed_count);
        }
        // Standard error may be closed; the exit code still tells.
        let _ = context.errors.write_all(text.as_bytes());
        if self.failed_count > 0 { Err(failure::Told(self.gravest.max(FAILED)).into()) } else { Ok(()) }
    }
}

/// Data on its way: counted, hashed, and stopped by an interrupt.
pub(crate) struct Carried<'a, T> {
    inner: T,
    report: &'a Report,
    hasher: blake3::Hasher,
    size: u64,
}

impl<'a, T> Carried<'a, T> {
    pub(crate) fn new(inner: T, report: &'a Report) -> Carried<'a, T> {
        Carried { inner, report, hasher: blake3::Hasher::new(), size: 0 }
    }

    /// How many bytes went through, and their BLAKE3.
    pub(crate) fn sum(&self) -> (u64, [u8; 32]) {
        (self.size, *self.hasher.finalize().as_bytes())
    }

    pub(crate) fn into_inner(self) -> T {
        self.inner
    }

    fn count(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
        self.report.bar.inc(bytes.len() as u64);
    }
}

impl<T: Read> Read for Carried<'_, T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.report.go_on()?;
        let size = self.inner.read(bytes)?;
        self.count(&bytes[..size]);
        Ok(size)
    }
}

impl<T: Write> Write for Carried<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.report.go_on()?;
        let size = self.inner.write(bytes)?;
        self.count(&bytes[..size]);
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Does `work` on `count` threads with what `produce` sends, and gives what `produce` gives when all of it is done.
pub(crate) fn in_parallel<J: Send, T>(
    count: u8,
    work: &(impl Fn(J) + Sync),
    produce: impl FnOnce(&SyncSender<J>) -> T,
) -> T {
    let count = usize::from(count.max(1));
    let (sender, receiver) = mpsc::sync_channel(count * JOBS_EACH);
    let receiver = Mutex::new(receiver);
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                loop {
                    let job = held(&receiver).recv();
                    let Ok(job) = job else { return };
                    work(job);
                }
            });
        }
        let produced = produce(&sender);
        drop(sender);
        produced
    })
}

/// Port and object number: which object it is, with whatever rights.
pub(crate) fn identity(capability: &Capability) -> [u8; 9] {
    let mut identity = [0; 9];
    identity.copy_from_slice(&capability.to_bytes()[..9]);
    identity
}

/// A path with one more name.
pub(crate) fn below(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() || path.ends_with(b"/") { [path, name].concat() } else { [path, b"/", name].concat() }
}

/// A name beside `name` that the same work finds again: `prefix` and what makes it this work and no other.
pub(crate) fn work_name(prefix: &str, facts: &[&[u8]]) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    for fact in facts {
        hasher.update(&(fact.len() as u64).to_le_bytes()).update(fact);
    }
    format!("{prefix}{}", &hasher.finalize().to_hex()[..16]).into_bytes()
}

pub(crate) fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
