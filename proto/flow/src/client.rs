//! The client's end: one transaction at a time.
//!
//! ```text
//!          begin                 ALIVE, ACK of every piece
//!   Idle ─────────► Waiting ───────────────────────────────► Waiting, acknowledged
//!    ▲                │ REPLY, FAIL, NAK, silence               │ REPLY, FAIL, silence
//!    └────────────────┴─────────────────────────────────────────┘
//! ```

use std::time::Duration;

use amoeba_rpc::{ENQUIRE_INTERVAL, ENQUIRES_MAX};
use amoeba_seal::Session;
use amoeba_threads::Instant;
use amoeba_wire::packet::{RpcHeader, RpcKind, rpc_flag};
use amoeba_wire::{Header, Status};
use amoeba_world::{Error, Message};

use crate::datagram::Datagram;
use crate::half::{Half, Pieced, Small, rpc};
use crate::{ASK_FIRST, ASK_MAX, ASKS_MAX, Memory, SILENT_MAX, Way};

/// See the module.
pub struct FlowClient {
    half: Half,
    /// The last transaction.
    tid: u32,
    request: Option<Message>,
    reply_size_max: usize,
    waiting: Option<Waiting>,
    result: Option<Result<Message, Error>>,
    /// Bytes of the reply that are in the posted buffer.
    posted_size: usize,
    /// The PING that was sent last, and whether it was answered.
    ping: (u64, bool),
}

#[derive(Clone, Copy)]
struct Waiting {
    /// The server has said that it has the request.
    acknowledged: bool,
    /// Questions that stayed unanswered.
    asked: u32,
    next: Instant,
}

impl FlowClient {
    /// The end of the client over `session`, on which nothing was sent. Large replies are put into `memory`.
    pub fn new(now: Instant, session: Session, way: Way, memory: Memory) -> FlowClient {
        FlowClient {
            half: Half::new(now, session, way, memory),
            tid: 0,
            request: None,
            reply_size_max: 0,
            waiting: None,
            result: None,
            posted_size: 0,
            ping: (0, false),
        }
    }

    /// Asks whether the flow is open.
    pub fn ping(&mut self) {
        self.ping = (self.ping.0 + 1, false);
        self.half.send(Small::Ping(self.ping.0));
    }

    /// Whether the last [`FlowClient::ping`] was answered.
    pub fn is_open(&self) -> bool {
        self.ping.1
    }

    /// Begins a transaction, the only one until [`FlowClient::poll_result`] has given its result.
    pub fn begin(&mut self, now: Instant, request: Message, reply_size_max: usize) {
        assert!(self.waiting.is_none(), "a flow carries one transaction at a time");
        self.tid = self.tid.wrapping_add(1);
        self.reply_size_max = reply_size_max;
        self.posted_size = 0;
        let header = rpc(RpcKind::Request, 0, self.tid, Some(&request.header));
        self.half.send_message(header, (&request.header, &request.data));
        self.request = Some(request);
        self.result = None;
        self.waiting = Some(Waiting { acknowledged: false, asked: 0, next: now + ASK_FIRST });
    }

    /// The request of the last transaction, as it was given.
    pub fn take_request(&mut self) -> Option<Message> {
        self.half.stop_sending();
        self.request.take()
    }

    /// How the transaction has ended.
    pub fn poll_result(&mut self) -> Option<Result<Message, Error>> {
        self.result.take()
    }

    /// What the client hears when it waits no longer, or the flow is revoked. The flow is of no more use then, for the
    /// server may still be executing: drop it.
    pub fn give_up(&mut self) -> Error {
        self.waiting = None;
        self.result = None;
        match self.half.has_unsent() {
            true => Error::NotSent(Status::RPC_NOTFOUND),
            false => Error::MaybeExecuted(Status::RPC_FAILURE),
        }
    }

