//! The server's end.
//!
//! ```text
//!           announced                all of it here, and not withdrawn       reply
//!   Idle ─────────────▶ Receiving ───────────────────────────────────▶ Taken ─────▶ Replying ──▶ Idle
//!     ▲                    │ too large: STD_OVERFLOW in its stead, or withdrawn         all of it sent
//!     └────────────────────┘
//! ```
//! Taking a request and sending its reply are calls of their own, so that different threads can make them.

use std::ops::Deref;

use amoeba_cap::PutPort;
use amoeba_wire::{Command, Header, Status};
use amoeba_world::{Message, Shared};

use crate::head::Kind;
use crate::memory::{Own, Peer, Word};
use crate::side::Side;
use crate::stream::{Incoming, Moved, Outgoing, is_about};
use crate::{Broken, DATA_SIZE_MAX};

/// What became of looking for a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Receiving {
    /// There is none, or nothing more of it yet.
    Waiting,
    /// Some bytes were copied, or a request was refused or withdrawn; there may be more to do.
    Progress,
    /// This request is taken: it must be executed, and answered with [`ServerEnd::reply`] or [`ServerEnd::fail`].
    Request(Message),
    /// The request taken before has not been answered yet.
    Busy,
    /// The client wrote what no client writes: this channel is over.
    Over(Broken),
}

/// What became of a step of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sending {
    /// All of it is in the ring, and the next request may come.
    Done,
    /// Some bytes were copied; there may be more to do.
    Progress,
    /// Nothing can be done before the client does something.
    Waiting,
    /// The client wrote what no client writes: this channel is over.
    Over(Broken),
}

/// What a channel was introduced for. Its client has no say in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The port that every request is for.
    pub port: PutPort,
    /// What every request is signed with; null for nothing.
    pub signature: PutPort,
    /// Requests of more bytes of data are answered STD_OVERFLOW.
    pub request_size_max: usize,
}

enum State {
    Idle,
    Receiving(Incoming),
    /// A request is being executed whose reply may have so many bytes.
    Taken {
        reply_size_max: usize,
    },
    Replying(Outgoing, Data),
    Over(Broken),
}

/// The data of a reply that is not all sent.
enum Data {
    Own(Vec<u8>),
    /// Others hold it too.
    Shared(Shared),
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Data::Own(bytes) => bytes,
            Data::Shared(bytes) => bytes,
        }
    }
}

/// The server's end of a channel.
pub struct ServerEnd<O, P> {
    side: Side<O, P>,
    /// Of the last request that was dealt with, or is.
    sequence: u64,
    service: Service,
    state: State,
}

impl<O: Own, P: Peer> ServerEnd<O, P> {
    /// An end over two fresh regions, mine and the client's.
    pub fn new(own: O, peer: P, service: Service) -> ServerEnd<O, P> {
        ServerEnd { side: Side::new(own, peer), sequence: 0, service, state: State::Idle }
    }

    /// Whether nothing is under way: neither a request, nor its execution, nor its reply.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Whether a reply is on its way that is not all sent.
    pub fn is_replying(&self) -> bool {
        matches!(self.state, State::Replying(..))
    }

    /// Whether [`ServerEnd::receive`] would do anything. Cheap: one load; always false while a request is executed.
    pub fn has_request(&self) -> bool {
        match &self.state {
            State::Idle => !is_about(&self.side.peer, self.sequence),
            State::Receiving(incoming) => incoming.is_ready(&self.side),
            State::Taken { .. } | State::Replying(..) => false,
            State::Over(_) => true,
        }
    }

    /// Looks for a request, and copies up to [`crate::CHUNK_SIZE`] bytes of it.
    pub fn receive(&mut self) -> Receiving {
        match self.advance() {
            Ok(receiving) => receiving,
            // What was withdrawn may be in any state: its client is free to write over it.
            Err(_) if self.skip_withdrawn() => Receiving::Progress,
            Err(broken) => {
                self.state = State::Over(broken);
                Receiving::Over(broken)
            }
        }
    }

    /// Begins the reply to the request that was taken, and sends what one step takes. More than the client takes becomes
    /// STD_OVERFLOW.
    ///
    /// # Panics
    /// If no request is taken, or the reply is larger than [`amoeba_wire::DATA_SIZE_MAX`].
    pub fn reply(&mut self, reply: Message) -> Sending {
        self.answer(reply.header, Data::Own(reply.data))
    }

    /// As [`ServerEnd::reply`], with data that others hold too: it is copied into the ring and nowhere else.
    ///
    /// # Panics
    /// As [`ServerEnd::reply`].
    pub fn reply_shared(&mut self, header: Header, data: Shared) -> Sending {
        self.answer(header, Data::Shared(data))
    }

    fn answer(&mut self, header: Header, data: Data) -> Sending {
        let reply_size_max = match self.state {
            State::Taken { reply_size_max } => reply_size_max,
            State::Over(why) => return Sending::Over(why),
            _ => panic!("a reply without a request"),
        };
        if data.len() > reply_size_max {
            return self.send_status(Kind::Reply, Status::STD_OVERFLOW);
        }
        self.send(Kind::Reply, header, data)
    }

    /// Tells the client that no reply will come: its request may have been executed.
    ///
    /// # Panics
    /// If no request is taken.
    pub fn fail(&mut self) -> Sending {
        match self.state {
            State::Taken { .. } => self.send_status(Kind::Failure, Status::RPC_FAILURE),
            State::Over(why) => Sending::Over(why),
            _ => panic!("a failure without a request"),
        }
    }

