//! The client's side of channels: which a process has, and a transaction over one.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use amoeba_cap::{GetPort, PORT_SIZE, PutPort};
use amoeba_channel::{ClientEnd, End, Fate, RING_SIZE_DEFAULT, Step};
use amoeba_threads::Instant;
use amoeba_wire::Status;
use amoeba_world::{Error, Message, TransOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::lock;
use super::session::Session;
use crate::channel::bell::{Ear, Heard, Rope};
use crate::channel::region::{OwnRegion, PeerRegion};
use crate::flow::client::{self, Flow, Usable};
use crate::flow::handed::Handed;
use crate::look::{Look, Next};
use crate::socket::{ToKernel, ToProcess};
use crate::threads::now;

/// The most channels that a process has as client. Past it the one that was unused for longest is closed; when all are
/// in use, transactions go through the daemon.
pub const CHANNELS_MAX: usize = 64;
/// The most ports that a session remembers. Past it the one that was unused for longest, and has no channel, is forgotten.
pub const PORTS_MAX: usize = 1024;
/// How long a process does not ask for a channel again after it was refused one; longer each time.
const REFUSED_FIRST: Duration = Duration::from_micros(200);
const REFUSED_MAX: Duration = Duration::from_secs(10);
/// How long a process does not ask for a flow again after one was blocked on its way.
const BLOCKED_REST: Duration = Duration::from_secs(180);
/// How often a client gives its processor away before it rings a server that seems to sleep: one that has just replied is
/// about to look again.
const YIELDS_BEFORE_RING: u32 = 2;

/// How long a request may wait untaken, while nothing of it is read, before it goes through the daemon, where any process
/// that listens may take it.
const PATIENCE: Duration = Duration::from_millis(50);
/// The same for one of which a server has read a part: a server on a busy machine, for a large request costs more the other
/// way, or does not fit there.
const PATIENCE_WITH_READER: Duration = Duration::from_secs(1);

/// What a channel is for: requests to a port, signed in one way.
type Key = (PutPort, [u8; PORT_SIZE]);

fn key(port: PutPort, signature: Option<&GetPort>) -> Key {
    (port, signature.map_or([0; PORT_SIZE], GetPort::to_bytes))
}

/// The channels of a session.
#[derive(Default)]
pub(super) struct Channels {
    ports: Mutex<Ports>,
    open: AtomicUsize,
}

#[derive(Default)]
struct Ports {
    known: BTreeMap<Key, Port>,
    /// Counts uses.
    uses: u64,
}

#[derive(Default)]
struct Port {
    idle: Vec<Channel>,
    /// Channels that exist, or are being asked for.
    open: usize,
    /// The last use.
    used: u64,
    refused: Option<(Instant, Duration)>,
}

/// What a transaction with a port that is known goes over.
enum Choice {
    Use(Channel),
    /// A new one, once the one that has to make room for it is closed.
    Introduce {
        evicted: Option<(Key, Channel)>,
    },
}

impl Channels {
    fn ports(&self) -> MutexGuard<'_, Ports> {
        lock(&self.ports)
    }

    /// A channel for the calling thread alone, to be given back; from the second transaction with a port on.
    pub(super) fn take(
        &self,
        session: &Session,
        port: PutPort,
        signature: Option<&GetPort>,
    ) -> Option<Channel> {
        let key = key(port, signature);
        let evicted = match self.choose(session, key)? {
            Choice::Use(channel) => return Some(channel),
            Choice::Introduce { evicted } => evicted,
        };
        if let Some((other, channel)) = evicted {
            self.close(session, other, channel);
        }
        self.introduced(key, Channel::introduce(session, port, signature))
    }

    /// What the next transaction with a port goes over, or what is to be done for it; `None`: the kernel.
    fn choose(&self, session: &Session, key: Key) -> Option<Choice> {
        let mut ports = self.ports();
        ports.uses += 1;
        let uses = ports.uses;
        let Some(known) = ports.known.get_mut(&key) else {
            ports.remember(key);
            return None;
        };
        known.used = uses;
        match known.pop() {
            Some((Usable::Yes, channel)) => return Some(Choice::Use(channel)),
            Some((usable, channel)) => {
                if usable == Usable::Blocked {
                    known.refused = Some((now() + BLOCKED_REST, BLOCKED_REST));
                }
                drop(ports);
                self.close(session, key, channel);
                return None;
            }
            None => {}
        }
        if !known.idle.is_empty() {
            return None; // a flow that was not answered yet
        }
        if known.refused.is_some_and(|(until, _)| now() < until) {
            return None;
        }
        known.open += 1;
        if self.open.fetch_add(1, Ordering::Relaxed) < CHANNELS_MAX {
            return Some(Choice::Introduce { evicted: None });
        }
        let evicted = ports.evict();
        if evicted.is_none() {
            self.forget(&mut ports, key);
            return None;
        }
        Some(Choice::Introduce { evicted })
    }

    /// What came of asking for a channel, which is counted already: the channel, if it can be used at once.
    fn introduced(&self, key: Key, channel: Option<Channel>) -> Option<Channel> {
        let mut ports = self.ports();
        let Some(mut channel) = channel else {
            self.forget(&mut ports, key);
            if let Some(known) = ports.known.get_mut(&key) {
                let pause = known.refused.map_or(REFUSED_FIRST, |(_, pause)| REFUSED_MAX.min(pause * 2));
                known.refused = Some((now() + pause, pause));
            }
            return None;
        };
        if let Some(known) = ports.known.get_mut(&key) {
            known.refused = None;
            if channel.usable() != Usable::Yes {
                known.idle.push(channel);
                return None;
            }
        }
        Some(channel)
    }

    /// By what the next transaction with a port would pass the kernel by, for people.
    pub(super) fn passage(&self, port: PutPort) -> Option<&'static str> {
        let mut ports = self.ports();
        let of_port = ports.known.range_mut((port, [0; PORT_SIZE])..=(port, [u8::MAX; PORT_SIZE]));
        let mut idle = of_port.flat_map(|(_, known)| &mut known.idle);
        let usable = idle.find_map(|channel| (channel.usable() == Usable::Yes).then_some(&*channel))?;
        Some(match usable {
            Channel::Memory(_) => "channel",
            Channel::Flow(_) => "flow",
        })
    }

    /// Gives back a channel that can be used again.
    pub(super) fn give(&self, port: PutPort, signature: Option<&GetPort>, channel: Channel) {
        let mut ports = self.ports();
        if let Some(known) = ports.known.get_mut(&key(port, signature)) {
            known.idle.push(channel);
        }
    }

    /// Gives back a channel that is over.
    pub(super) fn end(
        &self,
        session: &Session,
        port: PutPort,
        signature: Option<&GetPort>,
        channel: Channel,
    ) {
        self.close(session, key(port, signature), channel);
    }

    fn close(&self, session: &Session, key: Key, channel: Channel) {
        self.forget(&mut self.ports(), key);
        let id = channel.id();
        drop(channel);
        // A daemon that is gone has forgotten it.
        let _ = session.control(&ToKernel::Close { channel: id });
    }

    /// One channel less.
    fn forget(&self, ports: &mut Ports, key: Key) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(known) = ports.known.get_mut(&key) {
            known.open -= 1;
        }
    }
}

