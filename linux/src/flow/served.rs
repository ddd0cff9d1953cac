//! The servers' ends of the flows of one listener.
//!
//! The threads in getreq wait for all of them on one descriptor ([`Flows`] has an epoll of its own, which the listener's
//! watches). Where every thread of the server is busy, [`super::care`] attends in their place.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use amoeba_cap::PutPort;
use amoeba_flow::FlowServer;
use amoeba_threads::Instant;
use amoeba_wire::Header;
use amoeba_world::{Caller, Incoming, Message, PutReply, ReplyTo, Shared};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use super::care::{self, Presence};
use super::courtesy::Courtesy;
use super::handed::Handed;
use super::socket::FlowSocket;
use super::{receive, transmit, transmit_all};
use crate::channel::bell::{Ear, Heard};
use crate::fork::Origin;
use crate::look::{Look, Next};
use crate::memory;
use crate::threads::now;

/// Flows that a listener has. Past it the one that was unused for longest and executes nothing is closed.
pub(crate) const FLOWS_PER_LISTENER_MAX: usize = 256;
/// Reads of one flow before the others have their turn.
const RECEIVES_PER_TURN: usize = 16;
/// Flows with something to read that are looked at in one turn.
const EVENTS_PER_TURN: usize = 64;

const NUDGE: u64 = u64::MAX;
/// The bit of an event that tells ears from sockets; identifiers have it clear.
const EAR: u64 = 1;

/// Tells the kernel that a flow is over, by its session and its identifier.
pub(crate) type Tell = Box<dyn Fn(u64, u64) + Send + Sync>;

/// A flow that a kernel has handed over.
pub(crate) struct Introduced {
    pub(crate) handed: Handed,
    pub(crate) socket: OwnedFd,
    pub(crate) ear: OwnedFd,
    pub(crate) caller: Caller,
    pub(crate) session: u64,
}

/// One flow.
struct Served {
    id: u64,
    session: u64,
    /// A child that was forked has no duty to answer.
    origin: Origin,
    caller: Caller,
    socket: FlowSocket,
    ear: Ear,
    end: Mutex<FlowServer>,
    /// The epoll is silent about it until whoever holds its end lets go.
    is_unheard: AtomicBool,
}

/// See the module.
pub(crate) struct Flows {
    port: PutPort,
    request_size_max: usize,
    tell: Tell,
    presence: Arc<Presence>,
    epoll: OwnedFd,
    /// Readable when a request waits that no socket tells of.
    nudge: OwnedFd,
    state: Mutex<State>,
    count: AtomicUsize,
}

#[derive(Default)]
struct State {
    flows: BTreeMap<u64, Entry>,
    /// Requests that came while nobody waited for one.
    ready: VecDeque<Request>,
    /// The flow that was used last: the next request is likely to come over it.
    hot: Option<Arc<Served>>,
    uses: u64,
    nudged: bool,
    is_cared_for: bool,
    closed: bool,
}

struct Entry {
    served: Arc<Served>,
    used: u64,
}

