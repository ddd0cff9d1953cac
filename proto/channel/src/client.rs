//! The client's end.
//!
//! ```text
//!          begin                reply announced            all of it here
//!   Idle ─────────▶ Sent ─────────────────────▶ Replying ─────────────────▶ Idle
//!     ▲              │ withdrawn, not taken        │ anything wrong
//!     └──────────────┘                             ▼
//!                                                 Over
//! ```

use amoeba_wire::Status;
use amoeba_world::Message;

use crate::head::Kind;
use crate::memory::{Own, Peer, Word};
use crate::side::Side;
use crate::stream::{CHUNK_SIZE, Incoming, Moved, Outgoing, is_about};
use crate::{Broken, DATA_SIZE_MAX};

/// What became of a step.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// No transaction is under way. After [`ClientEnd::withdraw`] has said [`Fate::MaybeTaken`]: the request was
    /// withdrawn in time after all, and is not executed.
    Idle,
    /// Nothing can be done before the server does something.
    Waiting,
    /// Some bytes were copied; there may be more to do.
    Progress,
    /// The transaction has ended with this reply.
    Reply(Message),
    /// The transaction has ended without reply: the request may have been executed.
    Failed,
    /// The server wrote what no server writes: the request may have been executed, and this channel is over.
    Broken(Broken),
    /// This channel is over.
    Over,
}

/// What happened to a request that its client does not wait for any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was certainly not executed, and never will be.
    NotTaken,
    /// It may have been executed, or will be.
    MaybeTaken,
}

/// How a transaction ended whose server is gone.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// With a reply that was complete.
    Reply(Message),
    /// Its request was certainly not executed.
    NotTaken,
    /// Its request may have been executed.
    MaybeTaken,
}

enum State {
    Idle,
    /// The request is on its way, or executed.
    Sent(Outgoing),
    Replying(Incoming),
    Over(Option<Broken>),
}

/// The client's end of a channel.
pub struct ClientEnd<O, P> {
    side: Side<O, P>,
    /// Of the last transaction; the first is 1.
    sequence: u64,
    request: Option<Message>,
    /// The last transaction has not ended yet.
    asked: bool,
    reply_size_max: usize,
    state: State,
}

impl<O: Own, P: Peer> ClientEnd<O, P> {
    /// An end over two fresh regions: mine, and the server's.
    pub fn new(own: O, peer: P) -> ClientEnd<O, P> {
        let side = Side::new(own, peer);
        ClientEnd { side, sequence: 0, request: None, asked: false, reply_size_max: 0, state: State::Idle }
    }

    /// Begins a transaction, and sends what one step takes. `reply_size_max` is the most bytes of data that the reply may
    /// have; in place of a larger one comes the status STD_OVERFLOW.
    ///
    /// # Errors
    /// The request, if this channel takes none: its last transaction has not ended, or not well.
    ///
    /// The request's command is no status and its data no larger than [`amoeba_wire::DATA_SIZE_MAX`]: who calls has
    /// answered RPC_COMBAD and RPC_BADADDRESS himself. Its port and its signature do not travel: they are the channel's.
    ///
    /// # Panics
    /// If the request is larger than [`amoeba_wire::DATA_SIZE_MAX`].
    pub fn begin(&mut self, request: Message, reply_size_max: usize) -> Result<(), Message> {
        if !matches!(self.state, State::Idle) {
            return Err(request);
        }
        self.sequence += 1;
        self.reply_size_max = reply_size_max.min(DATA_SIZE_MAX);
        let bound = self.reply_size_max as u64;
        let outgoing = Outgoing::begin(
            &mut self.side,
            self.sequence,
            Kind::Request,
            bound,
            (request.header, &request.data),
        );
        self.state = State::Sent(outgoing);
        self.request = Some(request);
        self.asked = true;
        Ok(())
    }

