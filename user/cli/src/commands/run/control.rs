//! What happens while the process runs: signals, the size of the terminal, the end of its time, its own end.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use amoeba_cap::Capability;
use amoeba_stubs::process::{self, ExitRecord};
use amoeba_world::{Error as Refusal, World};

use crate::Console;

const SIGHUP: u8 = 1;
const SIGINT: u8 = 2;
const SIGQUIT: u8 = 3;
const SIGKILL: u8 = 9;
const SIGUSR1: u8 = 10;
const SIGUSR2: u8 = 12;
const SIGTERM: u8 = 15;
const SIGCONT: u8 = 18;
const SIGSTOP: u8 = 19;
const SIGTSTP: u8 = 20;
const SIGWINCH: u8 = 28;

/// Signals that are caught. All but SIGTSTP and SIGWINCH are passed on as they are.
const CAUGHT: [u8; 8] = [SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM, SIGTSTP, SIGWINCH];
/// The interrupt that kills the process.
const INTERRUPTS_TO_KILL: usize = 3;
/// The interrupt that ends this program, if even killing was in vain.
const INTERRUPTS_TO_LEAVE: usize = 5;
/// How long a process may take to end after its time is over.
const GRACE: Duration = Duration::from_secs(2);
/// Signals kept for a process that does not run yet; more are the same ones again.
const EARLY_MAX: usize = 16;

enum Event {
    Signal(u8),
    Started(Result<Capability, Refusal>),
    Ended(Result<ExitRecord, Refusal>),
}

/// A process from before its start to its end, as its caller sees it.
pub(super) struct Job<'a> {
    world: World,
    console: &'a dyn Console,
    sender: Sender<Event>,
    events: Receiver<Event>,
    process: Option<Capability>,
    /// Signals that came before the process ran.
    early: Vec<u8>,
    interrupts: usize,
    deadline: Option<Instant>,
    timed_out: bool,
}

impl<'a> Job<'a> {
    /// Catches signals from now on.
    pub(super) fn new(world: &World, console: &'a dyn Console) -> anyhow::Result<Job<'a>> {
        let (sender, events) = mpsc::channel();
        let mut signals = console.signals(&CAUGHT.map(i32::from))?;
        let to = sender.clone();
        world.threads.spawn("signals", move || {
            let mut interrupts = 0;
            while let Some(signal) = signals.next() {
                let Ok(signal) = u8::try_from(signal) else { continue };
                interrupts += usize::from(signal == SIGINT);
                if interrupts >= INTERRUPTS_TO_LEAVE {
                    std::process::exit(128 + i32::from(SIGINT));
                }
                if to.send(Event::Signal(signal)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Job {
            world: world.clone(),
            console,
            sender,
            events,
            process: None,
            early: Vec::new(),
            interrupts: 0,
            deadline: None,
            timed_out: false,
        })
    }

    /// Starts a process from its encoded descriptor.
    pub(super) fn start(
        &mut self,
        server: Capability,
        descriptor: Vec<u8>,
    ) -> anyhow::Result<Result<(), Refusal>> {
        let (world, to) = (self.world.clone(), self.sender.clone());
        self.world.threads.spawn("process", move || {
            let started = process::exec(&world, &server, descriptor);
            // A receiver that has gone has ended the program.
            let _ = to.send(Event::Started(started));
            if let Ok(process) = started {
                let _ = to.send(Event::Ended(process::wait(&world, &process)));
            }
        })?;
        loop {
            match self.next() {
                Some(Event::Started(Ok(process))) => {
                    self.process = Some(process);
                    std::mem::take(&mut self.early).into_iter().for_each(|signal| self.handle(signal));
                    return Ok(Ok(()));
                }
                Some(Event::Started(Err(error))) => return Ok(Err(error)),
                Some(Event::Signal(signal)) => self.handle(signal),
                Some(Event::Ended(_)) | None => {}
            }
        }
    }

    /// From now on the process has only so much time.
    pub(super) fn limit(&mut self, time: Duration) {
        self.deadline = Instant::now().checked_add(time);
    }

    /// Waits for the end of the process.
    pub(super) fn wait(&mut self) -> Result<ExitRecord, Refusal> {
        loop {
            match self.next() {
                Some(Event::Ended(ended)) => {
                    self.process = None;
                    return ended;
                }
                Some(Event::Signal(signal)) => self.handle(signal),
                Some(Event::Started(_)) => {}
                None => self.end_of_time(),
            }
        }
    }

    /// Whether the process was told to end because its time was over.
    pub(super) fn timed_out(&self) -> bool {
        self.timed_out
    }

    /// The next event, `None` when the time is over.
    fn next(&self) -> Option<Event> {
        let time_left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match time_left {
            Some(time) => match self.events.recv_timeout(time) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => unreachable!("we hold a sender ourselves"),
            },
            None => Some(self.events.recv().expect("we hold a sender ourselves")),
        }
    }

    /// Asks the process to end, and kills it when it does not listen.
    fn end_of_time(&mut self) {
        if self.timed_out {
            self.deadline = None;
            self.send(SIGKILL);
        } else {
            self.timed_out = true;
            self.deadline = Instant::now().checked_add(GRACE);
            self.send(SIGTERM);
        }
    }

    fn handle(&mut self, signal: u8) {
        match signal {
            _ if self.process.is_none() => self.keep(signal),
            SIGWINCH => self.resize(),
            SIGTSTP => {
                // Nobody's foreground there, so the process would ignore what a terminal sends.
                self.send(SIGSTOP);
                self.console.suspend();
                self.send(SIGCONT);
            }
            SIGINT => {
                self.interrupts += 1;
                self.send(if self.interrupts >= INTERRUPTS_TO_KILL { SIGKILL } else { SIGINT });
            }
            signal => self.send(signal),
        }
    }

    /// A signal for a process that does not run yet.
    fn keep(&mut self, signal: u8) {
        if self.early.len() < EARLY_MAX {
            self.early.push(signal);
        }
    }

    fn send(&self, signal: u8) {
        if let Some(process) = &self.process {
            // A process that has just ended hears nothing, as with any signal.
            let _ = process::signal(&self.world, process, signal);
        }
    }

    fn resize(&self) {
        if let (Some(process), Some((rows, columns))) = (&self.process, self.console.size()) {
            // The next change says all that this one says; a process without a terminal does not mind.
            let _ = process::resize(&self.world, process, rows, columns);
        }
    }
}
