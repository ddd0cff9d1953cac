//! The client's end of one flow, for the calling thread alone.

use std::os::fd::OwnedFd;
use std::time::Duration;

use amoeba_flow::FlowClient;
use amoeba_threads::Instant;
use amoeba_wire::Status;
use amoeba_world::{Error, Message, TransOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::courtesy::Courtesy;
use super::handed::Handed;
use super::socket::FlowSocket;
use super::{Posting, receive, transmit, transmit_all};
use crate::channel::bell::{Ear, Heard};
use crate::look::{Look, Next};
use crate::memory;
use crate::threads::now;

/// How long the first answer of the other end may take; then a firewall is in the way.
const PROBE_TIME: Duration = Duration::from_secs(1);
/// Time between two PINGs.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);
/// Reads of one turn of a thread that has something to send.
const RECEIVES_PER_TURN: usize = 8;

/// How a transaction over a flow ended.
pub(crate) enum Outcome {
    /// With this result, and the flow can be used again.
    Done(Result<Message, Error>),
    /// With this result, and the flow is over.
    Last(Result<Message, Error>),
    /// The request was certainly not executed, and the flow is over: it may go another way.
    Elsewhere,
}

/// What a turn of a transaction has come to.
pub(crate) enum Turn {
    Ended(Outcome),
    /// Something was sent or received, and more may follow at once.
    Busy,
    Idle,
}

/// Whether a flow can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usable {
    /// The other end has answered.
    Yes,
    /// It has not yet: whoever is in a hurry goes another way.
    NotYet,
    /// Nothing comes through.
    Blocked,
    /// It was revoked.
    Over,
}

/// See the module.
pub(crate) struct Flow {
    id: u64,
    socket: FlowSocket,
    ear: Ear,
    end: FlowClient,
    look: Look,
    /// When the first and the last PING were sent; `None` once one was answered.
    probed: Option<(Instant, Instant)>,
}

impl Flow {
    /// The flow that a kernel has handed over. The other end is asked at once whether it hears.
    pub(crate) fn new(handed: &Handed, socket: OwnedFd, ear: OwnedFd) -> Flow {
        let at = now();
        let end = FlowClient::new(at, handed.session(at), handed.way, memory::zeros);
        let socket = FlowSocket::new(socket, handed.way.datagram_size);
        let mut flow = Flow {
            id: handed.id,
            socket,
            ear: Ear::new(ear),
            end,
            look: Look::default(),
            probed: Some((at, at)),
        };
        flow.ping(at);
        flow
    }

    /// What the kernel calls it.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Looks whether it can be used, without waiting.
    pub(crate) fn usable(&mut self) -> Usable {
        if self.ear.hear() == Heard::Over {
            return Usable::Over;
        }
        let Some((first, last)) = self.probed else { return Usable::Yes };
        while receive(&self.socket, &mut self.end) {}
        let at = now();
        if self.end.is_open() {
            self.probed = None;
            return Usable::Yes;
        }
        if at.since(first) >= PROBE_TIME {
            tracing::info!("a flow is blocked on its way: transactions go through the daemons");
            return Usable::Blocked;
        }
        if at.since(last) >= PROBE_INTERVAL {
            self.probed = Some((first, at));
            self.ping(at);
        }
        Usable::NotYet
    }

    fn ping(&mut self, at: Instant) {
        self.end.ping();
        transmit_all(&self.socket, &mut self.end, at, false);
    }

    /// A transaction. Afterwards `request` is what it was.
    pub(crate) fn trans(
        &mut self,
        request: &mut Message,
        options: &TransOptions,
        deadline: Option<Instant>,
    ) -> Outcome {
        self.begin(request, options.reply_size_max);
        let outcome = self.wait(deadline);
        self.give_back(request);
        outcome
    }

    /// Begins a transaction. Its request is held until it is given back.
    pub(crate) fn begin(&mut self, request: &mut Message, reply_size_max: usize) {
        let asked = Message { header: request.header, data: std::mem::take(&mut request.data) };
        self.end.begin(now(), asked, reply_size_max);
    }

