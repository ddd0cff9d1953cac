//! A port this process listens on, across restarts of the daemon: requests come over channels from clients of this host,
//! and from the daemon.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use amoeba_cap::{GetPort, PutPort};
use amoeba_channel::{RING_SIZE_DEFAULT, ServerEnd, Service};
use amoeba_wire::{DATA_SIZE_MAX, Status};
use amoeba_world::{Caller, Incoming, Listen, ListenError, Message, PutReply, ReplyTo};

use super::desk::{Desk, Wait};
use super::served::{Line, Served};
use super::session::{Refused, Session};
use super::{Absence, Client, LISTENER_ABSENCE_MAX, lock};
use crate::channel::bell::{Ear, Rope};
use crate::channel::region::{OwnRegion, PeerRegion};
use crate::flow::handed::Handed;
use crate::flow::served::{Flows, Introduced};
use crate::fork::Origin;
use crate::socket::{Lost, Stream, ToKernel, ToProcess};
use crate::threads::now;

/// The most channels that one listener has as server; past it clients keep to the daemon's path.
pub const CHANNELS_PER_LISTENER_MAX: usize = 1024;
/// Connections that a listener keeps for its next questions; past it they are the process's, as all others are.
const SPARE_MAX: usize = 4;
/// After so many looks in vain at the kernel's connection, one after the other, only one in as many is taken.
const VAIN_MAX: u32 = 16;

/// See the module.
pub(super) struct PortListener {
    client: Client,
    get_port: GetPort,
    put_port: PutPort,
    request_size_max: usize,
    state: Mutex<State>,
    closing: Condvar,
    /// In a child that was forked, it is closed: whoever listens is the parent.
    origin: Origin,
    desk: Arc<Desk>,
    /// The connection on which a request was asked for.
    asked: Mutex<Option<Asked>>,
    /// Whether there is one, so that the usual case needs no lock.
    is_asked: AtomicBool,
    /// Connections on which nothing is awaited.
    spare: Mutex<Vec<Asked>>,
    vain: Vain,
    /// The session of the channels.
    session: AtomicU64,
}

/// Looks at the kernel's connection that were in vain, or left out, one after the other.
#[derive(Default)]
struct Vain(AtomicU32);

impl Vain {
    /// Whether to look, of which it is not known yet whether it is in vain.
    fn is_worth_it(&self) -> bool {
        let vain = self.0.fetch_add(1, Ordering::Relaxed);
        vain < VAIN_MAX || vain.is_multiple_of(VAIN_MAX)
    }