    /// Whether [`ClientEnd::begin`] would begin a transaction.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle)
    }

    /// Does what can be done, up to [`CHUNK_SIZE`] bytes each way.
    pub fn step(&mut self) -> Step {
        match self.advance() {
            Ok(step) => step,
            Err(broken) => {
                self.asked = false;
                self.state = State::Over(Some(broken));
                Step::Broken(broken)
            }
        }
    }

    /// Whether the peer's bell must be rung. To be asked after [`ClientEnd::begin`] and after every step.
    pub fn bell(&mut self) -> bool {
        self.side.bell()
    }

    /// Says that this client sleeps. True if there is still nothing to do, so that it may; its bell then wakes it.
    pub fn before_sleep(&mut self) -> bool {
        self.side.say_asleep();
        !self.is_ready()
    }

    /// Says that this client is awake again.
    pub fn after_sleep(&mut self) {
        self.side.say_awake();
    }

    /// Whether a step would do anything. Cheap: a load or two.
    pub fn is_ready(&self) -> bool {
        match &self.state {
            State::Idle | State::Over(_) => true,
            State::Sent(outgoing) => {
                is_about(&self.side.peer, self.sequence) || outgoing.is_ready(&self.side)
            }
            State::Replying(incoming) => incoming.is_ready(&self.side),
        }
    }

    /// Whether the server says that it has taken the request: no bell needs to be rung for that any more.
    pub fn is_taken(&self) -> bool {
        self.asked && self.side.peer.load(Word::Taken) == self.sequence
    }

    /// Whether the server has begun to read a request that is larger than the ring.
    pub fn is_being_read(&self) -> bool {
        matches!(&self.state, State::Sent(outgoing) if outgoing.is_being_read())
    }

    /// Takes the request back. [`Fate::NotTaken`]: it is certainly not executed, and the next may begin;
    /// [`Fate::MaybeTaken`]: the transaction goes on, for those who want to wait after all.
    pub fn withdraw(&mut self) -> Fate {
        if let State::Over(Some(_)) = self.state {
            return Fate::MaybeTaken; // whatever this server says
        }
        if !self.asked {
            return Fate::NotTaken;
        }
        self.side.own.store(Word::Withdrawn, self.sequence);
        // The server stores `Taken`, then looks at `Withdrawn`; this does the reverse. One of the two sees the other.
        self.side.own.fence();
        if self.side.peer.load(Word::Taken) == self.sequence {
            return Fate::MaybeTaken;
        }
        self.asked = false;
        self.state = State::Idle;
        Fate::NotTaken
    }

    /// The server is gone, or no longer serves this channel: what is complete is delivered, the rest is over.
    pub fn peer_gone(&mut self) -> End {
        let steps_max = self.side.peer.ring_size() / CHUNK_SIZE + 2; // a ring full, whatever the peer still does
        for _ in 0..steps_max {
            match self.step() {
                Step::Reply(reply) => return End::Reply(reply),
                Step::Failed => return End::MaybeTaken,
                Step::Progress => {}
                Step::Idle => {
                    self.state = State::Over(None);
                    return End::NotTaken;
                }
                Step::Waiting | Step::Broken(_) | Step::Over => break,
            }
        }
        let fate = self.withdraw();
        self.asked = false;
        self.state = State::Over(None);
        match fate {
            Fate::NotTaken => End::NotTaken,
            Fate::MaybeTaken => End::MaybeTaken,
        }
    }

    /// The request of the last transaction, as it was given; `None` while it is still under way.
    pub fn take_request(&mut self) -> Option<Message> {
        if self.asked { None } else { self.request.take() }
    }

    fn advance(&mut self) -> Result<Step, Broken> {
        match &mut self.state {
            State::Idle => Ok(Step::Idle),
            State::Over(None) => Ok(Step::Over),
            State::Over(Some(broken)) => Err(*broken),
            State::Sent(outgoing) => {
                if is_about(&self.side.peer, self.sequence) {
                    return self.begin_reply();
                }
                let request = self.request.as_ref().expect("a request that is being sent is kept");
                let was_done = outgoing.is_done();
                Ok(match outgoing.step(&mut self.side, &request.data)? {
                    Moved::All if was_done => Step::Waiting,
                    Moved::All | Moved::Some => Step::Progress,
                    Moved::Nothing => Step::Waiting,
                })
            }
            State::Replying(_) => self.receive(),
        }
    }

    fn begin_reply(&mut self) -> Result<Step, Broken> {
        let incoming = Incoming::begin(&self.side, self.sequence)?;
        let head = incoming.head();
        match head.kind {
            Kind::Failure => {
                self.asked = false;
                self.state = State::Idle;
                return Ok(Step::Failed);
            }
            Kind::Withdrawn if self.side.own.load(Word::Withdrawn) == self.sequence => {
                self.asked = false;
                self.state = State::Idle;
                return Ok(Step::Idle);
            }
            Kind::Request | Kind::Withdrawn => return Err(Broken::Kind),
            Kind::Reply if head.size as usize > self.reply_size_max => return Err(Broken::Size),
            Kind::Reply => self.state = State::Replying(incoming),
        }
        self.receive()
    }

    fn receive(&mut self) -> Result<Step, Broken> {
        let State::Replying(incoming) = &mut self.state else { return Ok(Step::Idle) };
        match incoming.step(&mut self.side)? {
            Moved::Nothing => Ok(Step::Waiting),
            Moved::Some => Ok(Step::Progress),
            Moved::All => {
                let mut reply = incoming.take_message();
                if reply.header.status().is_rpc() {
                    reply = Message::status(Status::RPC_REMOTERPC); // what only kernels may say
                }
                self.asked = false;
                self.state = State::Idle;
                Ok(Step::Reply(reply))
            }
        }
    }
}