impl Port {
    /// An idle channel that can be used, or one that never will be.
    fn pop(&mut self) -> Option<(Usable, Channel)> {
        (0..self.idle.len()).rev().find_map(|index| {
            let usable = self.idle[index].usable();
            (usable != Usable::NotYet).then(|| (usable, self.idle.swap_remove(index)))
        })
    }
}

impl Ports {
    fn remember(&mut self, key: Key) {
        if self.known.len() >= PORTS_MAX {
            let unused = self.known.iter().filter(|(_, port)| port.open == 0);
            let Some(oldest) = unused.min_by_key(|(_, port)| port.used).map(|(key, _)| *key) else { return };
            self.known.remove(&oldest);
        }
        self.known.insert(key, Port { used: self.uses, ..Port::default() });
    }

    /// The idle channel whose port was unused for longest.
    fn evict(&mut self) -> Option<(Key, Channel)> {
        let idle = self.known.iter_mut().filter(|(_, port)| !port.idle.is_empty());
        let (key, port) = idle.min_by_key(|(_, port)| port.used)?;
        Some((*key, port.idle.pop()?))
    }
}

/// How a transaction over a channel ended.
pub(super) enum Outcome {
    /// With this result, and the channel can be used again.
    Done(Result<Message, Error>),
    /// With this result, and the channel is over.
    Last(Result<Message, Error>),
    /// The request was certainly not executed, and the channel is over: it may go another way.
    Elsewhere,
}

/// The direct way to one server process: on this host or on another.
pub(super) enum Channel {
    Memory(Box<Memory>),
    Flow(Box<Flow>),
}