/// A request that came over a flow.
struct Request {
    served: Arc<Served>,
    tid: u32,
    message: Message,
    /// When it came.
    since: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Flows {
    /// The flows of a listener on `port`, which has none yet, and whose threads show their `presence`.
    pub(crate) fn new(
        port: PutPort,
        request_size_max: usize,
        presence: Arc<Presence>,
        tell: Tell,
    ) -> Result<Flows, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let nudge = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &nudge, EventData::new_u64(NUDGE), EventFlags::IN)?;
        Ok(Flows {
            port,
            request_size_max,
            tell,
            presence,
            epoll,
            nudge,
            state: Mutex::default(),
            count: AtomicUsize::new(0),
        })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Takes a new flow. What there is no room for is closed at once: its client goes through the daemons.
    pub(crate) fn add(self: &Arc<Flows>, introduced: Introduced) {
        let Introduced { handed, socket, ear, caller, session } = introduced;
        let at = now();
        let end = FlowServer::new(at, handed.session(at), handed.way, self.request_size_max, memory::zeros);
        let socket = FlowSocket::new(socket, handed.way.datagram_size);
        let (id, ear) = (handed.id, Ear::new(ear));
        let origin = Origin::here();
        let served = Arc::new(Served {
            id,
            session,
            origin,
            caller,
            socket,
            ear,
            end: Mutex::new(end),
            is_unheard: AtomicBool::new(false),
        });
        let mut state = lock(&self.state);
        let evicted = if state.flows.len() < FLOWS_PER_LISTENER_MAX { None } else { state.evict() };
        let refused = state.closed
            || state.flows.len() >= FLOWS_PER_LISTENER_MAX
            || self
                .watch(&served)
                .inspect_err(|errno| tracing::warn!("cannot watch a flow: {errno}"))
                .is_err();
        let over = if refused {
            Some(served)
        } else {
            state.uses += 1;
            let used = state.uses;
            state.flows.insert(id, Entry { served, used });
            self.count.store(state.flows.len(), Ordering::Relaxed);
            self.be_cared_for(&mut state);
            None
        };
        drop(state);
        for served in evicted.into_iter().chain(over) {
            self.unwatch(&served);
            (self.tell)(served.session, served.id);
        }
    }

    /// A request, without waiting.
    pub(crate) fn poll(self: &Arc<Flows>) -> Option<Incoming> {
        let mut state = lock(&self.state);
        self.attend(&mut state);
        let request = state.ready.pop_front();
        self.calm(&mut state);
        drop(state);
        Some(self.incoming(request?))
    }