    fn found(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

struct State {
    closed: bool,
    /// The session in which we last said that we listen.
    session: u64,
    /// The kernel may not know it, or have no room: it is to be said again.
    doubtful: bool,
}

struct Asked {
    session: Arc<Session>,
    stream: Arc<Stream>,
    /// The desk hears of what comes.
    is_watched: bool,
}

/// Listens on `port`.
pub(super) fn listen(
    client: &Client,
    port: &GetPort,
    request_size_max: usize,
) -> Result<PortListener, Refused> {
    let desk = Desk::new().map_err(|_| Refused::Status(Status::RPC_TRYAGAIN))?;
    let session = client.session()?;
    let put_port = say_listen(&session, port, request_size_max)?;
    Ok(PortListener {
        client: client.clone(),
        get_port: port.clone(),
        put_port,
        request_size_max,
        state: Mutex::new(State { closed: false, session: session.number, doubtful: false }),
        closing: Condvar::new(),
        origin: Origin::here(),
        desk: Arc::new(desk),
        asked: Mutex::new(None),
        is_asked: AtomicBool::new(false),
        spare: Mutex::default(),
        vain: Vain::default(),
        session: AtomicU64::new(session.number),
    })
}

fn say_listen(session: &Session, port: &GetPort, request_size_max: usize) -> Result<PutPort, Refused> {
    let frame =
        ToKernel::Listen { port: port.clone(), request_size_max: request_size_max.min(DATA_SIZE_MAX) };
    match session.control(&frame)? {
        ToProcess::Port { port } => Ok(port),
        ToProcess::Error { error } => Err(Refused::Status(error.status())),
        _ => Err(Refused::Absent),
    }
}

impl PortListener {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn asked(&self) -> MutexGuard<'_, Option<Asked>> {
        lock(&self.asked)
    }

    /// The session that runs now, listening in it.
    fn listening(&self) -> Result<Arc<Session>, Refused> {
        let session = self.client.session()?;
        let mut state = self.state();
        if !state.closed && (state.doubtful || state.session != session.number) {
            let port = say_listen(&session, &self.get_port, self.request_size_max)?;
            if port != self.put_port {
                tracing::error!("the kernel now has another secret: {port} instead of {}", self.put_port);
                return Err(Refused::Status(Status::RPC_BADPORT));
            }
            (state.session, state.doubtful) = (session.number, false);
        }
        // Channels of a session that is over are not revoked by anybody any more.
        if self.session.swap(session.number, Ordering::Relaxed) != session.number {
            self.desk.session(session.number);
        }
        Ok(session)
    }

    /// Sees to it that the kernel gives us a request when it has one.
    fn ask(&self) -> Result<(), Refused> {
        if self.is_asked.load(Ordering::Acquire) {
            return Ok(());
        }
        let session = self.listening()?;
        let mut asked = self.asked();
        if asked.is_some() || self.state().closed {
            return Ok(());
        }
        let mut next = self.spare(session)?;
        if !next.is_watched {
            self.desk.watch(&*next.stream).map_err(|_| Refused::Status(Status::RPC_TRYAGAIN))?;
            next.is_watched = true;
        }
        if next.stream.send(&ToKernel::Getreq { port: self.put_port }).is_err() {
            next.session.distrust();
            return Err(Refused::Absent);
        }
        *asked = Some(next);
        self.is_asked.store(true, Ordering::Release);
        Ok(())
    }

    /// A connection of this session on which nothing is awaited.
    fn spare(&self, session: Arc<Session>) -> Result<Asked, Refused> {
        let mut spare = lock(&self.spare);
        while let Some(asked) = spare.pop() {
            if asked.session.number == session.number {
                return Ok(asked);
            }
            self.forget(&asked);
        }
        drop(spare);
        Ok(Asked { stream: session.take()?, session, is_watched: false })
    }

    /// Keeps a connection on which nothing is awaited for the next question: so it stays watched.
    fn keep(&self, asked: Asked) {
        let mut spare = lock(&self.spare);
        if spare.len() < SPARE_MAX {
            return spare.push(asked);
        }
        drop(spare);
        self.forget(&asked);
        asked.session.give(asked.stream);
    }

    fn forget(&self, asked: &Asked) {
        if asked.is_watched {
            self.desk.unwatch(&*asked.stream);
        }
    }

    /// The connection on which the kernel has answered, for the calling thread alone; `None` when another thread was
    /// faster, which may have asked again since.
    fn answered(&self) -> Option<Asked> {
        let mut asked = self.asked();
        if matches!(asked.as_ref()?.stream.wait(Some(now())), Ok(false)) {
            return None;
        }
        let answered = asked.take()?;
        self.is_asked.store(false, Ordering::Release);
        Some(answered)
    }

    /// Looks for a moment whether the kernel has something, where nobody else is to be looked at. At most one thread does;
    /// meanwhile no other is woken. Where that was in vain again and again it is left out, for it keeps the processor from
    /// whoever is to be heard, and the connection from being watched.
    fn look_out(&self) -> Result<Option<Incoming>, Refused> {
        if !self.desk.is_lonely() || !self.vain.is_worth_it() {
            return Ok(None);
        }
        let Ok(mut asked) = self.asked.try_lock() else { return Ok(None) };
        let Some(waiting) = asked.as_mut() else { return Ok(None) };
        self.forget(waiting);
        waiting.is_watched = false;
        let received = match waiting.stream.receive_soon() {
            Ok(None) => {
                let watched = self.desk.watch(&*waiting.stream);
                waiting.is_watched = watched.is_ok();
                return watched.map(|()| None).map_err(|_| Refused::Status(Status::RPC_TRYAGAIN));
            }
            Ok(Some(received)) => Ok(received),
            Err(lost) => Err(lost),
        };
        let answered = asked.take().expect("it was there just now");
        self.is_asked.store(false, Ordering::Release);
        drop(asked);
        self.vain.found();
        self.heard(answered, received)
    }

    /// Takes what the kernel has: a request, or a client to be introduced to, which is no request yet.
    fn hear(&self) -> Result<Option<Incoming>, Refused> {
        let Some(answered) = self.answered() else { return Ok(None) };
        let received = answered.stream.receive_with();
        self.heard(answered, received)
    }

    fn heard(
        &self,
        answered: Asked,
        received: Result<(ToProcess, Vec<OwnedFd>), Lost>,
    ) -> Result<Option<Incoming>, Refused> {
        match received {
            Ok((ToProcess::Request { request, caller, message }, _)) => {
                let stream = answered.stream.clone();
                self.keep(answered);
                Ok(Some(incoming(stream, request, caller, message)))
            }
            Ok((ToProcess::Knock, _)) => {
                self.forget(&answered); // what is answered at once wakes nobody
                self.open(answered.session, answered.stream)
            }
            Ok((ToProcess::Introduced { channel, caller }, descriptors)) => {
                self.meet(&answered.session, &answered.stream, channel, caller, descriptors);
                self.keep(answered);
                Ok(None)
            }
            Ok((ToProcess::FlowIntroduced { caller, flow }, descriptors)) => {
                self.meet_from_afar(&answered.session, caller, &flow, descriptors);
                self.keep(answered);
                Ok(None)
            }
            Ok((ToProcess::Error { error }, _)) => {
                self.keep(answered);
                self.state().doubtful = true;
                Err(Refused::Status(error.status()))
            }
            _ => {
                self.forget(&answered);
                answered.session.distrust();
                Err(Refused::Absent)
            }
        }
    }

    /// The kernel has a request, if there is a thread for it: here is one.
    fn open(&self, session: Arc<Session>, stream: Arc<Stream>) -> Result<Option<Incoming>, Refused> {
        match stream.ask(&ToKernel::Ready) {
            Ok(ToProcess::Request { request, caller, message }) => {
                session.give(stream.clone());
                Ok(Some(incoming(stream, request, caller, message)))
            }
            Ok(ToProcess::Done) => {
                session.give(stream);
                Ok(None) // somebody else had time sooner
            }
            _ => {
                session.distrust();
                Err(Refused::Absent)
            }
        }
    }

    /// Accepts a client, if there is room for one more.
    fn meet(&self, session: &Session, stream: &Stream, id: u64, caller: Caller, descriptors: Vec<OwnedFd>) {
        let accepted = self.accept(session, id, caller, descriptors);
        let said = match &accepted {
            Some((_, file)) => stream.send_with(&ToKernel::Accept { channel: id }, &[file.as_fd()]),
            None => stream.send(&ToKernel::Decline { channel: id }),
        };
        if let (Ok(()), Some((served, _))) = (said, accepted)
            && let Err(errno) = self.desk.add(served)
        {
            tracing::warn!("cannot watch a channel: {errno}"); // its client finds nobody there
        }
    }

    fn accept(
        &self,
        session: &Session,
        id: u64,
        caller: Caller,
        descriptors: Vec<OwnedFd>,
    ) -> Option<(Box<Served>, OwnedFd)> {
        if self.desk.channels() >= CHANNELS_PER_LISTENER_MAX {
            return None;
        }
        let [region, ear, rope]: [OwnedFd; 3] = descriptors.try_into().ok()?;
        let regions = OwnRegion::create(RING_SIZE_DEFAULT)
            .and_then(|(own, file)| Ok((own, file, PeerRegion::map(&region)?)))
            .inspect_err(|error| tracing::debug!("no memory for a channel: {error}"));
        let (own, file, peer) = regions.ok()?;
        let service = Service {
            port: self.put_port,
            signature: caller.signature.unwrap_or(PutPort::NULL),
            request_size_max: self.request_size_max,
        };
        let served = Served {
            id,
            session: session.number,
            end: ServerEnd::new(own, peer, service),
            line: Arc::new(Line::new(Ear::new(ear))),
            rope: Rope::new(rope),
            caller,
            desk: Arc::downgrade(&self.desk),
            client: Arc::downgrade(&self.client.0),
            origin: self.origin,
            used: 0,
            round: 0,
            since: None,
        };
        Some((Box::new(served), file))
    }

    /// Takes a flow from a client of another host.
    fn meet_from_afar(&self, session: &Session, caller: Caller, flow: &[u8], descriptors: Vec<OwnedFd>) {
        let descriptors: Result<[OwnedFd; 2], _> = descriptors.try_into();
        let (Ok(handed), Ok([socket, ear])) = (Handed::parse(flow), descriptors) else {
            return tracing::warn!("the kernel's idea of a flow is another one");
        };
        let client = self.client.clone();
        let make = || {
            let tell = move |number, flow| {
                // A daemon that is gone has forgotten it.
                if let Ok(session) = client.session()
                    && session.number == number
                {
                    let _ = session.control(&ToKernel::Close { channel: flow });
                }
            };
            Flows::new(self.put_port, self.request_size_max, self.desk.presence(), Box::new(tell))
        };
        let session = session.number;
        match self.desk.flows(make) {
            Ok(flows) => flows.add(Introduced { handed, socket, ear, caller, session }),
            Err(errno) => tracing::warn!("cannot watch flows: {errno}"), // the client finds nobody there
        }
    }

    /// Tells the kernel about channels that are over.
    fn close_channels(&self, ended: Vec<(u64, u64)>) {
        let Ok(session) = self.client.session() else { return };
        for (_, channel) in ended.into_iter().filter(|(number, _)| *number == session.number) {
            let _ = session.control(&ToKernel::Close { channel }); // a daemon that is gone has forgotten it
        }
    }

    /// Waits once; `Ok(None)` when something else was to be done.
    fn attend(&self) -> Result<Option<Incoming>, Refused> {
        self.ask()?;
        if let Some(incoming) = self.look_out()? {
            self.ask_for_others();
            return Ok(Some(incoming));
        }
        if !self.is_asked.load(Ordering::Acquire) {
            return Ok(None); // what the kernel had was no request: it must be asked again before anybody sleeps
        }
        match self.desk.wait() {
            Wait::Request(served, request) => {
                let caller = served.caller;
                Ok(Some(Incoming { caller, request, reply: ReplyTo::new(served) }))
            }
            Wait::Flow(incoming) => Ok(Some(incoming)),
            Wait::Connection => {
                let heard = self.hear()?;
                if heard.is_some() {
                    self.ask_for_others();
                }
                Ok(heard)
            }
            Wait::Ended(ended) => {
                self.close_channels(ended);
                Ok(None)
            }
            Wait::Closed => Ok(None),
        }
    }

    /// Asks for the next request, if other threads wait for one; whoever of them comes back asks again.
    fn ask_for_others(&self) {
        if self.desk.is_attended() {
            let _ = self.ask();
        }
    }

    /// Waits before the next try; false when the listener was closed meanwhile.
    fn rest(&self, pause: Duration) -> bool {
        let state = self.state();
        let woken = self.closing.wait_timeout_while(state, pause, |state| !state.closed);
        !woken.unwrap_or_else(PoisonError::into_inner).0.closed
    }
}

fn incoming(stream: Arc<Stream>, request: u64, caller: Caller, message: Message) -> Incoming {
    Incoming { caller, request: message, reply: ReplyTo::new(Box::new(Duty { stream, request })) }
}

impl Listen for PortListener {
    fn put_port(&self) -> PutPort {
        self.put_port
    }

