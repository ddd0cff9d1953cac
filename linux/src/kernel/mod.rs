//! The kernel daemon: one thread and one epoll around [`amoeba_kernel::Kernel`].
//!
//! The daemon moves bytes and nothing else: the switch says what a frame means, the kernel what a transaction is, a link
//! who else is there. No
//! peer makes it wait: sockets do not block, a peer that does not read has its answers queued, within bounds, and
//! one that says what the protocol forbids loses its connection and a line in the log. After work it looks for a moment
//! whether there is more ([`crate::look`]); with nothing to do it sleeps.

mod home;
mod switch;
mod table;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::SystemSecret;
use amoeba_threads::Instant;
use amoeba_wire::Status;
use amoeba_world::{Entropy, Error};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, SocketFlags, accept_with, recv, sockopt};

use crate::link::admission::{Desk, Row};
use crate::link::{self, Link};
use crate::look::{Look, Next};
use crate::socket::{Bad, DESCRIPTORS_TO_KERNEL, ToProcess, prepare, receive_some, send_some};
use crate::threads::now;
pub use home::BindError;
use home::Home;
pub use switch::{ACCEPT_TIME, CHANNELS_MAX, CHANNELS_PER_CLIENT_MAX, FLOWS_MAX, FLOWS_PER_CLIENT_MAX};
use switch::{DESCRIPTORS_PER_CHANNEL, Switch};
use table::Token;

/// The most connections of all processes, unless told otherwise.
pub const CONNECTIONS_MAX: usize = 4096;
/// The most connections of one process: its threads in `trans` and `getreq`, and what it keeps for them.
pub const CONNECTIONS_PER_PROCESS_MAX: usize = 1024;
/// What a connection may leave unread of answers that are not replies, in frames.
pub const OUTGOING_FRAMES_MAX: usize = 16;
/// Requests that one connection may have delivered and not yet answered.
pub const EXECUTING_MAX: usize = 4096;
/// When memory is short, a peer that has taken or given nothing for this long loses its connection.
pub const STALL_TIME: Duration = Duration::from_secs(10);

/// How long accepting rests when the host is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(100);
const ACCEPTS_PER_TURN: usize = 64;
const EVENTS_PER_TURN: usize = 256;
/// Bytes read from one connection before the others have their turn.
const READ_TURN_SIZE: usize = 4 << 20;
const SCRATCH_SIZE: usize = 64 << 10;
/// Descriptors that are not for connections.
const DESCRIPTORS_RESERVED: u64 = 64;
const BACKLOG: i32 = 256;

const LISTENING: u64 = u64::MAX;
const STOPPING: u64 = u64::MAX - 1;
/// Links have the numbers from here down.
const LINKS: u64 = u64::MAX - 2;
/// Links that a daemon may have.
pub const LINKS_MAX: usize = 16;

/// Opens the link to other hosts: it, and where it listens.
pub type OpenLink = Box<dyn FnMut(SocketAddr) -> Result<(Box<dyn Link>, SocketAddr), link::BindError> + Send>;

/// How a daemon is made.
pub struct Config {
    /// The system's secret: the key of F.
    pub secret: SystemSecret,
    /// Identifiers, addresses, cookies.
    pub entropy: Arc<dyn Entropy>,
    /// The networks of this host; past [`LINKS_MAX`] they are not used.
    pub links: Vec<Box<dyn Link>>,
    /// Where the link to other hosts listens, if one of them is that.
    pub listening: Option<SocketAddr>,
    /// How that link is opened while the kernel runs; without it it cannot be.
    pub open_link: Option<OpenLink>,
    /// Where hosts are taken into the system; without it none are.
    pub desk: Option<Desk>,
    /// The hosts of the system.
    pub members: Vec<Row>,
    /// The most connections; past it a process hears RPC_TRYAGAIN.
    pub connections_max: usize,
    /// The most channels between processes of this host.
    pub channels_max: usize,
    /// The most bytes of data on their way through this daemon; past it large requests hear RPC_TRYAGAIN.
    pub buffered_max: usize,
}

impl Config {
    /// A configuration without links and with the usual bounds: data take at most half the memory of the host, at least enough for
    /// one transaction of the largest size both ways.
    pub fn new(secret: SystemSecret, entropy: Arc<dyn Entropy>) -> Config {
        let system = rustix::system::sysinfo();
        let memory = system.totalram.saturating_mul(system.mem_unit.into());
        let buffered_max = usize::try_from(memory / 2).unwrap_or(usize::MAX);
        let buffered_max = buffered_max.clamp(3 * amoeba_wire::DATA_SIZE_MAX, 8 * amoeba_wire::DATA_SIZE_MAX);
        Config {
            secret,
            entropy,
            links: Vec::new(),
            listening: None,
            open_link: None,
            desk: None,
            members: Vec::new(),
            connections_max: CONNECTIONS_MAX,
            channels_max: CHANNELS_MAX,
            buffered_max,
        }
    }
}