impl Channel {
    /// Asks the daemon for a channel, or a flow, to a process that listens on the port.
    fn introduce(session: &Session, port: PutPort, signature: Option<&GetPort>) -> Option<Channel> {
        let (own, file) = OwnRegion::create(RING_SIZE_DEFAULT)
            .inspect_err(|error| tracing::debug!("no memory for a channel: {error}"))
            .ok()?;
        let stream = session.take().ok()?;
        let frame = ToKernel::Introduce { port, signature: signature.cloned() };
        let Ok(answer) = stream.send_with(&frame, &[file.as_fd()]).and_then(|()| stream.receive_with())
        else {
            session.distrust();
            return None;
        };
        session.give(stream);
        match answer {
            (ToProcess::Channel { channel }, descriptors) => {
                Memory::new(channel, own, descriptors).map(|memory| Channel::Memory(Box::new(memory)))
            }
            (ToProcess::Flow { flow }, descriptors) => {
                let (handed, [socket, ear]) = (Handed::parse(&flow).ok()?, descriptors.try_into().ok()?);
                Some(Channel::Flow(Box::new(Flow::new(&handed, socket, ear))))
            }
            _ => None,
        }
    }

    fn id(&self) -> u64 {
        match self {
            Channel::Memory(memory) => memory.id,
            Channel::Flow(flow) => flow.id(),
        }
    }

    fn usable(&mut self) -> Usable {
        match self {
            Channel::Memory(_) => Usable::Yes,
            Channel::Flow(flow) => flow.usable(),
        }
    }

    /// A transaction. Afterwards `request` is what it was.
    pub(super) fn trans(
        &mut self,
        request: &mut Message,
        options: &TransOptions,
        deadline: Option<Instant>,
    ) -> Outcome {
        match self {
            Channel::Memory(memory) => memory.trans(request, options, deadline),
            Channel::Flow(flow) => match flow.trans(request, options, deadline) {
                client::Outcome::Done(result) => Outcome::Done(result),
                client::Outcome::Last(result) => Outcome::Last(result),
                client::Outcome::Elsewhere => Outcome::Elsewhere,
            },
        }
    }
}

/// The client's side of one channel.
pub(super) struct Memory {
    id: u64,
    end: ClientEnd<OwnRegion, PeerRegion>,
    ear: Ear,
    rope: Rope,
    look: Look,
    /// The server slept when something was published for it, and its bell was not rung: the answer came first, from before
    /// that sleep or after it. If it still sleeps, the next request will have to ring.
    owes_ring: bool,
}

impl Memory {
    /// The channel that the daemon has made.
    fn new(id: u64, own: OwnRegion, descriptors: Vec<OwnedFd>) -> Option<Memory> {
        let [region, ear, rope]: [OwnedFd; 3] = descriptors.try_into().ok()?;
        let peer = PeerRegion::map(&region)
            .inspect_err(|error| tracing::debug!("cannot map a channel: {error}"))
            .ok()?;
        Some(Memory {
            id,
            end: ClientEnd::new(own, peer),
            ear: Ear::new(ear),
            rope: Rope::new(rope),
            look: Look::at_memory(),
            owes_ring: false,
        })
    }

