//! The server's side of one channel, at the desk of its listener or on its way with a request that is executed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use amoeba_channel::{Receiving, Sending, ServerEnd};
use amoeba_threads::Instant;
use amoeba_wire::{DATA_SIZE_MAX, Header, Status};
use amoeba_world::{Caller, Message, PutReply, Shared};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::desk::Desk;
use super::{Client, Inner};
use crate::channel::bell::{Ear, Heard, Rope};
use crate::channel::region::{OwnRegion, PeerRegion};
use crate::fork::Origin;
use crate::look::{Look, Next};
use crate::socket::ToKernel;
use crate::threads::now;

/// How long a thread waits in one piece for a client to take more of a reply; then the rest is left to the desk.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long a thread sends one reply in all, before the rest is left to the desk.
const REPLY_TIME_MAX: Duration = Duration::from_secs(2);
/// How long a client may take nothing of a reply when there is no desk any more.
const STALL_TIME: Duration = Duration::from_secs(5);

/// How long a listener that closes waits for clients to take their replies, before a thread goes on with the rest.
const LINGER: Duration = Duration::from_millis(500);
/// How long that waits when no client has taken anything.
const LINGER_PAUSE: Duration = Duration::from_millis(1);

/// What is heard of a channel, wherever its end is.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) ear: Ear,
    /// A thread waits on the ear itself, so that the desk leaves it alone.
    out: AtomicBool,
    /// The channel is over.
    over: AtomicBool,
}

impl Line {
    pub(super) fn new(ear: Ear) -> Line {
        Line { ear, out: AtomicBool::new(false), over: AtomicBool::new(false) }
    }

    /// Listens for the desk; whether the channel is over.
    pub(super) fn hear(&self) -> bool {
        if !self.out.load(Ordering::Acquire) && self.ear.hear() == Heard::Over {
            self.set_over();
        }
        self.is_over()
    }