    fn getreq(&self) -> Result<Incoming, ListenError> {
        let mut absence = None;
        while self.origin.is_here() && !self.desk.is_closed() {
            match self.attend() {
                Ok(Some(incoming)) => return Ok(incoming),
                Ok(None) => absence = None,
                Err(_) => {
                    let absence = absence.get_or_insert_with(|| Absence::new(LISTENER_ABSENCE_MAX));
                    let pause = absence.pause().ok_or(ListenError)?;
                    if !self.rest(pause) {
                        break;
                    }
                }
            }
        }
        Err(ListenError)
    }

    fn close(&self) {
        if !self.origin.is_here() {
            return;
        }
        let said = {
            let mut state = self.state();
            if std::mem::replace(&mut state.closed, true) {
                return;
            }
            state.session
        };
        self.closing.notify_all();
        // In a session that has ended there is nothing to undo, and its threads find out by themselves.
        if let Ok(session) = self.client.session()
            && session.number == said
        {
            let _ = session.control(&ToKernel::Unlisten { port: self.put_port });
        }
        self.desk.close();
        self.close_channels(self.desk.ended());
    }
}

impl Drop for PortListener {
    fn drop(&mut self) {
        self.close();
    }
}

/// One request to be answered. It keeps its connection open, for the kernel fails what a closed one had delivered.
struct Duty {
    stream: Arc<Stream>,
    request: u64,
}

impl PutReply for Duty {
    fn putrep(self: Box<Self>, mut reply: Message) {
        if reply.data.len() > DATA_SIZE_MAX {
            reply = Message::status(Status::STD_OVERFLOW);
        }
        // A daemon that is gone has told the client.
        let _ = self.stream.send(&ToKernel::Putrep { request: self.request, message: reply });
    }