/// Ends [`Daemon::run`] from anywhere.
#[derive(Clone, Debug)]
pub struct Stopper(Arc<OwnedFd>);

impl Stopper {
    /// Makes the daemon's `run` return; it does so at once when it is not running yet.
    pub fn stop(&self) {
        // It fails only when the counter is full of stops already.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// The kernel daemon of one host. Dropping it closes every connection and removes the socket.
pub struct Daemon {
    home: Home,
    epoll: OwnedFd,
    stop: Stopper,
    switch: Switch,
    /// Links that epoll watches.
    watched: usize,
    scratch: Vec<u8>,
    look: Look,
    /// Set while accepting rests.
    accept_again: Option<Instant>,
}

impl Daemon {
    /// Takes the socket `path`: makes its directory (mode 0700) where it is missing, replaces a socket that a dead
    /// daemon left, and keeps `path` with `.lock` appended locked. Raises the process's limit of open descriptors
    /// to what it may have.
    pub fn bind(path: &Path, mut config: Config) -> Result<Daemon, BindError> {
        let home = Home::take(path, BACKLOG)?;
        let failed = |source: Errno| BindError::Io { path: path.into(), source: source.into() };
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(failed)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?;
        epoll::add(&epoll, &home.socket, EventData::new_u64(LISTENING), EventFlags::IN).map_err(failed)?;
        epoll::add(&epoll, &stop, EventData::new_u64(STOPPING), EventFlags::IN).map_err(failed)?;
        config.links.truncate(LINKS_MAX);
        let descriptors = raise_descriptors();
        // At most a quarter of the descriptors are for channels, so that there is always room for connections.
        config.channels_max = config.channels_max.min(descriptors / 4 / DESCRIPTORS_PER_CHANNEL);
        let left = descriptors - config.channels_max * DESCRIPTORS_PER_CHANNEL;
        let connections_max = config.connections_max.min(left);
        let mut daemon = Daemon {
            home,
            epoll,
            stop: Stopper(Arc::new(stop)),
            switch: Switch::new(Config { connections_max, ..config }, now()),
            watched: 0,
            scratch: vec![0; SCRATCH_SIZE],
            look: Look::default(),
            accept_again: None,
        };
        daemon.switch.tell_members(now());
        daemon.watch_links().map_err(failed)?;
        Ok(daemon)
    }

    /// Lets epoll watch the links that are new.
    fn watch_links(&mut self) -> Result<(), Errno> {
        for (index, link) in self.switch.links.iter().enumerate().skip(self.watched) {
            epoll::add(&self.epoll, link.fd(), EventData::new_u64(LINKS - index as u64), EventFlags::IN)?;
            self.watched = index + 1;
        }
        Ok(())
    }

    /// What ends [`Daemon::run`].
    pub fn stopper(&self) -> Stopper {
        self.stop.clone()
    }

    /// Serves until stopped.
    ///
    /// # Errors
    /// The system's own: epoll failed.
    pub fn run(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_PER_TURN);
        let mut worked = false;
        loop {
            events.clear();
            self.wait(&mut events, worked)?;
            worked = !events.is_empty();
            let now = now();
            for event in &events {
                match event.data.u64() {
                    STOPPING => return Ok(()),
                    LISTENING => self.accept(now),
                    token if token > LINKS - LINKS_MAX as u64 => {
                        self.link_ready(now, LINKS - token, event.flags)
                    }
                    token => self.ready(now, Token::from_u64(token), event.flags),
                }
                self.settle(now);
            }
            self.watch_links()?;
            self.tick(now);
            self.transmit(now);
            if self.switch.is_traced() {
                self.settle(now); // what was sent is shown at once
            }
        }
    }

    /// Waits for events, or until it is time for something. After work it looks for more before it sleeps.
    fn wait(&mut self, events: &mut Vec<epoll::Event>, worked: bool) -> io::Result<()> {
        let mut ready = |timeout: Option<&Timespec>| match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(events),
            timeout,
        ) {
            Ok(count) => Ok(count > 0),
            Err(Errno::INTR) => Ok(false),
            Err(errno) => Err(errno),
        };
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        if worked {
            loop {
                if ready(Some(&at_once))? {
                    self.look.found();
                    return Ok(());
                }
                if let Next::Sleep(_) = self.look.again() {
                    break;
                }
            }
        }
        let timeout = timeout_of(&self.switch, self.accept_again);
        ready(timeout.as_ref())?;
        self.look.slept();
        Ok(())
    }

