//! The server's end: the last transaction, exactly, and its reply until the client has gone on.
//!
//! ```text
//!          request             reply               the next request, or ACK
//!   Over ───────────► Accepted ───────► Replied ─────────────────────────────► Accepted, Over
//!     ▲                  │ fail              │ the client takes nothing
//!     └──────────────────┴───────────────────┘
//! ```
//!
//! What was refused stays refused: a copy of its request is answered NAK, never executed.

use amoeba_seal::Session;
use amoeba_threads::Instant;
use amoeba_wire::packet::{RpcHeader, RpcKind, rpc_flag};
use amoeba_wire::{DATA_SIZE_MAX, Header, Status};
use amoeba_world::{Message, Shared};

use crate::datagram::Datagram;
use crate::half::{Half, Outgoing, Pieced, Small, rpc};
use crate::{Memory, SILENT_MAX, Way};

/// What is known of the last transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Certainly never executed.
    Refused,
    /// Given out, or about to be.
    Accepted,
    /// Executed; the reply is kept.
    Replied,
    /// Executed, and nothing is kept; or nothing has come yet.
    Over,
}

/// What a reply says.
enum Reply {
    Own(Message),
    Shared(Header, Shared),
}

impl Reply {
    fn as_outgoing(&self) -> Outgoing<'_> {
        match self {
            Reply::Own(message) => (&message.header, &message.data),
            Reply::Shared(header, data) => (header, data),
        }
    }

    /// What may be sent of it: only kernels may use a status in the range of the transaction layer.
    fn checked(self) -> Reply {
        let (header, data) = self.as_outgoing();
        if header.status().is_rpc() {
            Reply::Own(Message::status(Status::RPC_REMOTERPC))
        } else if data.len() > DATA_SIZE_MAX {
            Reply::Own(Message::status(Status::STD_OVERFLOW))
        } else {
            self
        }
    }
}

/// See the module.
pub struct FlowServer {
    half: Half,
    request_size_max: usize,
    /// The last transaction that came whole, or was refused; `None` before the first.
    tid: Option<u32>,
    state: State,
    request: Option<Message>,
    reply: Option<Reply>,
    heard: Option<Instant>,
    copies: u64,
}

impl FlowServer {
    /// The end of the server over `session`, on which nothing was sent. `request_size_max` bounds the data of requests;
    /// large ones are put into `memory`.
    pub fn new(
        now: Instant,
        session: Session,
        way: Way,
        request_size_max: usize,
        memory: Memory,
    ) -> FlowServer {
        FlowServer {
            half: Half::new(now, session, way, memory),
            request_size_max,
            tid: None,
            state: State::Over,
            request: None,
            reply: None,
            heard: None,
            copies: 0,
        }
    }

