//! One transaction of a client with a server on another host.
//!
//! ```text
//!            found            ACK, ALIVE
//!  Locating ──────► Sent ───────────────► Working
//!     ▲              │ REPLY, FAIL, too many RECEIVEDs │ REPLY, FAIL, too many ENQUIREs
//!     └── NAK, not ──┤                                  │
//!         here       ▼                                  ▼
//!                   ended ◄─────────────────────────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use amoeba_cap::PutPort;
use amoeba_flip::Payload;
use amoeba_threads::Instant;
use amoeba_wire::packet::{Address, ETHERNET_PAYLOAD_MAX, RpcHeader, RpcKind, rpc_flag};
use amoeba_wire::{Header, Status};
use amoeba_world::{Error, Message};

use crate::message::emit;
use crate::{
    DOUBT_AFTER, ENQUIRE_INTERVAL, ENQUIRES_MAX, FORWARDS_MAX, HEADERS_SIZE, RECEIVED_MAX, REFUSED_WAIT,
    REFUSED_WAIT_MAX, SERVE_TIMEOUT, SERVE_TIMEOUT_MAX, Server, UNANSWERED_MIN,
};

/// What the transaction wants done.
#[derive(Debug, PartialEq)]
pub enum Action {
    /// Send these bytes to that process.
    Send(Address, Payload),
    /// The reply is here: tell its server so. The next request of this client thread to that process would say the same;
    /// a `small` reply may be kept until then.
    Acknowledge {
        /// The server.
        server: Address,
        /// The header that says it.
        ack: RpcHeader,
        /// The reply came in one packet of an Ethernet.
        small: bool,
    },
    /// That process is to be asked instead, under a new identifier: give it to [`RemoteTrans::found`].
    Forward(Address),
    /// Nothing is heard from that process: look for another way there.
    Doubt(Address),
    /// That process does not serve the port (any more): forget that it did.
    Forget(Address),
    /// Look for a server from [`RemoteTrans::timeout`] on.
    Locate,
    /// The transaction has ended.
    Done(Result<Message, Error>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No server is known.
    Locating,
    /// The request was sent; nothing was heard of it but, perhaps, silence.
    Sent { server: Address, tid: u32, received: u32 },
    /// The server has the request.
    Working { server: Address, tid: u32, enquiries: u32 },
}

/// See the module's head.
#[derive(Debug)]
pub struct RemoteTrans {
    request: Header,
    data: Arc<Vec<u8>>,
    kid: [u8; 8],
    slot: u16,
    locate_deadline: Instant,
    reply_size_max: usize,
    phase: Phase,
    refusals: u32,
    forwards: u32,
    /// Since when nobody has answered the search for a server, if one is going on.
    searching_since: Option<Instant>,
    timeout: Instant,
}

impl RemoteTrans {
    /// A transaction of slot `slot` of the process with kernel identifier `kid`, searching until `locate_deadline`.
    pub fn new(
        request: Message,
        kid: [u8; 8],
        slot: u16,
        now: Instant,
        locate_deadline: Instant,
        reply_size_max: usize,
    ) -> RemoteTrans {
        let phase = Phase::Locating;
        RemoteTrans {
            request: request.header,
            data: Arc::new(request.data),
            kid,
            slot,
            locate_deadline,
            reply_size_max,
            phase,
            refusals: 0,
            forwards: 0,
            searching_since: None,
            timeout: now,
        }
    }

    /// The port it is for.
    pub fn port(&self) -> PutPort {
        self.request.port
    }

    /// Bytes of the largest reply its client takes.
    pub fn reply_size_max(&self) -> usize {
        self.reply_size_max
    }

    /// Bytes of the request's data.
    pub fn request_size(&self) -> usize {
        self.data.len()
    }

    /// Whether it still needs a server.
    pub fn is_locating(&self) -> bool {
        self.phase == Phase::Locating
    }

    /// Whether it was sent to `server` as transaction `tid` and still waits for the reply.
    pub fn waits_for(&self, server: Address, tid: u32) -> bool {
        match self.phase {
            Phase::Locating => false,
            Phase::Sent { server: to, tid: sent, .. } | Phase::Working { server: to, tid: sent, .. } => {
                to == server && sent == tid
            }
        }
    }

    /// The server it was sent to, and its identifier there.
    pub fn server(&self) -> Option<(Address, u32)> {
        match self.phase {
            Phase::Locating => None,
            Phase::Sent { server, tid, .. } | Phase::Working { server, tid, .. } => Some((server, tid)),
        }
    }

    /// When [`RemoteTrans::handle_timeout`] is to be called: while locating, when to look (again) for a server.
    pub fn timeout(&self) -> Instant {
        self.timeout
    }