    fn tick(&mut self, now: Instant) {
        if self.switch.poll_timeout().is_some_and(|at| at <= now) {
            self.switch.handle_timeout(now);
            self.settle(now);
        }
        for index in 0..self.switch.links.len() {
            if self.switch.links[index].poll_timeout().is_some_and(|at| at <= now) {
                self.switch.link_work(now, index, |link, events| link.handle_timeout(now, events));
                self.settle(now);
            }
        }
        if self.accept_again.is_some_and(|at| at <= now) {
            self.accept_again = None;
            self.watch_socket(EventFlags::IN);
        }
    }

    fn watch_socket(&self, flags: EventFlags) {
        epoll::modify(&self.epoll, &self.home.socket, EventData::new_u64(LISTENING), flags)
            .expect("the listening socket stays registered");
    }

    fn link_ready(&mut self, now: Instant, index: u64, flags: EventFlags) {
        let index = usize::try_from(index).expect("links are few");
        if flags.intersects(EventFlags::IN | EventFlags::ERR) {
            self.switch.link_work(now, index, |link, events| link.receive(now, events));
        }
    }

    /// Gives the links what they take, and lets them send.
    fn transmit(&mut self, now: Instant) {
        self.switch.transmit(now);
        for (index, link) in self.switch.links.iter_mut().enumerate() {
            let waited = link.wants_write();
            link.flush(now);
            if link.wants_write() != waited {
                let mut flags = EventFlags::IN;
                flags.set(EventFlags::OUT, link.wants_write());
                let data = EventData::new_u64(LINKS - index as u64);
                epoll::modify(&self.epoll, link.fd(), data, flags).expect("links stay registered");
            }
        }
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            match accept_with(&self.home.socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => self.admit(now, socket),
                Err(Errno::WOULDBLOCK) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => {
                    tracing::warn!("cannot accept: {errno}");
                    self.accept_again = Some(now + ACCEPT_REST);
                    self.watch_socket(EventFlags::empty());
                    return;
                }
            }
        }
    }

    fn admit(&mut self, now: Instant, socket: OwnedFd) {
        let peer = match sockopt::socket_peercred(&socket) {
            Ok(peer) => peer,
            Err(errno) => return tracing::warn!("a connection without a peer: {errno}"),
        };
        if peer.uid != rustix::process::geteuid() && !peer.uid.is_root() {
            return tracing::warn!(pid = peer.pid.as_raw_pid(), "refused a connection of another user");
        }
        prepare(&socket);
        let token = self.switch.connected(now, socket, peer.pid.as_raw_pid());
        let Some(connection) = self.switch.table.get(token) else { return };
        let data = EventData::new_u64(token.to_u64());
        if let Err(errno) = epoll::add(&self.epoll, &connection.socket, data, EventFlags::IN) {
            tracing::warn!("cannot watch a connection: {errno}");
            self.switch.doom(token);
        }
    }

    fn ready(&mut self, now: Instant, token: Token, flags: EventFlags) {
        if flags.contains(EventFlags::OUT) {
            self.flush(now, token);
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR)
            && let Err(bad) = self.read(now, token)
        {
            self.expel(token, bad);
        }
    }

    /// Reads what is there and hands on every frame that is complete.
    fn read(&mut self, now: Instant, token: Token) -> Result<(), Bad> {
        let mut turn = READ_TURN_SIZE;
        loop {
            let Some(connection) = self.switch.table.get_mut(token) else { return Ok(()) };
            if connection.closing {
                self.switch.doom(token); // nothing is read from it: only its end can have made it ready
                return Ok(());
            }
            let space = connection.assembler.space();
            let direct = !space.is_empty();
            let wanted = if direct { space.len() } else { SCRATCH_SIZE };
            let read = match direct {
                true => retry_on_intr(|| {
                    recv(&connection.socket, &mut *space, RecvFlags::empty()).map(|(_, count)| count)
                }),
                false => {
                    let descriptors = &mut connection.descriptors;
                    receive_some(&connection.socket, &mut self.scratch, descriptors, RecvFlags::empty())
                }
            };
            let count = match read {
                Ok(count) if count > 0 => count,
                Err(Errno::WOULDBLOCK) => return Ok(()),
                Err(Errno::TOOMANYREFS) => return Err(Bad::Descriptors),
                ended => {
                    if !connection.assembler.is_idle() {
                        tracing::warn!(
                            pid = connection.pid,
                            ?ended,
                            "a process ended in the middle of a frame"
                        );
                    }
                    self.switch.doom(token);
                    return Ok(());
                }
            };
            connection.progress = now;
            if direct {
                // SAFETY: the system call has just initialised `count` bytes of the space.
                let assembled = unsafe { connection.assembler.filled(count) };
                if let Some(assembled) = assembled {
                    self.switch.frame(now, token, assembled)?;
                }
            } else {
                let mut bytes = &self.scratch[..count];
                while !bytes.is_empty() {
                    let Some(connection) = self.switch.table.get_mut(token) else { return Ok(()) };
                    match connection.assembler.feed(&mut bytes)? {
                        Some(assembled) => self.switch.frame(now, token, assembled)?,
                        None => break, // everything was taken: the rest of the frame is still to come
                    }
                }
            }
            if let Some(connection) = self.switch.table.get(token) {
                let allowed = if connection.assembler.is_idle() { 0 } else { DESCRIPTORS_TO_KERNEL };
                if connection.descriptors.len() > allowed {
                    return Err(Bad::Descriptors);
                }
            }
            self.switch.recount(now, token);
            turn = turn.saturating_sub(count);
            if count < wanted || turn == 0 {
                return Ok(());
            }
        }
    }

    /// Ends a connection that broke the protocol. Data over the bound is an honest mistake that gets its answer.
    fn expel(&mut self, token: Token, bad: Bad) {
        let Some(connection) = self.switch.table.get_mut(token) else { return };
        tracing::warn!(pid = connection.pid, "closing a connection: {bad}");
        connection.closing = true;
        if bad == Bad::TooLarge {
            let error = Error::NotSent(Status::RPC_BADADDRESS);
            self.switch.send(token, ToProcess::Error { error });
        } else {
            self.switch.doom(token);
        }
    }

    /// Carries out everything that follows from what was just handed to the switch.
    fn settle(&mut self, now: Instant) {
        loop {
            self.switch.dispatch(now);
            if let Some(token) = self.switch.to_flush.pop() {
                self.flush(now, token);
            } else if let Some(token) = self.switch.doomed.pop() {
                self.switch.disconnected(now, token); // closing the descriptor also ends its watch
            } else {
                return;
            }
        }
    }

    /// Sends queued frames until the socket is full.
    fn flush(&mut self, now: Instant, token: Token) {
        let Some(connection) = self.switch.table.get_mut(token) else { return };
        let mut full = false;
        while let Some(frame) = connection.outgoing.front_mut() {
            let descriptors: Vec<_> = frame.descriptors.iter().map(AsFd::as_fd).collect();
            let (head, data) = (&frame.head, &frame.data);
            let flags = SendFlags::DONTWAIT;
            match send_some(&connection.socket, head, data, frame.sent, &descriptors, flags) {
                Ok(count) => {
                    frame.descriptors.clear();
                    connection.progress = now;
                    frame.sent += count;
                    if frame.sent == frame.head.bytes().len() + frame.data.len() {
                        connection.outgoing.pop_front();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    full = true;
                    break;
                }
                Err(_) => return self.switch.doom(token),
            }
        }
        if connection.closing && !full {
            return self.switch.doom(token);
        }
        if connection.watching_out != full {
            connection.watching_out = full;
            let mut flags = if connection.closing { EventFlags::empty() } else { EventFlags::IN };
            flags.set(EventFlags::OUT, full);
            let data = EventData::new_u64(token.to_u64());
            if epoll::modify(&self.epoll, &connection.socket, data, flags).is_err() {
                return self.switch.doom(token);
            }
        }
        self.switch.recount(now, token);
    }
}

/// How long the daemon may sleep.
fn timeout_of(switch: &Switch, accept_again: Option<Instant>) -> Option<Timespec> {
    let links = switch.links.iter().filter_map(|link| link.poll_timeout());
    let next = [switch.poll_timeout(), accept_again].into_iter().flatten().chain(links).min()?;
    let left = next.since(now());
    Some(Timespec {
        tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    })
}

/// Lets this process have as many descriptors as it may; how many connections that makes.
fn raise_descriptors() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let connections = current.unwrap_or(u64::MAX).saturating_sub(DESCRIPTORS_RESERVED).max(1);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