    /// A transaction. Afterwards `request` is what it was.
    fn trans(&mut self, request: &mut Message, options: &TransOptions, deadline: Option<Instant>) -> Outcome {
        let asked = Message { header: request.header, data: std::mem::take(&mut request.data) };
        if let Err(asked) = self.end.begin(asked, options.reply_size_max) {
            *request = asked;
            return Outcome::Elsewhere; // a channel that is given back is idle, so this one is broken
        }
        let outcome = self.wait(deadline);
        if let Some(asked) = self.end.take_request() {
            *request = asked;
        }
        outcome
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Outcome {
        self.owes_ring |= self.end.bell();
        let mut patience = Patience::Fresh;
        loop {
            match self.end.step() {
                Step::Reply(reply) => {
                    self.look.found();
                    return Outcome::Done(Ok(checked(reply)));
                }
                Step::Failed => return Outcome::Last(Err(FAILURE)),
                Step::Progress => {
                    self.look.found();
                    patience = patience.renewed();
                    self.ring();
                    continue;
                }
                Step::Waiting => self.ring(),
                Step::Broken(broken) => {
                    tracing::warn!("a server broke its channel: {broken}");
                    return self.given_up(Outcome::Elsewhere);
                }
                Step::Idle | Step::Over => return self.given_up(Outcome::Elsewhere),
            }
            // A server that has just replied is about to look again: it is rung for only after a moment.
            if self.look.given_way() >= YIELDS_BEFORE_RING {
                self.ring_what_is_owed();
            }
            let next = self.look.again();
            let (Next::GaveWay(at) | Next::Sleep(at)) = next else { continue };
            if deadline.is_some_and(|deadline| deadline <= at) {
                return self.given_up(Outcome::Last(Err(Error::NotSent(Status::RPC_TRYAGAIN))));
            }
            if let Next::Sleep(at) = next {
                self.ring_what_is_owed();
                if patience
                    .is_over(at, if self.end.is_being_read() { PATIENCE_WITH_READER } else { PATIENCE })
                {
                    match self.end.withdraw() {
                        Fate::NotTaken => return Outcome::Elsewhere,
                        Fate::MaybeTaken => patience = Patience::Endless,
                    }
                }
                let heard = self.sleep(deadline.into_iter().chain(patience.until()).min());
                self.look.slept();
                if heard == Heard::Over {
                    return self.peer_gone();
                }
            }
        }
    }

    fn peer_gone(&mut self) -> Outcome {
        match self.end.peer_gone() {
            End::Reply(reply) => Outcome::Last(Ok(checked(reply))),
            End::NotTaken => Outcome::Elsewhere,
            End::MaybeTaken => Outcome::Last(Err(FAILURE)),
        }
    }

    /// Not for a request that is being executed: whoever was woken would find nothing to do.
    fn ring_what_is_owed(&mut self) {
        if self.owes_ring && !self.end.is_taken() {
            self.owes_ring = false;
            self.rope.ring();
        }
    }

    fn ring(&mut self) {
        if self.end.bell() {
            self.rope.ring();
        }
    }

    /// Sleeps until the bell rings or the time has come.
    fn sleep(&mut self, deadline: Option<Instant>) -> Heard {
        let mut heard = Heard::Rung;
        if self.end.before_sleep() {
            let left = deadline.map(|deadline| deadline.since(now()));
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            // A wait that a signal ends is one that ends early.
            if let Ok(1..) = poll(&mut [PollFd::new(&self.ear, PollFlags::IN)], timeout.as_ref()) {
                heard = self.ear.hear();
            }
        }
        self.end.after_sleep();
        heard
    }

    /// The client waits no longer: `not_taken` if the request certainly was not executed.
    fn given_up(&mut self, not_taken: Outcome) -> Outcome {
        match self.end.withdraw() {
            Fate::NotTaken => not_taken,
            Fate::MaybeTaken => Outcome::Last(Err(FAILURE)),
        }
    }
}

/// How long a request may still wait for a server that does not take it.
enum Patience {
    /// Nobody has waited yet.
    Fresh,
    Until(Instant),
    /// The request was taken.
    Endless,
}

impl Patience {
    /// After some of the request was read.
    fn renewed(self) -> Patience {
        match self {
            Patience::Endless => Patience::Endless,
            _ => Patience::Fresh,
        }
    }

    /// Whether it is over; it begins at the first time, and lasts for so long.
    fn is_over(&mut self, at: Instant, longest: Duration) -> bool {
        match self {
            Patience::Fresh => {
                *self = Patience::Until(at + longest);
                false
            }
            Patience::Until(until) => *until <= at,
            Patience::Endless => false,
        }
    }

