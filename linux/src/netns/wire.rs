//! A wire with faults: joins hosts in place of a bridge, and loses, delays, reorders, doubles and damages frames as its
//! seed says.
//!
//! ```text
//!  host          namespace of the wire            host
//!   eth0 ───── port1 ─ socket   socket ─ port2 ───── eth0
//!                         \      /
//!                          thread
//! ```
//! One thread moves all frames: [`faults`] says what may happen to one, [`medium`] where it goes and when, [`damage`] how
//! a bit turns over. Whoever holds the [`Wire`] tells it by [`Order`]s, lines of text in a pipe with a name.

mod damage;
mod faults;
mod medium;

use std::fmt::Write;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use amoeba_threads::Instant;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use rustix::io::Errno;

use crate::packet::{BATCH, Batch, PacketSocket};
use crate::threads::now;
pub use faults::{Faults, FaultsError};
use medium::Medium;

/// The largest frame that is carried.
const FRAME_SIZE_MAX: usize = 9216;
/// Bytes of orders that are kept until their line ends; a longer line is forgotten.
const ORDER_SIZE_MAX: usize = 4096;
const EVENTS_PER_TURN: usize = 64;
/// Batches read from one port before the others have their turn.
const BATCHES_PER_TURN: usize = 4;

const STOP: u64 = u64::MAX;
const ORDERS: u64 = u64::MAX - 1;

/// What a wire is told while it works, a line each.
///
/// ```text
/// cut anvil bolt     nothing passes between the two
/// cut anvil          nothing passes between this host and any other
/// heal [anvil [bolt]]
/// faults loss=5%     these faults from now on, in place of all earlier ones; without a seed= that of the earlier ones
/// status             writes the state anew
/// ```
/// Whatever it was told, it then writes its state to the file beside its pipe that ends in `.state`.
#[derive(Clone, Debug, PartialEq)]
enum Order {
    /// Pairs of ports, and whether they are cut from now on.
    Cut(Vec<(usize, usize)>, bool),
    Faults(Faults),
    Status,
}

impl Order {
    fn parse(line: &str, names: &[String]) -> Result<Order, String> {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let rest: Vec<&str> = words.collect();
        match (verb, &rest[..]) {
            ("cut", [_] | [_, _]) | ("heal", [] | [_] | [_, _]) => {
                let port = |name: &&str| names.iter().position(|known| known == name);
                let ports =
                    rest.iter().map(|name| port(name).ok_or_else(|| format!("no host is called {name}")));
                let ports = ports.collect::<Result<Vec<usize>, String>>()?;
                let meant = |a: usize, b: usize| ports.iter().all(|port| *port == a || *port == b);
                let pairs = (0..names.len()).flat_map(|a| (0..a).map(move |b| (b, a)));
                Ok(Order::Cut(pairs.filter(|&(a, b)| meant(a, b)).collect(), verb == "cut"))
            }
            ("faults", [faults]) => faults.parse().map(Order::Faults).map_err(|error| format!("{error}")),
            ("faults", []) => Ok(Order::Faults(Faults::default())),
            ("status", []) => Ok(Order::Status),
            _ => {
                Err(format!("{line:?} is no order: cut HOST [HOST], heal [HOST [HOST]], faults LIST, status"))
            }
        }
    }
}