    fn fail(self: Box<Self>) {
        let _ = self.stream.send(&ToKernel::Fail { request: self.request });
    }
}

#[cfg(test)]
mod tests {
    use amoeba_cap::SystemSecret;

    use super::*;
    use crate::OsEntropy;
    use crate::kernel::{Config, Daemon};

    fn ports(client: &Client) -> String {
        let status = client.kernel_status().unwrap();
        let line = status.lines().find(|line| line.starts_with("ports ")).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    }

    #[test]
    fn looks_that_are_in_vain_become_rare_until_one_is_not() {
        let vain = Vain::default();
        let looks = |count: u32| (0..count).filter(|_| vain.is_worth_it()).count();
        assert_eq!(looks(VAIN_MAX), VAIN_MAX as usize);
        assert_eq!(looks(10 * VAIN_MAX), 10);
        vain.found();
        assert_eq!(looks(VAIN_MAX), VAIN_MAX as usize);
    }

    #[test]
    fn closing_after_a_refused_getreq_still_ends_the_listening() {
        let directory = std::env::temp_dir().join(format!("amoeba-listener-{}", std::process::id()));
        let path = directory.join("kernel");
        let config = Config::new(SystemSecret::from_bytes([3; 32]), Arc::new(OsEntropy));
        let mut daemon = Daemon::bind(&path, config).unwrap();
        let stopper = daemon.stopper();
        let running = std::thread::spawn(move || daemon.run());
        let client = Client::new(&path);
        let get_port = GetPort::from_bytes([8; 6]);
        let listener = listen(&client, &get_port, 100).unwrap();
        let session = client.session().unwrap();
        session.control(&ToKernel::Unlisten { port: listener.put_port }).unwrap();
        assert!(listener.attend().is_err(), "the kernel does not know the port");
        say_listen(&session, &get_port, 100).unwrap();
        assert_eq!(ports(&client), "1");
        listener.close();
        assert_eq!(ports(&client), "0");
        stopper.stop();
        let _ = running.join().unwrap();
        let _ = std::fs::remove_dir_all(directory);
    }
}
