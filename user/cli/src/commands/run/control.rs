//! What happens while processes run: signals, the size of the terminal, the end of their time, their own end.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use amoeba_cap::Capability;
use amoeba_stubs::Client;
use amoeba_stubs::process::{self, ExitRecord};
use amoeba_world::{Error as Refusal, World};

use crate::Console;
use crate::launch::pool::Target;

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
/// The interrupt that kills the processes.
const INTERRUPTS_TO_KILL: usize = 3;
/// The interrupt that ends this program, if even killing was in vain.
const INTERRUPTS_TO_LEAVE: usize = 5;
/// How long a process may take to end after its time is over.
const GRACE: Duration = Duration::from_secs(2);
/// Signals kept while the processes are being started; more are the same ones again.
const EARLY_MAX: usize = 16;

enum Event {
    Signal(u8),
    Ended(usize, Result<ExitRecord, Refusal>),
}

/// The processes of one command, from before their start to their end, as their caller sees them.
pub(super) struct Job<'a> {
    world: World,
    console: &'a dyn Console,
    sender: Sender<Event>,
    events: Receiver<Event>,
    processes: Vec<Running>,
    /// Signals that came before all processes ran.
    early: Vec<u8>,
    interrupts: usize,
    deadline: Option<Instant>,
    timed_out: bool,
}

/// A process, and where it runs.
struct Running {
    target: Target,
    process: Capability,
    ended: Option<Result<ExitRecord, Refusal>>,
}

/// How a process ended, and where.
pub(super) struct End {
    pub(super) target: Target,
    pub(super) result: Result<ExitRecord, Refusal>,
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
            processes: Vec::new(),
            early: Vec::new(),
            interrupts: 0,
            deadline: None,
            timed_out: false,
        })
    }

    /// Takes charge of a process that runs; its number is how many were added before it.
    pub(super) fn add(&mut self, target: Target, process: Capability) -> anyhow::Result<()> {
        let (world, to, number) = (self.world.clone(), self.sender.clone(), self.processes.len());
        self.processes.push(Running { target: target.clone(), process, ended: None });
        self.world.threads.spawn("process", move || {
            target.note(&world, &process);
            // A receiver that has gone has ended the program.
            let _ = to.send(Event::Ended(number, target.wait(&world, &process)));
        })?;
        Ok(())
    }

    /// All processes run: hands over what came while they were being started.
    pub(super) fn all_run(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                Event::Signal(signal) if self.early.len() < EARLY_MAX => self.early.push(signal),
                Event::Signal(_) => {}
                Event::Ended(number, result) => self.processes[number].ended = Some(result),
            }
        }
        std::mem::take(&mut self.early).into_iter().for_each(|signal| self.handle(signal));
    }

    /// From now on the processes have only so much time.
    pub(super) fn limit(&mut self, time: Duration) {
        self.deadline = Instant::now().checked_add(time);
    }

    /// Waits for the end of all processes; `ended` hears of each. When one is lost the others are killed: what it would
    /// have sent them is not the end of their input.
    pub(super) fn wait(&mut self, mut ended: impl FnMut(usize)) -> Vec<End> {
        for (number, running) in self.processes.iter().enumerate() {
            if running.ended.is_some() {
                ended(number);
            }
        }
        self.kill_what_is_left();
        while self.processes.iter().any(|running| running.ended.is_none()) {
            match self.next() {
                Some(Event::Ended(number, result)) => {
                    self.processes[number].ended = Some(result);
                    ended(number);
                    self.kill_what_is_left();
                }
                Some(Event::Signal(signal)) => self.handle(signal),
                None => self.end_of_time(),
            }
        }
        let end = |running: Running| {
            let result = running.ended.expect("the loop ends when all have ended");
            End { target: running.target, result }
        };
        self.processes.drain(..).map(end).collect()
    }

    /// Kills all processes; nobody waits for them.
    pub(super) fn kill(&self) {
        self.send(SIGKILL);
    }

    fn kill_what_is_left(&self) {
        if self.processes.iter().any(|running| matches!(running.ended, Some(Err(_)))) {
            self.kill();
        }
    }

    /// Whether the processes were told to end because their time was over.
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

    /// Asks the processes to end, and kills them when they do not listen.
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

    fn send(&self, signal: u8) {
        for Running { target, process, .. } in self.processes.iter().filter(|running| running.ended.is_none())
        {
            let options = target.options();
            // A process that has just ended hears nothing, as with any signal.
            let _ = process::signal(Client::new(&*self.world.transactions, &options), process, signal);
        }
    }

    fn resize(&self) {
        if let (Some(running), Some((rows, columns))) = (self.processes.first(), self.console.size()) {
            // The next change says all that this one says; a process without a terminal does not mind.
            let _ = process::resize(&self.world, &running.process, rows, columns);
        }
    }
}