    /// Waits until there is something to attend to.
    pub(super) fn wait(&self) {
        if lock(&self.state).ready.is_empty() {
            // A wait that a signal ends is one that ends early.
            let _ = poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], None);
        }
    }

    /// Attends in place of the server's threads, which are all busy: answers what needs none of them, keeps new
    /// requests for them, and refuses those that have waited for too long.
    pub(super) fn attend_for_others(&self) {
        let mut state = lock(&self.state);
        self.attend(&mut state);
        let at = now();
        let fresh = state.ready.partition_point(|request| at.since(request.since) >= care::PATIENCE);
        let late: Vec<Request> = state.ready.drain(..fresh).collect();
        self.calm(&mut state);
        if !state.ready.is_empty() {
            self.nudge(&mut state);
        }
        drop(state);
        self.refuse(late);
    }

    fn refuse(&self, requests: impl IntoIterator<Item = Request>) {
        for Request { served, tid, .. } in requests {
            let mut end = lock(&served.end);
            end.refuse(tid);
            transmit_all(&served.socket, &mut *end, now(), false);
            drop(end);
            self.let_go(&served);
        }
    }

    /// No more requests are taken; those that wait are refused, those that are executed are still answered.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.nudge(&mut state);
        let (flows, ready) = (std::mem::take(&mut state.flows), std::mem::take(&mut state.ready));
        state.hot = None;
        self.count.store(0, Ordering::Relaxed);
        drop(state);
        self.presence.end();
        self.refuse(ready);
        for Entry { served, .. } in flows.into_values() {
            self.unwatch(&served);
            // One that is executing closes its flow itself.
            if served.end.try_lock().is_ok_and(|end| end.is_idle()) {
                (self.tell)(served.session, served.id);
            }
        }
    }

    fn incoming(self: &Arc<Flows>, request: Request) -> Incoming {
        let Request { served, tid, mut message, .. } = request;
        message.header.port = self.port;
        message.header.signature = served.caller.signature.unwrap_or(PutPort::NULL);
        let caller = served.caller;
        Incoming {
            caller,
            request: message,
            reply: ReplyTo::new(Box::new(Duty { flows: self.clone(), served, tid })),
        }
    }

    /// Reads what has come, answers what needs no server, and keeps the requests.
    fn attend(&self, state: &mut State) {
        if let Some(hot) = state.hot.clone() {
            state.ready.extend(hot.attend().ok().flatten());
            if !state.ready.is_empty() {
                return;
            }
        }
        let mut events = Vec::with_capacity(EVENTS_PER_TURN);
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let _ = epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&at_once));
        for event in events {
            let token = event.data.u64();
            let Some(entry) = state.flows.get_mut(&(token & !EAR)).filter(|_| token != NUDGE) else {
                continue;
            };
            if token & EAR == 0 {
                state.uses += 1;
                entry.used = state.uses;
                let served = entry.served.clone();
                if let Some(request) = self.attend_to(&served) {
                    state.ready.push_back(request);
                    state.hot = Some(served);
                }
            } else if entry.served.ear.hear() == Heard::Over {
                let served = entry.served.clone();
                state.flows.remove(&served.id);
                state.hot = None;
                self.count.store(state.flows.len(), Ordering::Relaxed);
                self.unwatch(&served);
            }
        }
    }

    /// Attends to a flow that has something to read. Where another thread is at it, the epoll is silent about the flow until
    /// that thread lets go of it: else those who wait would be woken again and again, and keep the processor from it.
    fn attend_to(&self, served: &Arc<Served>) -> Option<Request> {
        if let Ok(request) = served.attend() {
            return request;
        }
        self.tell_of(served, false);
        served.is_unheard.store(true, Ordering::SeqCst);
        // Either it still has the flow, and sees the word when it lets go, or this sees that it has let go.
        fence(Ordering::SeqCst);
        let request = served.attend().ok()?;
        self.let_go(served);
        request
    }

    /// Nobody holds the end of a flow any more, at least not who did.
    fn let_go(&self, served: &Served) {
        fence(Ordering::SeqCst);
        if served.is_unheard.swap(false, Ordering::SeqCst) {
            self.tell_of(served, true);
        }
    }

    fn watch(&self, served: &Served) -> Result<(), Errno> {
        epoll::add(&self.epoll, &served.socket, EventData::new_u64(served.id), EventFlags::IN)?;
        epoll::add(&self.epoll, &served.ear, EventData::new_u64(served.id | EAR), EventFlags::IN)
    }

    fn unwatch(&self, served: &Served) {
        // They fail only for what is not watched.
        let _ = epoll::delete(&self.epoll, &served.socket);
        let _ = epoll::delete(&self.epoll, &served.ear);
    }

    /// Whether the epoll tells of this flow's datagrams: not while a thread waits for them itself.
    fn tell_of(&self, served: &Served, tell: bool) {
        let flags = if tell { EventFlags::IN } else { EventFlags::empty() };
        // It fails only for a flow that was closed meanwhile.
        let _ = epoll::modify(&self.epoll, &served.socket, EventData::new_u64(served.id), flags);
    }

    fn be_cared_for(self: &Arc<Flows>, state: &mut State) {
        if !state.is_cared_for {
            // It ends when the listener is closed, which it is at the latest when it is dropped.
            let flows = self.clone();
            let care = move || care::care(&flows, &flows.presence);
            let thread = std::thread::Builder::new().name("flows".to_owned()).spawn(care);
            match thread {
                Ok(_) => state.is_cared_for = true,
                Err(error) => tracing::warn!("nobody answers for a server that is busy: {error}"),
            }
        }
    }

    fn nudge(&self, state: &mut State) {
        state.nudged = true;
        // It fails only when it has been nudged 2^64 times.
        let _ = rustix::io::write(&self.nudge, &1u64.to_ne_bytes());
    }

    /// The nudge has been heard, if no request waits any more.
    fn calm(&self, state: &mut State) {
        if state.ready.is_empty() && std::mem::take(&mut state.nudged) {
            let _ = rustix::io::read(&self.nudge, &mut [0; 8]); // it was nudged, so there is something to read
        }
    }
}