    /// When the search is over.
    pub fn locate_deadline(&self) -> Instant {
        self.locate_deadline
    }

    /// The request, to be given to a server on this host instead.
    pub fn into_request(self) -> Message {
        let data = Arc::try_unwrap(self.data).unwrap_or_else(|shared| (*shared).clone());
        Message { header: self.request, data }
    }

    /// A server was found: send it the request as transaction `tid`, which no other had.
    pub fn found(&mut self, now: Instant, server: Server, tid: u32) -> Action {
        assert!(self.is_locating(), "a transaction is sent to one server at a time");
        self.phase = Phase::Sent { server: server.address, tid, received: 0 };
        let round_trip = server.round_trip_millis();
        self.timeout = now + SERVE_TIMEOUT + Duration::from_millis(round_trip.into());
        let header = RpcHeader {
            port: self.port(),
            dest: round_trip,
            ..self.control(RpcKind::Request, rpc_flag::REPORTS, tid)
        };
        Action::Send(server.address, emit(&header, Some((&self.request, &self.data))))
    }

    /// A packet for this slot arrived from `from`.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        from: Address,
        header: &RpcHeader,
        message: Option<Message>,
    ) -> Vec<Action> {
        let (server, tid) = match self.phase {
            Phase::Locating => return Vec::new(),
            Phase::Sent { server, tid, .. } | Phase::Working { server, tid, .. } => (server, tid),
        };
        if server != from || tid != header.tid {
            return Vec::new();
        }
        match header.kind {
            RpcKind::Reply => {
                message.map(|reply| self.end_with_reply(server, tid, reply)).unwrap_or_default()
            }
            RpcKind::Ack | RpcKind::Alive => {
                self.phase = Phase::Working { server, tid, enquiries: 0 };
                self.timeout = now + ENQUIRE_INTERVAL;
                Vec::new()
            }
            RpcKind::Nak => self.refused(now, server),
            RpcKind::Fail => vec![Action::Done(Err(Error::MaybeExecuted(Status::RPC_FAILURE)))],
            _ => Vec::new(),
        }
    }

    /// The server has not executed the request and names another that is to.
    pub fn forwarded(&mut self, from: Address, header: &RpcHeader, next: Address) -> Vec<Action> {
        let Some((server, tid)) = self.server().filter(|sent| *sent == (from, header.tid)) else {
            return Vec::new();
        };
        let acknowledgement = emit(&self.control(RpcKind::Ack, rpc_flag::REQUEST, tid), None);
        self.forwards += 1;
        self.phase = Phase::Locating;
        let then = match self.forwards <= FORWARDS_MAX {
            true => Action::Forward(next),
            false => Action::Done(Err(Error::NotSent(Status::RPC_TRYAGAIN))),
        };
        vec![Action::Send(server, acknowledgement), Action::Forget(server), then]
    }

    /// A packet of kind `kind` that this transaction sent to `to` came back: the process is not there.
    pub fn not_here(&mut self, now: Instant, to: Address, kind: RpcKind, tid_back: u32) -> Vec<Action> {
        match self.phase {
            Phase::Sent { server, tid, received } if server == to && tid == tid_back => {
                // Only a request that was never followed by a question is certainly the copy that came back.
                if kind == RpcKind::Request && received == 0 {
                    self.refused(now, server)
                } else {
                    self.lost(server)
                }
            }
            Phase::Working { server, tid, .. } if server == to && tid == tid_back => self.lost(server),
            _ => Vec::new(),
        }
    }

    /// A host on the way to the server knew no way on, and a copy of what came back may have gone another way: asks at
    /// once whether the request is there, if it was never asked before. Otherwise the next question will tell.
    pub fn no_route(&mut self, now: Instant, to: Address, tid_back: u32) -> Vec<Action> {
        match self.phase {
            Phase::Sent { server, tid, received: 0 } if server == to && tid == tid_back => {
                self.timeout = now;
                self.handle_timeout(now)
            }
            _ => Vec::new(),
        }
    }

    /// The only way to the server is over untrusted networks.
    pub fn untrusted(&mut self, to: Address, tid_back: u32) -> Vec<Action> {
        match self.phase {
            Phase::Sent { server, tid, received: 0 } if server == to && tid == tid_back => {
                vec![Action::Done(Err(Error::NotSent(Status::RPC_UNSAFE)))]
            }
            _ => Vec::new(),
        }
    }

    /// The reply, of which only the beginning is here, is larger than the client takes.
    pub fn reply_too_large(&mut self, from: Address, header: &RpcHeader) -> Vec<Action> {
        match self.phase {
            Phase::Sent { server, tid, .. } | Phase::Working { server, tid, .. }
                if server == from && tid == header.tid =>
            {
                self.end_with_reply_too_large(server, tid)
            }
            _ => Vec::new(),
        }
    }