    /// The transaction is over: its request is what it was.
    pub(crate) fn give_back(&mut self, request: &mut Message) {
        if let Some(asked) = self.end.take_request() {
            *request = asked;
        }
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Outcome {
        let mut courtesy = Courtesy::default();
        transmit(&self.socket, &mut self.end, now(), true);
        if self.end.flight().0 == 0 {
            let _ = self.look.again(); // no answer is there yet
        }
        loop {
            match self.turn(deadline, None) {
                Turn::Ended(outcome) => {
                    self.look.found();
                    return outcome;
                }
                Turn::Busy => {
                    self.look.found();
                    courtesy.busy();
                    continue;
                }
                Turn::Idle => {}
            }
            if let Next::Sleep(_) = self.look.again() {
                let revoked = self.sleep(deadline);
                self.look.slept();
                if revoked {
                    return self.revoked(None);
                }
            }
        }
    }

    /// Sends and receives some of a transaction that has begun, without waiting.
    pub(crate) fn turn(&mut self, deadline: Option<Instant>, mut posted: Option<&mut [u8]>) -> Turn {
        let sent = transmit(&self.socket, &mut self.end, now(), true);
        let mut received = false;
        for _ in 0..RECEIVES_PER_TURN {
            if !self.receive(posted.as_deref_mut()) {
                break;
            }
            received = true;
        }
        let at = now();
        self.end.handle_timeout(at);
        if let Some(result) = self.end.poll_result() {
            // The last acknowledgement, if there is one, lets a server thread go.
            transmit_all(&self.socket, &mut self.end, at, false);
            return Turn::Ended(ended(result));
        }
        if deadline.is_some_and(|deadline| deadline <= at) {
            return Turn::Ended(Outcome::Last(Err(in_time(self.end.give_up()))));
        }
        if sent || received { Turn::Busy } else { Turn::Idle }
    }

    fn receive(&mut self, posted: Option<&mut [u8]>) -> bool {
        match posted {
            Some(buffer) => receive(&self.socket, &mut Posting(&mut self.end, buffer)),
            None => receive(&self.socket, &mut self.end),
        }
    }

    /// Bytes of the last reply that are in the buffer posted for it.
    pub(crate) fn posted_size(&self) -> usize {
        self.end.posted_size()
    }

    /// What is to be waited for, and until when at most.
    pub(crate) fn watched(&self) -> ([PollFd<'_>; 2], Option<Instant>) {
        let ready = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&self.ear, PollFlags::IN)];
        (ready, self.end.poll_timeout())
    }

    /// Whether the kernel has revoked the flow.
    pub(crate) fn is_over(&self) -> bool {
        self.ear.hear() == Heard::Over
    }

