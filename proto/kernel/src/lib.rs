//! The transaction kernel of one host: F-box, port table, RPC endpoints of the attached processes, and the FLIP box,
//! joined into one state machine.
//!
//! Sans I/O: it is told the time, the packets that arrived and what processes ask for; it gives packets to send and
//! events for processes. It opens no socket, reads no clock and starts no thread, so `linux` and `sim` drive the same
//! code. Whoever drives it calls in, then empties [`Kernel::poll_event`] and [`Kernel::poll_transmit`], then sleeps
//! until [`Kernel::poll_timeout`].
#![forbid(unsafe_code)]
#![allow(unused)]

use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::{GetPort, PutPort, SystemSecret};
use amoeba_threads::Instant;
use amoeba_wire::Status;
use amoeba_wire::packet::Address;
use amoeba_world::{Caller, Entropy, Error, Message, TransOptions};

/// A process attached to this kernel; never used again in the kernel's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

/// A client thread of a process: at most one transaction at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// One call of getreq, named by the process that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GetreqId(pub u64);

/// A request that was delivered to a process and awaits its reply; never used again in the kernel's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A network of this host, numbered by whoever drives the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u16);

/// Where on a link: opaque to the kernel, compared byte by byte, at most [`LOCATION_SIZE_MAX`] bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location(pub Vec<u8>);

/// Bytes a location may have.
pub const LOCATION_SIZE_MAX: usize = 32;

/// What the kernel must know of a link.
#[derive(Clone, Copy, Debug)]
pub struct LinkConfig {
    /// The most bytes of a FLIP packet (header included) that the link carries.
    pub packet_size_max: usize,
    /// What crossing it adds to a hop count.
    pub weight: u16,
    /// Whether SECURITY messages may use it.
    pub trusted: bool,
}

/// A packet to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// On which link.
    pub link: LinkId,
    /// To whom; `None` for everybody on the link.
    pub to: Option<Location>,
    /// A whole FLIP packet.
    pub packet: Vec<u8>,
}

/// What a process is to be told.
#[derive(Debug)]
pub enum Event {
    /// The transaction of this slot has ended.
    Reply {
        /// The client.
        process: ProcessId,
        /// Its thread.
        slot: Slot,
        /// How it ended.
        result: Result<Message, Error>,
    },
    /// A request for this call of getreq.
    Request {
        /// The server.
        process: ProcessId,
        /// Its call of getreq, which is thereby over.
        getreq: GetreqId,
        /// Names the request in [`Kernel::putrep`].
        request: RequestId,
        /// Who sent it.
        caller: Caller,
        /// What it says.
        message: Message,
    },
}

/// How a kernel is made.
pub struct Config {
    /// The system's secret: the key of F and of FLIP addresses.
    pub secret: SystemSecret,
    /// Identifiers, addresses.
    pub entropy: Arc<dyn Entropy>,
    /// Links, in the order of their [`LinkId`]s from 0.
    pub links: Vec<LinkConfig>,
}

/// The state machine. See the crate's head for how it is driven.
pub struct Kernel {}

impl Kernel {
    /// A kernel with no process. It boots at `now`: for [`amoeba_flip`]'s packet life it answers no NOTHERE.
    pub fn new(config: Config, now: Instant) -> Kernel {
        let _ = (config, now);
        Kernel {}
    }

    /// A new process. `Err(RPC_TRYAGAIN)` when the host has its most processes.
    pub fn attach(&mut self, now: Instant) -> Result<ProcessId, Status> {
        Err(Status::RPC_TRYAGAIN)
    }

    /// The process's public FLIP address.
    pub fn address(&self, process: ProcessId) -> Option<Address> {
        None
    }

    /// The process has ended: what it was executing fails at its clients, what it had asked for is forgotten.
    pub fn detach(&mut self, now: Instant, process: ProcessId) {}

    /// F: the put-port of a get-port.
    pub fn put_port(&self, port: &GetPort) -> PutPort {
        PutPort::NULL
    }

    /// The process listens on a get-port from now on. `request_size_max` bounds the data of its requests.
    pub fn listen(
        &mut self,
        process: ProcessId,
        port: &GetPort,
        request_size_max: usize,
    ) -> Result<PutPort, Status> {
        Err(Status::RPC_TRYAGAIN)
    }

    /// The process no longer listens; its calls of getreq on that port are forgotten, what it executes goes on.
    pub fn unlisten(&mut self, now: Instant, process: ProcessId, port: PutPort) {}

    /// A thread of the process waits for a request on a port it listens on: one [`Event::Request`] will name `getreq`.
    pub fn getreq(
        &mut self,
        now: Instant,
        process: ProcessId,
        port: PutPort,
        getreq: GetreqId,
    ) -> Result<(), Status> {
        Err(Status::RPC_BADPORT)
    }

    /// That thread no longer waits. If its request was delivered already, this does nothing.
    pub fn cancel_getreq(&mut self, process: ProcessId, getreq: GetreqId) {}

    /// Answers a request. Unknown ids (a client that has died, an answer given twice) are ignored.
    pub fn putrep(&mut self, now: Instant, process: ProcessId, request: RequestId, reply: Message) {}

    /// Gives a request up: its client hears RPC_FAILURE.
    pub fn fail(&mut self, now: Instant, process: ProcessId, request: RequestId) {}

    /// Starts a transaction; one [`Event::Reply`] for `slot` will end it, at once for a bad request.
    pub fn trans(
        &mut self,
        now: Instant,
        process: ProcessId,
        slot: Slot,
        request: Message,
        options: &TransOptions,
    ) {
    }

    /// The client thread is gone: forget its transaction, without an event.
    pub fn abort(&mut self, now: Instant, process: ProcessId, slot: Slot) {}

    /// A packet arrived on `link` from `from`.
    pub fn handle_packet(&mut self, now: Instant, link: LinkId, from: &Location, packet: &[u8]) {}

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {}

    /// When [`Kernel::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// The next packet to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        None
    }

    /// The next event for a process.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// Counters and tables, a line each, for `std_status`.
    pub fn status(&self) -> String {
        String::new()
    }
}