    /// A datagram has come, at this time; it is opened in its place. False for what the other end did not seal. Where a
    /// buffer is `posted`, the same in each call during a transaction, the data of a reply is put there and
    /// [`FlowClient::posted_size`] says how much; the result is then without data.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        datagram: &mut [u8],
        mut posted: Option<&mut [u8]>,
    ) -> bool {
        if let Some((_, pieced)) = self.half.open_into_place(now, datagram, posted.as_deref_mut()) {
            self.heard(now, true); // what arrives is of the transaction that waits
            self.handle_pieced(pieced);
            return true;
        }
        // What `open` gives borrows the datagram alone, so that this end is free to work on it.
        let Some(content) = self.half.open(now, datagram) else { return false };
        match Datagram::parse(content) {
            Ok(Datagram::Packet { header, inner, data }) => {
                self.handle_packet(now, &header, inner.map(|inner| (inner, data)), posted);
            }
            Ok(Datagram::Pieces(pieces)) => {
                if pieces.tid == self.tid {
                    self.heard(now, true);
                    let limit = if self.waiting.is_some() { self.reply_size_max } else { 0 };
                    let pieced = self.half.handle_pieces(now, &pieces, limit, posted);
                    self.handle_pieced(pieced);
                }
            }
            Ok(Datagram::Ack { tid, ack }) => {
                if tid == self.tid {
                    let all = self.half.handle_ack(now, tid, &ack);
                    self.heard(now, all);
                }
            }
            Ok(Datagram::Pong { nonce }) => self.ping.1 |= nonce == self.ping.0,
            Ok(Datagram::Ping { nonce }) => self.half.send(Small::Pong(nonce)),
            Err(_) => {}
        }
        true
    }

    /// Bytes of the last reply's data that are in the posted buffer.
    pub fn posted_size(&self) -> usize {
        self.posted_size
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.half.handle_timeout(now);
        let Some(waiting) = self.waiting else { return };
        if self.half.is_leaving() {
            if self.half.silent() >= SILENT_MAX {
                self.end(Err(self.silence()));
            }
            return;
        }
        if now < waiting.next {
            return;
        }
        let most = if waiting.acknowledged { ENQUIRES_MAX } else { ASKS_MAX };
        if waiting.asked >= most {
            return self.end(Err(self.silence()));
        }
        let asked = waiting.asked + 1;
        let pause = match waiting.acknowledged {
            true => ENQUIRE_INTERVAL,
            false => (ASK_FIRST * (1 << asked.min(10))).min(ASK_MAX),
        };
        self.waiting = Some(Waiting { asked, next: now + pause, ..waiting });
        // The server knows every copy by its identifier, so the request itself is the best question.
        match &self.request {
            Some(request)
                if !waiting.acknowledged
                    && crate::datagram::is_small(request.data.len(), self.half.size_max()) =>
            {
                let header = rpc(RpcKind::Request, rpc_flag::RETRANS, self.tid, Some(&request.header));
                self.half.send(Small::Message(header));
            }
            _ => self.half.send(Small::Control(rpc(RpcKind::Enquire, 0, self.tid, None))),
        }
    }

    /// When [`FlowClient::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let question = self.waiting.filter(|_| !self.half.is_leaving()).map(|waiting| waiting.next);
        [question, self.half.poll_timeout()].into_iter().flatten().min()
    }

    /// Appends sealed datagrams to `out`, at most `count_max`, all of the returned size but the last, which may be
    /// smaller.
    pub fn poll_transmit(&mut self, now: Instant, count_max: usize, out: &mut Vec<u8>) -> Option<usize> {
        let message = self.request.as_ref().map(|request| (&request.header, &request.data[..]));
        self.half.poll_transmit(now, message, count_max, out)
    }

    /// Bytes of pieces that are under way, and that may be.
    pub fn flight(&self) -> (usize, usize) {
        self.half.flight()
    }

    /// Pieces sent again so far.
    pub fn sent_again(&self) -> u64 {
        self.half.sent_again()
    }

    fn handle_packet(
        &mut self,
        now: Instant,
        header: &RpcHeader,
        message: Option<(Header, &[u8])>,
        posted: Option<&mut [u8]>,
    ) {
        if header.tid != self.tid || self.waiting.is_none() {
            return;
        }
        match (header.kind, message) {
            (RpcKind::Reply, Some((inner, data))) => match posted {
                None => self.replied(inner, Some(data.to_vec()), data.len()),
                Some(posted) => {
                    let place = posted.get_mut(..data.len());
                    let size = if place.is_some() { data.len() } else { usize::MAX };
                    if let Some(place) = place {
                        place.copy_from_slice(data);
                    }
                    self.replied(inner, None, size);
                }
            },
            (RpcKind::Alive, None) => self.heard(now, true),
            (RpcKind::Nak, None) => self.end(Err(Error::NotSent(Status::RPC_TRYAGAIN))),
            (RpcKind::Fail, None) => self.end(Err(Error::MaybeExecuted(Status::RPC_FAILURE))),
            _ => {}
        }
    }

    fn handle_pieced(&mut self, pieced: Pieced) {
        match pieced {
            Pieced::Part => {}
            Pieced::Whole(header, inner, data, size)
                if header.kind == RpcKind::Reply && header.tid == self.tid =>
            {
                self.replied(inner, data, size);
                self.acknowledge();
            }
            Pieced::Whole(..) | Pieced::Unwanted => {
                self.replied(Header::reply(Status::STD_OVERFLOW), None, 0);
                self.acknowledge();
            }
        }
    }

    /// The server lives; `has_request`: and has the request.
    fn heard(&mut self, now: Instant, has_request: bool) {
        if let Some(waiting) = &mut self.waiting {
            waiting.asked = 0;
            waiting.acknowledged |= has_request;
            let pause = if waiting.acknowledged { ENQUIRE_INTERVAL } else { ASK_FIRST };
            waiting.next = now + pause;
        }
        if has_request {
            self.half.stop_sending();
        }
    }

    /// A reply with `size` bytes of data, which are in the posted buffer unless they are here.
    fn replied(&mut self, header: Header, data: Option<Vec<u8>>, size: usize) {
        if self.waiting.is_none() {
            return;
        }
        if size > self.reply_size_max {
            return self.end(Ok(Message::status(Status::STD_OVERFLOW)));
        }
        self.posted_size = if data.is_none() { size } else { 0 };
        self.end(Ok(Message { header, data: data.unwrap_or_default() }));
    }

    /// Tells the server that a large reply need not be kept.
    fn acknowledge(&mut self) {
        self.half.send(Small::Control(rpc(RpcKind::Ack, rpc_flag::REPLY, self.tid, None)));
    }

    fn end(&mut self, result: Result<Message, Error>) {
        self.waiting = None;
        self.half.stop_sending();
        self.half.stop_receiving();
        self.result = Some(result);
    }

    fn silence(&self) -> Error {
        match self.half.has_unsent() {
            true => Error::NotSent(Status::RPC_NOTFOUND),
            false => Error::MaybeExecuted(Status::RPC_FAILURE),
        }
    }
}

/// The longest that a client waits on a flow over which nothing comes any more, whatever it was doing.
pub const SILENCE_MAX: Duration = Duration::from_secs(7);