    pub(super) fn set_over(&self) {
        self.over.store(true, Ordering::Release);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// See the module.
pub(super) struct Served {
    pub(super) id: u64,
    /// The session it was made in.
    pub(super) session: u64,
    pub(super) end: ServerEnd<OwnRegion, PeerRegion>,
    pub(super) line: Arc<Line>,
    pub(super) rope: Rope,
    pub(super) caller: Caller,
    /// A child that was forked has no duty to answer.
    pub(super) origin: Origin,
    pub(super) desk: Weak<Desk>,
    pub(super) client: Weak<Inner>,
    /// The desk's time of the last use.
    pub(super) used: u64,
    /// The desk's round in which it last had its turn.
    pub(super) round: u64,
    /// When the desk gave away the request that is executed.
    pub(super) since: Option<Instant>,
}

/// What came of receiving.
pub(super) enum Received {
    /// A whole request.
    Request(Message),
    /// Nothing more for now.
    Nothing,
    /// The channel is over.
    Over,
}

impl Served {
    pub(super) fn ring(&mut self) {
        if self.end.bell() {
            self.rope.ring();
        }
    }

    /// Does one step of what there is to do; `None` after some progress.
    pub(super) fn step(&mut self) -> Option<Received> {
        let step = match self.end.receive() {
            Receiving::Request(request) => Some(Received::Request(request)),
            Receiving::Progress => None,
            Receiving::Waiting => Some(Received::Nothing),
            Receiving::Busy => match self.end.step() {
                Sending::Progress => None,
                Sending::Done | Sending::Waiting => Some(Received::Nothing),
                Sending::Over(_) => Some(Received::Over),
            },
            Receiving::Over(_) => Some(Received::Over),
        };
        self.ring();
        step
    }

    /// Receives on, or sends on, as long as the client keeps up.
    pub(super) fn pump(&mut self) -> Received {
        let mut look = Look::default();
        loop {
            match self.step() {
                None => look.found(),
                Some(Received::Nothing) => {
                    if let Next::Sleep(_) = look.again() {
                        return Received::Nothing;
                    }
                }
                Some(done) => return done,
            }
        }
    }

    /// Sends a reply; false when the channel is over. What its client does not take in time is left unfinished, unless
    /// this is the last that is sent.
    fn send(&mut self, first: Sending, last: bool) -> bool {
        let patience = if last { STALL_TIME } else { PATIENCE };
        let mut sending = first;
        let mut began: Option<Instant> = None;
        let mut waiting: Option<Instant> = None;
        let mut look = Look::default();
        self.line.out.store(true, Ordering::Release);
        let alive = loop {
            self.ring();
            match sending {
                Sending::Done => break true,
                Sending::Over(_) => break false,
                Sending::Progress => {
                    waiting = None;
                    look.found();
                }
                Sending::Waiting => {
                    let at = now();
                    let waited = at.since(*waiting.get_or_insert(at));
                    let sent = at.since(*began.get_or_insert(at));
                    if waited >= patience || (sent >= REPLY_TIME_MAX && !last) {
                        break !last;
                    }
                    if let Next::Sleep(_) = look.again() {
                        let alive = self.sleep(patience - waited);
                        look.slept();
                        if !alive {
                            break false;
                        }
                    }
                }
            }
            sending = self.end.step();
        };
        self.line.out.store(false, Ordering::Release);
        alive && !self.line.is_over()
    }

    /// Waits for the client to take something; false when the channel is over.
    fn sleep(&mut self, time: Duration) -> bool {
        let mut alive = true;
        if self.end.before_sleep() {
            let timeout = Timespec::try_from(time).ok();
            // A wait that a signal ends is one that ends early.
            if let Ok(1..) = poll(&mut [PollFd::new(&self.line.ear, PollFlags::IN)], timeout.as_ref()) {
                alive = self.line.ear.hear() != Heard::Over;
            }
        }
        self.end.after_sleep();
        alive && !self.line.is_over()
    }

    fn finish(mut self: Box<Self>, first: Sending) {
        let desk = self.desk.upgrade().filter(|desk| !desk.is_closed());
        let alive = self.send(first, desk.is_none());
        match desk {
            Some(desk) if alive => {
                if let Err(served) = desk.give_back(self) {
                    linger(vec![served]); // the listener was closed meanwhile
                }
            }
            _ => self.over(),
        }
    }

    /// The channel is over, and not at the desk: the kernel is told, so that the client hears of it.
    pub(super) fn over(&self) {
        if self.desk.upgrade().is_some_and(|desk| desk.end(self)) {
            return;
        }
        // A session that is over has ended its channels.
        let Some(client) = self.client.upgrade().map(Client) else { return };
        if let Ok(session) = client.session()
            && session.number == self.session
        {
            let _ = session.control(&ToKernel::Close { channel: self.id });
        }
    }
}

/// Finishes what a listener that was closed has begun to send, and tells the kernel of each channel that is over. A client
/// that takes nothing is cut off; the others do not wait for it.
#[expect(clippy::vec_box, reason = "they are moved about as they are")]
pub(super) fn linger(replies: Vec<Box<Served>>) {
    let left = finish_replies(replies, Some(now() + LINGER));
    if left.is_empty() {
        return;
    }
    let thread = std::thread::Builder::new().name("replies".to_owned());
    if let Err(error) = thread.spawn(move || finish_replies(left, None)) {
        tracing::warn!("replies are left unfinished: {error}");
    }
}

/// Sends replies until the given time; those that are not finished then.
#[expect(clippy::vec_box, reason = "they are moved about as they are")]
fn finish_replies(replies: Vec<Box<Served>>, until: Option<Instant>) -> Vec<Box<Served>> {
    let began = now();
    let mut replies: Vec<_> = replies.into_iter().map(|served| (served, began)).collect();
    loop {
        let at = now();
        let mut moved = false;
        replies.retain_mut(|(served, progress)| {
            let keep = served.end.is_replying() && !served.line.hear() && at.since(*progress) < STALL_TIME;
            if !keep {
                served.over();
            } else if served.step().is_none() {
                (moved, *progress) = (true, at);
            }
            keep
        });
        if replies.is_empty() || until.is_some_and(|until| until <= at) {
            return replies.into_iter().map(|(served, _)| served).collect();
        }
        if !moved {
            std::thread::sleep(LINGER_PAUSE);
        }
    }
}

impl PutReply for Served {
    fn putrep(mut self: Box<Self>, mut reply: Message) {
        if !self.origin.is_here() {
            return;
        }
        if reply.header.status().is_rpc() {
            reply = Message::status(Status::RPC_REMOTERPC); // such statuses are for kernels alone to give
        } else if reply.data.len() > DATA_SIZE_MAX {
            reply = Message::status(Status::STD_OVERFLOW);
        }
        let first = self.end.reply(reply);
        self.finish(first);
    }

    fn putrep_shared(mut self: Box<Self>, header: Header, data: Shared) {
        if !self.origin.is_here() {
            return;
        }
        if header.status().is_rpc() || data.len() > DATA_SIZE_MAX {
            return self.putrep(Message { header, data: data.to_vec() }); // which refuses it
        }
        let first = self.end.reply_shared(header, data);
        self.finish(first);
    }

    fn fail(mut self: Box<Self>) {
        if !self.origin.is_here() {
            return;
        }
        self.end.fail();
        self.ring();
        self.over(); // after a failure the client uses it no more
    }
}
