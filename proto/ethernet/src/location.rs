//! One station as another sees it: packets that wait to leave for it, and credits both ways.

use std::collections::VecDeque;
use std::time::Duration;

use amoeba_flip::Packet;
use amoeba_threads::Instant;
use amoeba_wire::packet::{Address, FLIP_HEADER_SIZE};

use crate::frame::Peek;
use crate::{CREDIT_TIMER, CREDIT_TRIES, INITIAL_CREDITS};

/// FLIP addresses that may have packets waiting for one station.
pub(crate) const ADDRESSES_MAX: usize = 256;

/// Where the kind of an RPC packet is.
const RPC_KIND: usize = FLIP_HEADER_SIZE + 14;
const RPC_REQUEST: u8 = 3;
const RPC_REPLY: u8 = 4;

/// Packets for one FLIP address.
struct Queue {
    to: Address,
    /// Of messages that fit into one frame.
    small: VecDeque<Packet>,
    /// Those that cost a credit.
    large: VecDeque<Packet>,
}

/// What a starved sender does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Starved {
    /// Waits.
    Wait,
    /// Asks for credits.
    Ask,
    /// Gives up: nobody answers.
    Lost,
}

/// See the module's head.
pub(crate) struct Location {
    /// When anything was last sent there or came from there.
    pub(crate) used: Instant,
    /// Large packets that it lets us send.
    credits: u32,
    /// Large packets of it that it has not been told are gone.
    owed: u32,
    /// Whether it has been told that it may send more than [`INITIAL_CREDITS`].
    widened: bool,
    /// Protocol messages: they leave before everything else.
    urgent: VecDeque<Packet>,
    /// Addresses take turns; those with nothing to send are not here.
    turns: VecDeque<Queue>,
    /// Whether it is in the machine's list of those that may have something to send.
    pub(crate) listed: bool,
    /// Packets that wait.
    count: usize,
    /// Their bytes.
    pub(crate) size: usize,
    /// When to ask for credits, if large packets wait without any.
    ask: Option<Instant>,
    /// Questions without an answer.
    asked: u32,
    /// Of those, the ones after which the longest time was waited.
    asked_long: u32,
}

impl Location {
    pub(crate) fn new(now: Instant) -> Location {
        Location {
            used: now,
            credits: INITIAL_CREDITS,
            owed: 0,
            widened: false,
            urgent: VecDeque::new(),
            turns: VecDeque::new(),
            listed: false,
            count: 0,
            size: 0,
            ask: None,
            asked: 0,
            asked_long: 0,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Takes a packet to be sent; false when too many addresses have some.
    pub(crate) fn push(&mut self, peek: &Peek, packet: Packet) -> bool {
        let size = packet.len();
        if !peek.is_large() && is_protocol(peek, &packet) {
            self.urgent.push_back(packet);
        } else {
            let place = self.turns.iter().position(|queue| queue.to == peek.to);
            if place.is_none() && self.turns.len() >= ADDRESSES_MAX {
                return false;
            }
            let place = place.unwrap_or_else(|| {
                self.turns.push_back(Queue { to: peek.to, small: VecDeque::new(), large: VecDeque::new() });
                self.turns.len() - 1
            });
            let queue = &mut self.turns[place];
            if peek.is_large() { queue.large.push_back(packet) } else { queue.small.push_back(packet) }
        }
        self.count += 1;
        self.size += size;
        true
    }

    /// The next packet that may leave: protocol messages, then each address in its turn, small messages first.
    pub(crate) fn pop(&mut self, now: Instant, patience: Duration) -> Option<Packet> {
        let packet = self.urgent.pop_front().or_else(|| self.next_in_turn());
        match &packet {
            Some(packet) => {
                self.count -= 1;
                self.size -= packet.len();
                self.used = now;
            }
            None if self.count > 0 && self.ask.is_none() => self.ask = Some(now + patience),
            None => {}
        }
        packet
    }

    fn next_in_turn(&mut self) -> Option<Packet> {
        let ready = |queue: &Queue| !queue.small.is_empty() || self.credits > 0;
        let place = self.turns.iter().position(ready)?;
        let mut queue = self.turns.remove(place).expect("found just now");
        let packet = queue.small.pop_front().or_else(|| {
            self.credits -= 1;
            queue.large.pop_front()
        });
        if !queue.small.is_empty() || !queue.large.is_empty() {
            self.turns.push_back(queue);
        }
        packet
    }

    /// More credits have come; at most as many are kept as a byte can say.
    pub(crate) fn add_credits(&mut self, count: u8) {
        if count > 0 {
            self.credits = (self.credits + u32::from(count)).min(u8::MAX.into());
            self.answered();
        }
    }

    /// So many credits there are.
    pub(crate) fn set_credits(&mut self, count: u8) {
        self.credits = count.into();
        if count > 0 {
            self.answered();
        } else {
            self.asked_long = 0; // it is there, and may let us go on later
        }
    }

    fn answered(&mut self) {
        (self.ask, self.asked, self.asked_long) = (None, 0, 0);
    }

    /// A large packet has come and been processed. Credits to be sent at once, if there are enough of them.
    pub(crate) fn took_large(&mut self, window: u32) -> Option<u8> {
        self.owed += 1;
        if !self.widened {
            self.widened = true;
            self.owed += window - INITIAL_CREDITS.min(window);
        }
        (self.owed >= threshold(window)).then(|| self.take_owed())
    }

    /// The credits that are owed, to go with whatever is sent next.
    pub(crate) fn take_owed(&mut self) -> u8 {
        let owed = self.owed.min(u8::MAX.into());
        self.owed -= owed;
        owed as u8
    }

    /// The answer to a question for credits.
    pub(crate) fn all_credits(&mut self, window: u32) -> u8 {
        (self.owed, self.widened) = (0, true);
        window as u8
    }

    /// When [`Location::starved`] is to be asked.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.ask
    }

    /// Whether it is time to ask for credits, or to give up.
    pub(crate) fn starved(&mut self, now: Instant, patience: Duration) -> Starved {
        if self.ask.is_none_or(|ask| ask > now) {
            return Starved::Wait;
        }
        if self.asked_long >= CREDIT_TRIES {
            return Starved::Lost;
        }
        self.asked += 1;
        let wait = patience.saturating_mul(1 << self.asked.min(16)).min(CREDIT_TIMER);
        if wait == CREDIT_TIMER {
            self.asked_long += 1;
        }
        self.ask = Some(now + wait);
        Starved::Ask
    }
}

/// Credits are given back when so many are owed.
fn threshold(window: u32) -> u32 {
    match window {
        0..=2 => 1,
        3..=INITIAL_CREDITS => window - 2,
        _ => window / 2,
    }
}

/// Whether a packet carries neither a request nor a reply.
fn is_protocol(peek: &Peek, packet: &Packet) -> bool {
    let kind = packet.front().get(RPC_KIND).or_else(|| packet.body().get(RPC_KIND - FLIP_HEADER_SIZE));
    let transaction = kind.is_none_or(|kind| *kind == RPC_REQUEST || *kind == RPC_REPLY);
    !(peek.unidata && (peek.offset > 0 || transaction))
}