    /// A datagram has come, at this time; it is opened in its place. False for what the other end did not seal.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &mut [u8]) -> bool {
        if let Some((tid, pieced)) = self.half.open_into_place(now, datagram, None) {
            self.heard = Some(now);
            self.handle_pieced(tid, pieced);
            return true;
        }
        let Some(content) = self.half.open(now, datagram) else { return false };
        self.heard = Some(now);
        match Datagram::parse(content) {
            Ok(Datagram::Packet { header, inner, data }) => {
                let message = inner.map(|inner| (inner, data));
                match (header.kind, message) {
                    (RpcKind::Request, Some((inner, data))) => {
                        if self.is_later(header.tid) {
                            let message = Message { header: inner, data: data.to_vec() };
                            self.accept(&header, message);
                        } else {
                            self.asked(header.tid, header.flags & rpc_flag::RETRANS != 0);
                        }
                    }
                    (RpcKind::Enquire, None) => self.enquired(header.tid),
                    (RpcKind::Ack, None) if header.flags & rpc_flag::REPLY != 0 => {
                        self.acknowledged(header.tid)
                    }
                    _ => {}
                }
            }
            Ok(Datagram::Pieces(pieces)) => {
                let tid = pieces.tid;
                if self.is_later(tid) || self.tid == Some(tid) {
                    let limit = if self.tid == Some(tid) { 0 } else { self.request_size_max };
                    let pieced = self.half.handle_pieces(now, &pieces, limit, None);
                    self.handle_pieced(tid, pieced);
                }
            }
            Ok(Datagram::Ack { tid, ack }) => {
                if self.tid == Some(tid) && self.half.handle_ack(now, tid, &ack) {
                    self.acknowledged(tid);
                }
            }
            Ok(Datagram::Ping { nonce }) => self.half.send(Small::Pong(nonce)),
            Ok(Datagram::Pong { .. }) | Err(_) => {}
        }
        true
    }

    /// The request that has come: which transaction it is, and what it says. It is then being executed.
    pub fn poll_request(&mut self) -> Option<(u32, Message)> {
        let request = self.request.take()?;
        Some((self.tid.expect("a request is of a transaction"), request))
    }

    /// Takes in the reply of transaction `tid`; what the client waits for no longer is dropped. A status in the range of
    /// the transaction layer, which only kernels may use, becomes RPC_REMOTERPC.
    pub fn reply(&mut self, tid: u32, reply: Message) {
        if self.is_executing(tid) {
            self.put_reply(tid, Reply::Own(reply).checked());
        }
    }

    /// As [`FlowServer::reply`], with data that others hold too; it is held until the client has gone on.
    pub fn reply_shared(&mut self, tid: u32, header: Header, data: Shared) {
        if self.is_executing(tid) {
            self.put_reply(tid, Reply::Shared(header, data).checked());
        }
    }

    /// Transaction `tid` was perhaps executed and will not be answered.
    pub fn fail(&mut self, tid: u32) {
        if self.is_executing(tid) {
            self.state = State::Over;
            self.control(RpcKind::Fail, 0, tid);
        }
    }

    /// Transaction `tid`, which [`FlowServer::poll_request`] gave, was certainly not executed and will not be.
    pub fn refuse(&mut self, tid: u32) {
        if self.is_executing(tid) {
            self.state = State::Refused;
            self.control(RpcKind::Nak, rpc_flag::REQUEST, tid);
        }
    }

    /// Whether transaction `tid` is being executed.
    pub fn is_executing(&self, tid: u32) -> bool {
        self.tid == Some(tid) && self.state == State::Accepted
    }

    /// Whether part of a large reply is not acknowledged yet.
    pub fn is_leaving(&self) -> bool {
        self.half.is_leaving()
    }

    /// Whether nothing is being executed, and no large message is on its way.
    pub fn is_idle(&self) -> bool {
        self.state != State::Accepted && !self.half.is_leaving()
    }

    /// When the client was last heard.
    pub fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// Copies of requests that came and were not executed.
    pub fn copies(&self) -> u64 {
        self.copies
    }

    /// Bytes of the reply that is kept.
    pub fn kept_size(&self) -> usize {
        self.reply.as_ref().map_or(0, |reply| reply.as_outgoing().1.len())
    }

    /// Time has passed. A client that takes nothing of a large reply for [`SILENT_MAX`] timeouts loses it.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.half.handle_timeout(now);
        if self.half.is_leaving() && self.half.silent() >= SILENT_MAX {
            self.drop_reply();
        }
    }

    /// When [`FlowServer::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.half.poll_timeout()
    }

    /// Appends sealed datagrams to `out`, at most `count_max`, all of the returned size but the last, which may be
    /// smaller.
    pub fn poll_transmit(&mut self, now: Instant, count_max: usize, out: &mut Vec<u8>) -> Option<usize> {
        self.half.poll_transmit(now, self.reply.as_ref().map(Reply::as_outgoing), count_max, out)
    }

    /// Bytes of pieces that are under way, and that may be.
    pub fn flight(&self) -> (usize, usize) {
        self.half.flight()
    }

    /// Pieces sent again so far.
    pub fn sent_again(&self) -> u64 {
        self.half.sent_again()
    }

    fn is_later(&self, tid: u32) -> bool {
        self.tid.is_none_or(|last| (tid.wrapping_sub(last) as i32) > 0)
    }

    fn accept(&mut self, header: &RpcHeader, mut message: Message) {
        self.drop_reply();
        self.half.stop_receiving();
        message.header.port = header.port;
        (self.tid, self.state) = (Some(header.tid), State::Accepted);
        if message.data.len() > self.request_size_max {
            return self.put_reply(header.tid, Reply::Own(Message::status(Status::STD_OVERFLOW)));
        }
        self.request = Some(message);
    }

    fn handle_pieced(&mut self, tid: u32, pieced: Pieced) {
        match pieced {
            Pieced::Part => {}
            Pieced::Whole(header, inner, Some(data), _)
                if header.kind == RpcKind::Request && header.tid == tid =>
            {
                self.accept(&header, Message { header: inner, data });
                self.control(RpcKind::Alive, 0, tid); // the client need not wait for its last pieces' ACK
            }
            Pieced::Whole(..) | Pieced::Unwanted => {
                if self.is_later(tid) {
                    self.drop_reply();
                    (self.tid, self.state) = (Some(tid), State::Accepted);
                    self.put_reply(tid, Reply::Own(Message::status(Status::STD_OVERFLOW)));
                }
            }
        }
    }

    /// A copy of a request, or a question about it. `again`: it was sent because nothing was heard.
    fn asked(&mut self, tid: u32, again: bool) {
        if self.tid != Some(tid) {
            return;
        }
        self.copies += 1;
        match self.state {
            State::Accepted if again => self.control(RpcKind::Alive, 0, tid),
            State::Replied if self.half.is_leaving() => self.control(RpcKind::Alive, 0, tid),
            State::Replied => self.send_reply(tid),
            State::Refused => self.control(RpcKind::Nak, rpc_flag::REQUEST, tid),
            State::Over => self.control(RpcKind::Fail, 0, tid),
            State::Accepted => {}
        }
    }

    fn enquired(&mut self, tid: u32) {
        if !self.is_later(tid) {
            return self.asked(tid, true);
        }
        if self.half.is_arriving(tid) {
            return self.control(RpcKind::Alive, 0, tid);
        }
        self.drop_reply();
        self.half.stop_receiving(); // of an older request: its last pieces must not make it the newest again
        (self.tid, self.state) = (Some(tid), State::Refused);
        self.control(RpcKind::Nak, rpc_flag::REQUEST, tid);
    }

    fn acknowledged(&mut self, tid: u32) {
        if self.tid == Some(tid) && self.state == State::Replied {
            self.drop_reply();
        }
    }

    fn put_reply(&mut self, tid: u32, reply: Reply) {
        self.state = State::Replied;
        self.reply = Some(reply);
        self.send_reply(tid);
    }

    fn send_reply(&mut self, tid: u32) {
        if let Some(reply) = &self.reply {
            self.half.send_message(rpc(RpcKind::Reply, 0, tid, None), reply.as_outgoing());
        }
    }

    /// The reply is not kept any more. The last transaction stays known.
    fn drop_reply(&mut self) {
        if self.state == State::Replied {
            self.state = State::Over;
        }
        self.half.stop_sending();
        self.reply = None;
    }

    fn control(&mut self, kind: RpcKind, flags: u8, tid: u32) {
        self.half.send(Small::Control(rpc(kind, flags, tid, None)));
    }
}