    /// The host of its server is gone.
    pub fn server_lost(&mut self) -> Vec<Action> {
        self.server().map(|(server, _)| self.lost(server)).unwrap_or_default()
    }

    /// The request is still leaving, or the reply is arriving: silence means nothing.
    pub fn still_under_way(&mut self, now: Instant) -> Vec<Action> {
        match &mut self.phase {
            Phase::Locating => {}
            Phase::Sent { .. } => self.timeout = now + SERVE_TIMEOUT,
            Phase::Working { enquiries, .. } => {
                *enquiries = 0;
                self.timeout = now + ENQUIRE_INTERVAL;
            }
        }
        Vec::new()
    }

    /// What the client hears if it waits no longer. After a refusal it is that there is a server, unless the search
    /// since then found nobody.
    pub fn give_up(&self, now: Instant) -> Error {
        let nobody = self.searching_since.is_some_and(|since| now.since(since) >= UNANSWERED_MIN);
        match self.phase {
            Phase::Locating if self.refusals > 0 && !nobody => Error::NotSent(Status::RPC_TRYAGAIN),
            Phase::Locating => Error::NotSent(Status::RPC_NOTFOUND),
            Phase::Sent { .. } | Phase::Working { .. } => Error::MaybeExecuted(Status::RPC_FAILURE),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Action> {
        if now < self.timeout {
            return Vec::new();
        }
        match self.phase {
            Phase::Locating if now >= self.locate_deadline => vec![Action::Done(Err(self.give_up(now)))],
            Phase::Locating => {
                self.timeout = self.locate_deadline;
                self.searching_since.get_or_insert(now);
                vec![Action::Locate]
            }
            Phase::Sent { server, received: RECEIVED_MAX, .. }
            | Phase::Working { server, enquiries: ENQUIRES_MAX, .. } => self.lost(server),
            Phase::Sent { server, tid, received } => {
                self.phase = Phase::Sent { server, tid, received: received + 1 };
                self.timeout = now + (SERVE_TIMEOUT * (1 << received.min(3))).min(SERVE_TIMEOUT_MAX);
                let header = self.control(RpcKind::Received, rpc_flag::REQUEST, tid);
                ask(server, emit(&header, None), received)
            }
            Phase::Working { server, tid, enquiries } => {
                self.phase = Phase::Working { server, tid, enquiries: enquiries + 1 };
                self.timeout = now + ENQUIRE_INTERVAL;
                let header = self.control(RpcKind::Enquire, 0, tid);
                ask(server, emit(&header, None), enquiries)
            }
        }
    }

    fn end_with_reply(&mut self, server: Address, tid: u32, reply: Message) -> Vec<Action> {
        if reply.data.len() > self.reply_size_max {
            return self.end_with_reply_too_large(server, tid);
        }
        let small = reply.data.len() + HEADERS_SIZE <= ETHERNET_PAYLOAD_MAX;
        vec![self.acknowledge(server, tid, small), Action::Done(Ok(reply))]
    }

    fn end_with_reply_too_large(&mut self, server: Address, tid: u32) -> Vec<Action> {
        let refusal = Message::status(Status::STD_OVERFLOW);
        vec![self.acknowledge(server, tid, false), Action::Done(Ok(refusal))]
    }

    fn acknowledge(&self, server: Address, tid: u32, small: bool) -> Action {
        Action::Acknowledge { server, ack: self.control(RpcKind::Ack, rpc_flag::REPLY, tid), small }
    }

    /// Certainly not executed: wait a little, then look for a server again, under a new identifier.
    fn refused(&mut self, now: Instant, server: Address) -> Vec<Action> {
        let wait = REFUSED_WAIT * (1 << self.refusals.min(10));
        self.refusals += 1;
        self.searching_since = None;
        self.phase = Phase::Locating;
        self.timeout = (now + wait.min(REFUSED_WAIT_MAX)).min(self.locate_deadline);
        vec![Action::Forget(server)]
    }

    fn lost(&mut self, server: Address) -> Vec<Action> {
        vec![Action::Forget(server), Action::Done(Err(Error::MaybeExecuted(Status::RPC_FAILURE)))]
    }

    fn control(&self, kind: RpcKind, flags: u8, tid: u32) -> RpcHeader {
        RpcHeader { kid: self.kid, port: PutPort::NULL, kind, flags, tid, dest: 0, from: self.slot }
    }
}

/// One more question, after `unanswered` others; the second unanswered one may have gone the wrong way.
fn ask(server: Address, question: Payload, unanswered: u32) -> Vec<Action> {
    let doubt = (unanswered == DOUBT_AFTER).then_some(Action::Doubt(server));
    doubt.into_iter().chain([Action::Send(server, question)]).collect()
}