    fn until(&self) -> Option<Instant> {
        if let Patience::Until(until) = self { Some(*until) } else { None }
    }
}

const FAILURE: Error = Error::MaybeExecuted(Status::RPC_FAILURE);

/// Statuses of the transaction layer are for kernels alone to give.
fn checked(reply: Message) -> Message {
    match reply.header.status().is_rpc() {
        true => Message::status(Status::RPC_REMOTERPC),
        false => reply,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use amoeba_channel::{Receiving, ServerEnd, Service};
    use amoeba_wire::Header;

    use super::*;
    use crate::channel::bell::{Bell, Keeper};
    use crate::look::{LOOK_TIME, give_way};

    /// A server that does what a test says.
    struct Far {
        end: ServerEnd<OwnRegion, PeerRegion>,
        ear: Ear,
        rope: Rope,
    }

    impl Far {
        fn meet(request_size_max: usize) -> (Memory, Far, [Keeper; 2]) {
            let (client_own, client_file) = OwnRegion::create(4096).unwrap();
            let (server_own, server_file) = OwnRegion::create(4096).unwrap();
            let (client_bell, server_bell) = (Bell::new().unwrap(), Bell::new().unwrap());
            let descriptors = vec![server_file, client_bell.ear, server_bell.rope];
            let client = Memory::new(1, client_own, descriptors).unwrap();
            let (ear, rope) = (Ear::new(server_bell.ear), Rope::new(client_bell.rope));
            let port = PutPort::from_bytes([1; 6]);
            let service = Service { port, signature: PutPort::NULL, request_size_max };
            let end = ServerEnd::new(server_own, PeerRegion::map(&client_file).unwrap(), service);
            (client, Far { end, ear, rope }, [client_bell.keeper, server_bell.keeper])
        }

        fn take(&mut self) -> Message {
            loop {
                match self.end.receive() {
                    Receiving::Request(request) => return request,
                    Receiving::Waiting => give_way(),
                    other => panic!("{other:?}"),
                }
            }
        }

        fn answer(&mut self, request: Message) {
            self.end.reply(request);
            if self.end.bell() {
                self.rope.ring();
            }
        }

        fn is_rung(&self, seconds: i64) -> bool {
            let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
            let rung = poll(&mut [PollFd::new(&self.ear, PollFlags::IN)], Some(&timeout)) == Ok(1);
            assert_eq!(self.ear.hear(), Heard::Rung);
            rung
        }
    }

    fn trans(client: &mut Memory) {
        let mut request = Message { header: Header::NULL, data: Vec::new() };
        assert!(matches!(client.trans(&mut request, &TransOptions::default(), None), Outcome::Done(Ok(_))));
    }

    /// A server that says it sleeps, answers all the same, and then really sleeps. This is what a client sees that is kept
    /// from running between its request and its look at the server's flag: it spares the bell, for it has its answer, and
    /// must ring it for the next request.
    #[test]
    fn a_bell_that_was_spared_is_rung_for_the_next_request() {
        let (mut client, mut far, _keepers) = Far::meet(100);
        let (answered, was_answered) = channel();
        let (go_on, may_go_on) = channel();
        let requests = std::thread::spawn(move || {
            loop {
                trans(&mut client);
                answered.send(()).unwrap();
                if may_go_on.recv().unwrap() {
                    return trans(&mut client);
                }
            }
        });
        loop {
            far.end.before_sleep();
            let request = far.take();
            far.answer(request);
            was_answered.recv().unwrap();
            if !far.is_rung(0) {
                break; // the client has spared the bell: now this side really sleeps
            }
            far.end.after_sleep(); // the answer came too late for that: once more
            go_on.send(false).unwrap();
        }
        go_on.send(true).unwrap();
        assert!(far.is_rung(60), "the server sleeps for ever");
        far.end.after_sleep();
        let request = far.take();
        far.answer(request);
        requests.join().unwrap();
    }

    /// A server of several threads says that it sleeps whenever one of them goes away with a request, so that the bell
    /// wakes another one for the next. For the request that is executed there is nobody to be woken.
    #[test]
    fn the_bell_is_not_rung_for_a_request_that_is_executed() {
        let (mut client, mut far, _keepers) = Far::meet(100);
        let requests = std::thread::spawn(move || (0..1000).for_each(|_| trans(&mut client)));
        let mut spared = 0;
        for _ in 0..1000 {
            far.end.before_sleep();
            let request = far.take();
            let was_late = far.is_rung(0); // the client was about to sleep before it was taken
            std::thread::sleep(LOOK_TIME * 5); // now the client sleeps
            spared += u32::from(!far.is_rung(0) && !was_late);
            far.answer(request);
        }
        requests.join().unwrap();
        assert!(spared > 0, "it is rung each time");
    }

    #[test]
    fn a_request_that_is_being_read_waits_for_a_server_that_is_held_up() {
        const SIZE: usize = 100_000;
        let (mut client, mut far, _keepers) = Far::meet(SIZE);
        let asking = std::thread::spawn(move || {
            let mut request = Message { header: Header::NULL, data: vec![7; SIZE] };
            let outcome = client.trans(&mut request, &TransOptions::default(), None);
            assert!(matches!(outcome, Outcome::Done(Ok(_))), "it went elsewhere");
        });
        while far.end.receive() != Receiving::Progress {
            give_way();
        }
        std::thread::sleep(PATIENCE * 4);
        let request = loop {
            match far.end.receive() {
                Receiving::Request(request) => break request,
                Receiving::Waiting | Receiving::Progress => give_way(),
                other => panic!("{other:?}"),
            }
            if far.end.bell() {
                far.rope.ring();
            }
        };
        assert_eq!(request.data, vec![7; SIZE]);
        far.answer(Message { header: Header::NULL, data: Vec::new() });
        asking.join().unwrap();
    }
}