impl AsFd for Flows {
    /// Readable when [`Flows::poll`] has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl State {
    /// The flow that was unused for longest, of those that are idle.
    fn evict(&mut self) -> Option<Arc<Served>> {
        let idle =
            self.flows.values().filter(|entry| entry.served.end.try_lock().is_ok_and(|end| end.is_idle()));
        let oldest = idle.min_by_key(|entry| entry.used).map(|entry| entry.served.clone())?;
        self.flows.remove(&oldest.id);
        if self.hot.as_ref().is_some_and(|hot| hot.id == oldest.id) {
            self.hot = None;
        }
        Some(oldest)
    }
}

/// Another thread is at a flow.
struct Elsewhere;

impl Served {
    /// Reads what has come, up to the next request, unless another thread is at it.
    fn attend(self: &Arc<Served>) -> Result<Option<Request>, Elsewhere> {
        let Ok(mut end) = self.end.try_lock() else { return Err(Elsewhere) };
        for _ in 0..RECEIVES_PER_TURN {
            if !receive(&self.socket, &mut *end) {
                break;
            }
            transmit_all(&self.socket, &mut *end, now(), false);
            if let Some((tid, message)) = end.poll_request() {
                return Ok(Some(Request { served: self.clone(), tid, message, since: now() }));
            }
        }
        Ok(None)
    }

    /// Sends a large reply, for as long as the client takes it; the request that came meanwhile.
    fn pump(self: &Arc<Served>, end: &mut FlowServer) -> Option<Request> {
        let (mut look, mut courtesy) = (Look::default(), Courtesy::default());
        while end.is_leaving() {
            let sent = transmit(&self.socket, end, now(), true);
            let received = receive(&self.socket, end);
            let at = now();
            end.handle_timeout(at);
            if sent || received {
                look.found();
                courtesy.busy();
            } else if let Next::Sleep(_) = look.again() {
                let left = end.poll_timeout().map(|until| until.since(at));
                let timeout = left.and_then(|left| Timespec::try_from(left).ok());
                let mut ready =
                    [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.ear, PollFlags::IN)];
                // A wait that a signal ends is one that ends early.
                let _ = poll(&mut ready, timeout.as_ref());
                look.slept();
                if !ready[1].revents().is_empty() && self.ear.hear() == Heard::Over {
                    return None;
                }
            }
        }
        let (tid, message) = end.poll_request()?;
        Some(Request { served: self.clone(), tid, message, since: now() })
    }
}

/// The duty to answer a request that came over a flow.
struct Duty {
    flows: Arc<Flows>,
    served: Arc<Served>,
    tid: u32,
}

impl Duty {
    fn end(self, answer: impl FnOnce(&mut FlowServer, u32)) {
        let Duty { flows, served, tid } = self;
        if !served.origin.is_here() {
            return;
        }
        let mut end = lock(&served.end);
        answer(&mut end, tid);
        transmit(&served.socket, &mut *end, now(), true);
        let mut request = None;
        if end.is_leaving() {
            flows.tell_of(&served, false);
            // Until it is let go of: told of earlier, whoever sleeps would wake and find this thread there.
            served.is_unheard.store(true, Ordering::SeqCst);
            request = served.pump(&mut end);
        } else {
            transmit_all(&served.socket, &mut *end, now(), true);
        }
        drop(end);
        flows.let_go(&served);
        let mut state = lock(&flows.state);
        if state.closed {
            drop(state);
            return (flows.tell)(served.session, served.id);
        }
        if let Some(request) = request {
            state.ready.push_back(request);
            flows.nudge(&mut state);
        }
    }
}

impl PutReply for Duty {
    fn putrep(self: Box<Self>, reply: Message) {
        self.end(|end, tid| end.reply(tid, reply));
    }

    fn putrep_shared(self: Box<Self>, header: Header, data: Shared) {
        self.end(|end, tid| end.reply_shared(tid, header, data));
    }

    fn fail(self: Box<Self>) {
        self.end(|end, tid| end.fail(tid));
    }
}