    /// Sends more of the reply, up to [`crate::CHUNK_SIZE`] bytes.
    pub fn step(&mut self) -> Sending {
        let State::Replying(outgoing, data) = &mut self.state else {
            return match self.state {
                State::Over(why) => Sending::Over(why),
                _ => Sending::Done,
            };
        };
        match outgoing.step(&mut self.side, data) {
            Ok(Moved::All) => {
                self.state = State::Idle;
                Sending::Done
            }
            Ok(Moved::Some) => Sending::Progress,
            Ok(Moved::Nothing) => Sending::Waiting,
            Err(broken) => {
                self.state = State::Over(broken);
                Sending::Over(broken)
            }
        }
    }

    /// Whether the peer's bell must be rung. To be asked after every call of [`ServerEnd::receive`],
    /// [`ServerEnd::reply`], [`ServerEnd::fail`] and [`ServerEnd::step`].
    pub fn bell(&mut self) -> bool {
        self.side.bell()
    }

    /// Says that this server sleeps as far as this channel is concerned. True if there is still nothing to do, so that it
    /// may; its bell then wakes it. A channel can stay asleep while others are served, and need not be looked at before
    /// its bell rings.
    pub fn before_sleep(&mut self) -> bool {
        self.side.say_asleep();
        !self.is_ready()
    }

    /// Says that this server is awake again.
    pub fn after_sleep(&mut self) {
        self.side.say_awake();
    }

    /// Whether [`ServerEnd::receive`] or [`ServerEnd::step`] would do anything, whichever is to be called.
    pub fn is_ready(&self) -> bool {
        match &self.state {
            State::Replying(outgoing, _) => outgoing.is_done() || outgoing.is_ready(&self.side),
            _ => self.has_request(),
        }
    }

    /// Bytes that the request on its way in has been given.
    #[cfg(test)]
    pub(crate) fn reserved(&self) -> usize {
        if let State::Receiving(incoming) = &self.state { incoming.reserved() } else { 0 }
    }

    /// Whether the request `sequence` is dealt with.
    #[cfg(test)]
    pub(crate) fn is_answered(&self, sequence: u64) -> bool {
        self.sequence == sequence && matches!(self.state, State::Idle)
    }

    fn advance(&mut self) -> Result<Receiving, Broken> {
        match self.state {
            State::Idle if is_about(&self.side.peer, self.sequence) => Ok(Receiving::Waiting),
            State::Idle if is_about(&self.side.peer, self.sequence + 1) => self.begin(),
            State::Idle => Err(Broken::Sequence),
            State::Receiving(_) => self.go_on(),
            State::Taken { .. } | State::Replying(..) => Ok(Receiving::Busy),
            State::Over(why) => Ok(Receiving::Over(why)),
        }
    }

    /// Forgets the requests that were withdrawn, up to the last one; false if none was since the last that was dealt
    /// with.
    fn skip_withdrawn(&mut self) -> bool {
        self.side.own.fence(); // behind every byte that was read
        let withdrawn = self.side.peer.load(Word::Withdrawn);
        let dealt_with = match self.state {
            State::Receiving(_) => self.sequence - 1,
            _ => self.sequence,
        };
        if withdrawn <= dealt_with || withdrawn == u64::MAX {
            return false;
        }
        self.sequence = withdrawn;
        self.state = State::Idle;
        true
    }

    fn begin(&mut self) -> Result<Receiving, Broken> {
        let incoming = Incoming::begin(&self.side, self.sequence + 1)?;
        if incoming.head().kind != Kind::Request {
            return Err(Broken::Kind);
        }
        let Command(command) = incoming.head().header.command();
        if (command as i16) < 0 {
            return Err(Broken::Command);
        }
        self.sequence += 1;
        if incoming.head().size as usize > self.service.request_size_max {
            self.send_status(Kind::Reply, Status::STD_OVERFLOW);
            return Ok(Receiving::Progress);
        }
        self.state = State::Receiving(incoming);
        self.go_on()
    }

    fn go_on(&mut self) -> Result<Receiving, Broken> {
        let State::Receiving(incoming) = &mut self.state else { return Ok(Receiving::Waiting) };
        match incoming.step(&mut self.side)? {
            Moved::Nothing => Ok(Receiving::Waiting),
            Moved::Some => Ok(Receiving::Progress),
            Moved::All => {
                let mut request = incoming.take_message();
                request.header.port = self.service.port;
                request.header.signature = self.service.signature;
                let reply_size_max = incoming.head().reply_size_max.min(DATA_SIZE_MAX as u64) as usize;
                Ok(self.take(request, reply_size_max))
            }
        }
    }

    /// All of the request is here: it is taken, unless it was withdrawn.
    fn take(&mut self, request: Message, reply_size_max: usize) -> Receiving {
        self.side.own.store(Word::Taken, self.sequence);
        // The client stores `Withdrawn`, then looks at `Taken`; this does the reverse. One of the two sees the other.
        self.side.own.fence();
        if self.side.peer.load(Word::Withdrawn) >= self.sequence {
            // The client may have seen that it was taken, and wait for what becomes of it.
            self.send_status(Kind::Withdrawn, Status::RPC_NOTFOUND);
            return Receiving::Progress;
        }
        self.state = State::Taken { reply_size_max };
        Receiving::Request(request)
    }

    fn send_status(&mut self, kind: Kind, status: Status) -> Sending {
        self.send(kind, Header::reply(status), Data::Own(Vec::new()))
    }

    fn send(&mut self, kind: Kind, header: Header, data: Data) -> Sending {
        let outgoing = Outgoing::begin(&mut self.side, self.sequence, kind, 0, (header, &data));
        if outgoing.is_done() {
            self.state = State::Idle;
            return Sending::Done;
        }
        self.state = State::Replying(outgoing, data);
        Sending::Progress
    }
}