/// A wire at work. Dropping it ends its thread.
#[derive(Debug)]
pub(super) struct Wire {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Joins the ports of the hosts with these names, at first without faults, and takes orders from a new pipe `control`.
    pub(super) fn start(sockets: Vec<PacketSocket>, names: &[String], control: &Path) -> io::Result<Wire> {
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        mkfifoat(CWD, control, Mode::RUSR | Mode::WUSR)?;
        // Open for writing too, so that it does not end when a writer does.
        let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
        let orders = OpenOptions::new().read(true).write(true).custom_flags(nonblocking).open(control)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &*stop, EventData::new_u64(STOP), EventFlags::IN)?;
        epoll::add(&epoll, &orders, EventData::new_u64(ORDERS), EventFlags::IN)?;
        for (port, socket) in sockets.iter().enumerate() {
            epoll::add(&epoll, socket.as_fd(), EventData::new_u64(port as u64), EventFlags::IN)?;
        }
        let mut worker = Worker {
            medium: Medium::new(sockets.len()),
            sockets,
            epoll,
            orders,
            line: Vec::new(),
            names: names.to_vec(),
            state: control.with_extension("state"),
            told: 0,
            error: String::new(),
            unsent: 0,
        };
        worker.write_state();
        let thread = std::thread::Builder::new().name("wire".to_owned()).spawn(move || {
            if let Err(error) = worker.run() {
                tracing::error!("the wire between the hosts has failed: {error}");
            }
        })?;
        Ok(Wire { stop, thread: Some(thread) })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // It fails only when the counter is full of stops already.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's part.
struct Worker {
    medium: Medium,
    sockets: Vec<PacketSocket>,
    epoll: OwnedFd,
    orders: File,
    /// The beginning of an order.
    line: Vec<u8>,
    names: Vec<String>,
    state: PathBuf,
    /// Orders so far.
    told: u64,
    /// What was wrong with the last order.
    error: String,
    /// Frames that the operating system did not take.
    unsent: u64,
}

impl Worker {
    fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_PER_TURN);
        let mut batch = Batch::new(FRAME_SIZE_MAX);
        loop {
            events.clear();
            let timeout = self.medium.poll_timeout().map(|at| timespec(at, now()));
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            self.deliver(now());
            for event in &events {
                match event.data.u64() {
                    STOP => return Ok(()),
                    ORDERS => self.read_orders(),
                    port => self.port_ready(usize::try_from(port).expect("ports are few"), &mut batch),
                }
            }
        }
    }

    fn port_ready(&mut self, port: usize, batch: &mut Batch) {
        for _ in 0..BATCHES_PER_TURN {
            let count = match self.sockets[port].receive(batch) {
                Ok(count) => count,
                Err(error) => return tracing::debug!(port, "cannot read from a wire: {error}"),
            };
            let now = now();
            let mut at_once: Vec<(usize, usize)> = Vec::new();
            for number in 0..count {
                self.medium.frame(now, port, batch.frame(number), |to| at_once.push((to, number)));
            }
            at_once.sort_by_key(|&(to, _)| to); // stable: frames to one port stay in order
            for frames in at_once.chunk_by(|a, b| a.0 == b.0) {
                let bytes: Vec<&[u8]> = frames.iter().map(|&(_, number)| batch.frame(number)).collect();
                self.send(frames[0].0, &bytes);
            }
            if count < BATCH {
                return;
            }
        }
    }

    /// Sends what has arrived by now.
    fn deliver(&mut self, now: Instant) {
        let mut arrivals = self.medium.arrivals(now);
        arrivals.sort_by_key(|&(to, _)| to);
        for frames in arrivals.chunk_by(|a, b| a.0 == b.0) {
            let bytes: Vec<&[u8]> = frames.iter().map(|(_, frame)| &frame[..]).collect();
            self.send(frames[0].0, &bytes);
        }
    }

    /// Sends frames to a host. One that the operating system does not take is lost.
    fn send(&mut self, port: usize, frames: &[&[u8]]) {
        let parts: Vec<_> =
            frames.iter().map(|frame| [IoSlice::new(frame), IoSlice::new(&[]), IoSlice::new(&[])]).collect();
        let mut parts = &parts[..];
        while !parts.is_empty() {
            let taken = self.sockets[port].send(parts).unwrap_or_else(|_| {
                self.unsent += 1;
                1
            });
            parts = &parts[taken.clamp(1, parts.len())..];
        }
    }

    fn read_orders(&mut self) {
        let mut bytes = [0; ORDER_SIZE_MAX];
        let Ok(count) = self.orders.read(&mut bytes) else { return };
        self.line.extend_from_slice(&bytes[..count]);
        while let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.line.drain(..=end).collect();
            self.obey(String::from_utf8_lossy(&line).trim());
        }
        if self.line.len() > ORDER_SIZE_MAX {
            self.line.clear();
        }
    }

    fn obey(&mut self, line: &str) {
        self.told += 1;
        self.error.clear();
        match Order::parse(line, &self.names) {
            Ok(Order::Cut(pairs, cut)) => {
                pairs.into_iter().for_each(|(a, b)| self.medium.cut(a, b, cut));
            }
            Ok(Order::Faults(faults)) => self.medium.set_faults(now(), faults),
            Ok(Order::Status) => {}
            Err(error) => self.error = error,
        }
        self.write_state();
    }

    /// Replaces the file with the state.
    fn write_state(&self) {
        let new = self.state.with_extension("new");
        let written = fs::write(&new, self.text()).and_then(|()| fs::rename(&new, &self.state));
        if let Err(error) = written {
            tracing::warn!("cannot write the state of the wire: {error}");
        }
    }

    fn text(&self) -> String {
        let counters = self.medium.counters;
        let rows = [
            ("orders", self.told),
            ("frames", counters.frames),
            ("delivered", counters.delivered),
            ("lost", counters.lost),
            ("duplicated", counters.duplicated),
            ("held back", counters.held_back),
            ("damaged", counters.damaged),
            ("dropped at cuts", counters.cut),
            ("overflowed", counters.overflowed),
            ("unsent", self.unsent),
        ];
        let mut text = String::new();
        // Writing to a string does not fail.
        for (name, value) in rows {
            let _ = writeln!(text, "{name} {value}");
        }
        let _ = writeln!(text, "faults {}", self.medium.faults());
        for (a, b) in self.medium.cuts() {
            let _ = writeln!(text, "cut {} {}", self.names[a], self.names[b]);
        }
        if !self.error.is_empty() {
            let _ = writeln!(text, "error {}", self.error);
        }
        text
    }
}

fn timespec(at: Instant, now: Instant) -> Timespec {
    let left = at.since(now);
    Timespec { tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_understood() {
        let names = ["anvil", "bolt", "chisel"].map(str::to_owned);
        let order = |line: &str| Order::parse(line, &names);
        assert_eq!(order("cut bolt anvil"), Ok(Order::Cut(vec![(0, 1)], true)));
        assert_eq!(order(" cut  bolt "), Ok(Order::Cut(vec![(0, 1), (1, 2)], true)));
        assert_eq!(order("heal"), Ok(Order::Cut(vec![(0, 1), (0, 2), (1, 2)], false)));
        assert_eq!(order("heal chisel bolt"), Ok(Order::Cut(vec![(1, 2)], false)));
        assert_eq!(order("faults loss=5%"), Ok(Order::Faults(Faults { loss: 0.05, ..Faults::default() })));
        assert_eq!(order("faults"), Ok(Order::Faults(Faults::default())));
        assert_eq!(order("status"), Ok(Order::Status));
        for wrong in ["", "cut", "cut hammer", "cut anvil bolt chisel", "faults luck=1", "explode"] {
            assert!(order(wrong).is_err(), "{wrong}");
        }
    }
}
