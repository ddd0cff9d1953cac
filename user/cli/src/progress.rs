//! Long work on bulk data: a bar on standard error when that is a terminal, and an end when a person interrupts.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use amoeba_threads::Threads;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{Console, Context, Standard};

/// Work that takes less than this shows no bar.
const QUIET: Duration = Duration::from_millis(500);
/// How long the work may take to end after an interrupt before the program just ends.
const GRACE: Duration = Duration::from_secs(2);
const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;

/// Notices SIGINT, SIGTERM and SIGHUP, so that what was half done can be undone.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<AtomicI32>);

/// The person wants no more: the signal that said so.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted(pub(crate) i32);

impl Interrupt {
    /// From now on a signal is noticed; when the work does not end soon after it, the program ends.
    pub(crate) fn catch(console: &dyn Console, threads: &Threads) -> anyhow::Result<Interrupt> {
        let interrupt = Interrupt(Arc::default());
        let mut signals = console.signals(&[SIGHUP, SIGINT, SIGTERM])?;
        let (flag, sleeper) = (interrupt.0.clone(), threads.clone());
        threads.spawn("signals", move || {
            if let Some(signal) = signals.next() {
                flag.store(signal, Ordering::SeqCst);
                sleeper.sleep(GRACE);
                // The reader hangs in input that does not come. Uncommitted files go by themselves.
                eprintln!("amoeba: interrupted");
                std::process::exit(128 + signal);
            }
        })?;
        Ok(interrupt)
    }

    /// An error once a signal has come.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.0.load(Ordering::SeqCst) {
            0 => Ok(()),
            signal => Err(io::Error::other(Interrupted(signal))),
        }
    }
}

/// Data on its way, counted.
pub(crate) struct Metered<T> {
    inner: T,
    bar: ProgressBar,
    interrupt: Interrupt,
    started: std::time::Instant,
    shown: bool,
}

impl<T> Metered<T> {
    /// Counts what goes through `inner`; `size` is how much there will be, if that is known.
    pub(crate) fn new(
        context: &Context<'_>,
        interrupt: &Interrupt,
        what: String,
        size: Option<u64>,
        inner: T,
    ) -> Metered<T> {
        let bar = ProgressBar::with_draw_target(size, ProgressDrawTarget::hidden());
        let template = match size {
            Some(_) => "{msg} {bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
            None => "{msg} {spinner} {binary_bytes} {binary_bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        let shown = !context.is_terminal(Standard::Error);
        Metered { inner, bar, interrupt: interrupt.clone(), started: std::time::Instant::now(), shown }
    }

    /// What the data goes through.
    pub(crate) fn inner(&self) -> &T {
        &self.inner
    }

    fn count(&mut self, size: usize) {
        self.bar.inc(size as u64);
        if !self.shown && self.started.elapsed() > QUIET {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.shown = true;
        }
    }
}

impl<T> Drop for Metered<T> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl<T: Read> Read for Metered<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.interrupt.check()?;
        let size = self.inner.read(bytes)?;
        self.count(size);
        Ok(size)
    }
}

impl<T: Write> Write for Metered<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.interrupt.check()?;
        let size = self.inner.write(bytes)?;
        self.count(size);
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
