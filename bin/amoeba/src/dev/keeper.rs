//! The keeper of throw-away hosts: makes them, runs the command, and clears up.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

use amoeba_linux::{family, host};
use anyhow::{Context, Result};
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use super::hosts::{Hosts, Place};
use super::{STOPPING, clear, is_for_command, prompt};
use crate::boot;

/// The exit code when it is our fault.
const OUR_FAULT: u8 = 125;
/// The exit code when the command cannot be executed.
const CANNOT_EXECUTE: u8 = 126;
/// The exit code when there is no such command.
const NOT_FOUND: u8 = 127;
/// How long the command may take to end when it is told to.
const GRACE: Duration = Duration::from_secs(2);

/// `amoeba dev-keeper DIRECTORY HOSTS PLACE [COMMAND...]`, as the front starts it.
pub(crate) fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let result = Order::parse(arguments).and_then(|order| {
        let watch = Watch::start()?;
        boot::end_with_supervisor()?;
        family::adopt_orphans().context("this system cannot keep track of processes")?;
        let result = keep(&order, &watch);
        clear(&order.directory).and(result)
    });
    ExitCode::from(result.unwrap_or_else(|error| {
        eprintln!("amoeba: {error:#}");
        OUR_FAULT
    }))
}

/// What the front asks for.
struct Order {
    directory: PathBuf,
    hosts: usize,
    place: Place,
    command: Vec<OsString>,
}

impl Order {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Order> {
        let mut next = || arguments.next().context("only `amoeba dev` starts this program");
        let directory = PathBuf::from(next()?);
        let hosts = next()?.to_str().and_then(|hosts| hosts.parse().ok()).context("how many hosts?")?;
        let place = next()?.to_str().and_then(Place::parse).context("where are the hosts to be?")?;
        Ok(Order { directory, hosts, place, command: arguments.collect() })
    }
}

/// Who is to be told when it is time to end.
struct Watch {
    /// The signal that said so; 0 while none has.
    signal: AtomicI32,
    /// The command; 0 while there is none.
    command: AtomicU32,
}

impl Watch {
    fn start() -> Result<Arc<Watch>> {
        let mut signals = Signals::new(STOPPING)?;
        let watch = Arc::new(Watch { signal: AtomicI32::new(0), command: AtomicU32::new(0) });
        let watching = Arc::clone(&watch);
        std::thread::spawn(move || {
            for signal in &mut signals {
                watching.told(signal);
            }
        });
        Ok(watch)
    }

    fn told(self: &Arc<Watch>, signal: i32) {
        let command = self.command.load(Ordering::SeqCst);
        if signal == SIGINT && command != 0 && is_for_command(signal) {
            return;
        }
        self.signal.store(signal, Ordering::SeqCst);
        if command != 0 {
            self.end_command(command);
        }
    }

    fn end_command(self: &Arc<Watch>, command: u32) {
        host::terminate(command);
        let watch = Arc::clone(self);
        std::thread::spawn(move || {
            std::thread::sleep(GRACE);
            if watch.command.load(Ordering::SeqCst) == command {
                host::kill(command);
            }
        });
    }

    /// The exit code of a program that ended because it was told to.
    fn stopped(&self) -> Option<u8> {
        let signal = self.signal.load(Ordering::SeqCst);
        (signal != 0).then(|| u8::try_from(128 + signal).unwrap_or(OUR_FAULT))
    }

    /// Runs the command to its end and gives its exit code.
    fn run(self: &Arc<Watch>, mut command: Command) -> Result<u8> {
        let child = match command.spawn() {
            Ok(child) => child.id(),
            Err(error) => {
                let name = command.get_program().to_string_lossy().into_owned();
                eprintln!("amoeba: {name}: {error}");
                let found = error.kind() != std::io::ErrorKind::NotFound;
                return Ok(if found { CANNOT_EXECUTE } else { NOT_FOUND });
            }
        };
        self.command.store(child, Ordering::SeqCst);
        if self.stopped().is_some() {
            self.end_command(child); // told between the last look and now
        }
        loop {
            let ended = family::wait_for_child().context("the command is lost")?;
            if ended.pid == child {
                self.command.store(0, Ordering::SeqCst);
                return Ok(ended.code);
            }
        }
    }
}

/// Makes the hosts and runs the command. Whatever it returns, there is something to clear up.
fn keep(order: &Order, watch: &Arc<Watch>) -> Result<u8> {
    let hosts = Hosts::make(&order.directory, order.hosts, &order.place)?;
    if !hosts.start(|| watch.stopped().is_some())? {
        return Ok(watch.stopped().unwrap_or(OUR_FAULT));
    }
    hosts.begin_faults(&order.place)?;
    let mut command = match order.command.split_first() {
        Some((program, arguments)) => {
            let mut command = Command::new(program);
            command.args(arguments);
            command
        }
        None => {
            eprintln!("{}", hosts.greeting());
            prompt::shell(&order.directory, order.hosts)?
        }
    };
    command.env("AMOEBA_STATE", hosts.first()).env("AMOEBA_DEV_HOSTS", hosts.list());
    if let Some(control) = hosts.control() {
        command.env("AMOEBA_DEV_WIRE", control);
    }
    command.env_remove("AMOEBA_SUPERVISOR").env("PATH", hosts.search_path()?);
    watch.run(command)
}