    /// Sleeps until something comes or it is time for something; whether the flow was revoked.
    fn sleep(&self, deadline: Option<Instant>) -> bool {
        let (mut ready, until) = self.watched();
        let until = [deadline, until].into_iter().flatten().min();
        let left = until.map(|until| until.since(now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        // A wait that a signal ends is one that ends early.
        let _ = poll(&mut ready, timeout.as_ref());
        !ready[1].revents().is_empty() && self.is_over()
    }

    /// The kernel has revoked the flow; what had arrived before counts.
    pub(crate) fn revoked(&mut self, mut posted: Option<&mut [u8]>) -> Outcome {
        while self.receive(posted.as_deref_mut()) {}
        match self.end.poll_result().unwrap_or_else(|| Err(self.end.give_up())) {
            Err(Error::NotSent(_)) => Outcome::Elsewhere,
            result => Outcome::Last(result),
        }
    }
}

/// What the end of a transaction means for the flow.
fn ended(result: Result<Message, Error>) -> Outcome {
    match result {
        // Either refused by a server that closes, or nothing comes through: the daemons know more.
        Err(Error::NotSent(_)) => Outcome::Elsewhere,
        Err(error) => Outcome::Last(Err(error)),
        Ok(reply) => Outcome::Done(Ok(reply)),
    }
}

/// There was a server, but not enough time.
fn in_time(error: Error) -> Error {
    match error {
        Error::NotSent(_) => Error::NotSent(Status::RPC_TRYAGAIN),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use amoeba_cap::PutPort;
    use amoeba_flow::{FlowServer, Way};
    use amoeba_seal::{Suite, flow_keys};
    use amoeba_wire::Header;

    use super::super::socket::Unconnected;
    use super::*;
    use crate::OsEntropy;
    use crate::channel::bell::{Bell, Keeper};

    /// A flow, its kernel's part, and the server's end with its socket.
    fn flow() -> (Flow, Keeper, FlowServer, FlowSocket) {
        let local = IpAddr::from([127, 0, 0, 1]);
        let (one, other) = (Unconnected::bind(local).unwrap(), Unconnected::bind(local).unwrap());
        let address = |socket: &Unconnected| SocketAddr::new(local, socket.port().unwrap());
        let (to_one, to_other) = (address(&one), address(&other));
        let way = Way { datagram_size: 1400, window: 1 << 18 };
        let (keys, others) = flow_keys(&OsEntropy, Suite::Aes256Gcm);
        let theirs = Handed { id: 2, receiver: 3, way, keys: others }.session(now());
        let server = FlowServer::new(now(), theirs, way, 1 << 20, memory::zeros);
        let Bell { ear, keeper, .. } = Bell::new().unwrap();
        let flow = Flow::new(&Handed { id: 2, receiver: 3, way, keys }, one.connect(to_other).unwrap(), ear);
        (flow, keeper, server, FlowSocket::new(other.connect(to_one).unwrap(), 1400))
    }

    fn request(size: usize) -> Message {
        Message { header: Header { port: PutPort::from_bytes([5; 6]), ..Header::NULL }, data: vec![6; size] }
    }

    /// What the server does once: reads what has come, and sends what it has to.
    fn attend(server: &mut FlowServer, socket: &FlowSocket) {
        while receive(socket, server) {}
        transmit_all(socket, server, now(), true);
    }

    #[test]
    fn a_flow_is_used_once_the_other_end_has_answered_and_never_after_it_was_revoked() {
        let (mut flow, keeper, mut server, socket) = flow();
        assert_eq!(flow.usable(), Usable::NotYet);
        attend(&mut server, &socket);
        assert_eq!(flow.usable(), Usable::Yes);
        keeper.revoke();
        assert_eq!(flow.usable(), Usable::Over);
        assert!(matches!(
            flow.trans(&mut request(1 << 20), &TransOptions::default(), None),
            Outcome::Elsewhere
        ));
    }

    #[test]
    fn a_flow_through_which_nothing_comes_is_blocked() {
        let (mut flow, _keeper, _server, _socket) = flow();
        while flow.usable() == Usable::NotYet {
            std::thread::sleep(PROBE_INTERVAL);
        }
        assert_eq!(flow.usable(), Usable::Blocked);
    }

    #[test]
    fn a_flow_that_dies_without_a_word_costs_one_transaction_that_may_have_been_executed() {
        let (mut flow, _keeper, mut server, socket) = flow();
        attend(&mut server, &socket);
        assert_eq!(flow.usable(), Usable::Yes);
        let mut asked = request(10);
        let outcome = flow.trans(&mut asked, &TransOptions::default(), None);
        let failure = Error::MaybeExecuted(Status::RPC_FAILURE);
        assert!(matches!(outcome, Outcome::Last(Err(error)) if error == failure));
        assert_eq!(asked, request(10), "it is given back");
        attend(&mut server, &socket);
        assert_eq!(server.poll_request().map(|(_, request)| request), Some(request(10)), "it was on its way");
    }

    #[test]
    fn what_has_arrived_before_the_end_counts() {
        let (mut flow, keeper, mut server, socket) = flow();
        let serving = std::thread::spawn(move || {
            let (tid, message) = loop {
                attend(&mut server, &socket);
                if let Some(request) = server.poll_request() {
                    break request;
                }
            };
            server.reply(tid, message);
            transmit_all(&socket, &mut server, now(), true);
            keeper.revoke();
        });
        let outcome = flow.trans(&mut request(100), &TransOptions::default(), None);
        let (Outcome::Done(result) | Outcome::Last(result)) = outcome else { panic!("it was executed") };
        assert_eq!(result.map(|reply| reply.data), Ok(vec![6; 100]));
        serving.join().unwrap();
    }
}
