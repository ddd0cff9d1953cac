//! FLIP on raw Ethernet, as the original does it: frames, credits, multicast.
//!
//! The machine [`Ethernet`] takes FLIP packets for stations and gives frames, and takes frames and gives FLIP packets. Packets
//! of messages too large for one classic frame cost a credit each, so that no sender overruns a receiver; all others, and
//! what goes to everybody, cost none. It repairs nothing: a lost frame is the business of RPC. Nothing here is sealed,
//! and a station is who it says it is.
//!
//! ```text
//!  send ──► urgent, small, large packets by station and FLIP address ──► poll_transmit
//!                        ▲ credits                  credits in DATA ──►
//!  handle_frame ◄──── frames
//! ```
//! Sans I/O: time and bytes in, bytes and [`Event`]s out.
//!
//! Modules: [`frame`] the bytes, `location` what waits for one station and its credits, `multicast` which groups
//! this station listens to.
//!
//! Ours, and understood by an original: a receiver with room for more than eight packets grants more credits with its
//! first CREDIT, and a starved sender begins to ask after [`Config::patience`] instead of two seconds.
//!
//! # Source
//! Amoeba 5.3; Kaashoek et al., FLIP, ACM TOCS 11(1), 1993.
#![forbid(unsafe_code)]

pub mod frame;
mod location;
mod multicast;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use amoeba_flip::Packet;
use amoeba_threads::Instant;

use frame::{Content, FRAME_HEAD_SIZE, Frame, Head, Mac, Peek};
use location::{Location, Starved};
pub use multicast::GROUPS_MAX;
use multicast::Heard;

/// Credits that every station has before it is told otherwise.
pub const INITIAL_CREDITS: u32 = 8;
/// The longest time between two questions for credits.
pub const CREDIT_TIMER: Duration = Duration::from_secs(2);
/// Questions after which the longest time was waited for nothing: then the station is gone, and what waits for it is dropped.
pub const CREDIT_TRIES: u32 = 5;
/// A station that nothing went to and nothing came from for so long is forgotten.
pub const LOCATION_LIFE: Duration = Duration::from_secs(300);
/// Stations that are remembered; past it the one that was idle for longest goes, and when all have packets waiting there is no
/// room for another.
pub const LOCATIONS_MAX: usize = 1024;
/// Packets that may wait for one station; past it the newest is dropped.
pub const QUEUE_MAX: usize = 4096;
/// Packets that may wait for one station while more large ones are asked for.
pub const QUEUE_READY: usize = 16;
/// Bytes of packets that may wait in all; past it the newest is dropped.
pub const QUEUED_SIZE_MAX: usize = 64 << 20;
/// Frames to everybody or to groups, and frames without packets, that may wait; past it the newest is dropped.
pub const OTHERS_MAX: usize = 1024;
/// How often idle stations are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(25);

/// How a machine is made.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// This station.
    pub mac: Mac,
    /// Large packets that one station may send here before they are taken; at least 1. What is more than
    /// [`INITIAL_CREDITS`] is granted when the first comes.
    pub window: u8,
    /// How long a sender waits for credits before it first asks; doubles up to [`CREDIT_TIMER`], which is the original's.
    pub patience: Duration,
}

/// Whom a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// One station.
    Station(Mac),
    /// Everybody.
    Everybody,
}

/// A frame to send.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// What comes first.
    pub head: Head,
    /// What follows.
    pub packet: Option<Packet>,
}

impl Outgoing {
    /// The frame in one piece, without padding.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = self.head.bytes().to_vec();
        if let Some(packet) = &self.packet {
            bytes.extend_from_slice(packet.front());
            bytes.extend_from_slice(packet.body());
        }
        bytes
    }
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A station gives no more credits: it is gone, and what waited for it too.
    Lost(Mac),
    /// Frames for this group are wanted from now on.
    Listen(Mac),
    /// They are no longer.
    Ignore(Mac),
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames of FLIP that came.
    pub frames_in: u64,
    /// Frames given to the network.
    pub frames_out: u64,
    /// Frames that were not FLIP, not whole, or not for this station.
    pub foreign: u64,
    /// Packets that there was no room for, or whose station was lost.
    pub dropped: u64,
    /// Questions for credits.
    pub starved: u64,
}

/// See the crate's head.
pub struct Ethernet {
    config: Config,
    locations: BTreeMap<Mac, Location>,
    /// Stations that may have something to send, in turn.
    turns: VecDeque<Mac>,
    /// When starved stations are to be asked for credits.
    asks: BTreeSet<(Instant, Mac)>,
    queued_size: usize,
    others: VecDeque<Outgoing>,
    heard: Heard,
    sweep: Option<Instant>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Ethernet {
    /// A machine that knows nobody.
    pub fn new(config: Config) -> Ethernet {
        assert!(config.window > 0, "without credits no large packet would ever come");
        Ethernet {
            config,
            locations: BTreeMap::new(),
            turns: VecDeque::new(),
            asks: BTreeSet::new(),
            queued_size: 0,
            others: VecDeque::new(),
            heard: Heard::default(),
            sweep: None,
            events: VecDeque::new(),
            counters: Counters::default(),
        }
    }

    /// Takes a FLIP packet to be sent. One that there is no room for is dropped and counted.
    pub fn send(&mut self, now: Instant, to: To, packet: Packet) {
        match to {
            To::Station(mac) => self.send_to(now, mac, packet),
            To::Everybody => self.send_other(self.data(Mac::BROADCAST, 0), Some(packet)),
        }
    }

    fn send_to(&mut self, now: Instant, mac: Mac, packet: Packet) {
        let peek = Peek::of(packet.front()).expect("a packet begins with its header");
        let (size, full) = (packet.len(), self.queued_size + packet.len() > QUEUED_SIZE_MAX);
        let Some(location) = self.location(now, mac).filter(|location| !full && location.count() < QUEUE_MAX)
        else {
            return self.counters.dropped += 1;
        };
        if !location.push(&peek, packet) {
            return self.counters.dropped += 1;
        }
        let unlisted = !std::mem::replace(&mut location.listed, true);
        self.queued_size += size;
        if unlisted {
            self.turns.push_back(mac);
        }
    }

    /// Whether another large packet for this station is welcome now.
    pub fn is_ready(&self, to: Mac) -> bool {
        self.queued_size < QUEUED_SIZE_MAX / 2
            && self.locations.get(&to).is_none_or(|location| location.count() < QUEUE_READY)
    }

    /// Handles a frame and returns the FLIP packet in it and who sent it.
    pub fn handle_frame<'a>(&mut self, now: Instant, bytes: &'a [u8]) -> Option<(Mac, &'a [u8])> {
        let Some(frame) = Frame::parse(bytes).ok().filter(|frame| self.is_for_us(frame)) else {
            self.counters.foreign += 1;
            return None;
        };
        self.counters.frames_in += 1;
        let from = frame.from;
        match frame.content {
            Content::Data { credits, packet } => {
                self.handle_data(now, &frame, credits, packet);
                return Some((from, packet));
            }
            Content::Credit(credits) => self.give(from, |location| location.add_credits(credits)),
            Content::Abscredit(credits) => self.give(from, |location| location.set_credits(credits)),
            Content::Reqcredit => {
                let window = self.config.window;
                if let Some(location) = self.location(now, from) {
                    location.all_credits(window.into());
                }
                self.say(from, Content::Abscredit(window));
            }
            Content::Mcreq { group, address } => {
                let answer = match self.heard.ask(now, group, address, &mut self.events) {
                    true => Content::Mcack(address),
                    false => Content::Mcnak(address),
                };
                self.say(from, answer);
            }
            Content::Mcack(_) | Content::Mcnak(_) => {} // this station has not asked
        }
        None
    }

    fn is_for_us(&self, frame: &Frame<'_>) -> bool {
        let to_us = frame.to == self.config.mac
            || matches!(frame.content, Content::Data { .. })
                && (frame.to == Mac::BROADCAST || self.heard.listens_to(frame.to));
        to_us && !frame.from.is_group() && frame.from != self.config.mac
    }

    fn handle_data(&mut self, now: Instant, frame: &Frame<'_>, credits: u8, packet: &[u8]) {
        let from = frame.from;
        self.heard.used(now, frame.to);
        if frame.to == Mac::BROADCAST {
            return;
        }
        if credits > 0 {
            self.give(from, |location| location.add_credits(credits));
        }
        let large = Peek::of(packet).is_some_and(|peek| peek.is_large());
        if !large || frame.to.is_group() {
            return;
        }
        let window = self.config.window.into();
        let back = match self.location(now, from) {
            Some(location) => location.took_large(window),
            None => Some(1), // nobody keeps count, so it gets back what it used
        };
        if let Some(credits) = back {
            self.say(from, Content::Credit(credits));
        }
    }

    /// Changes what a station lets us send.
    fn give(&mut self, mac: Mac, change: impl FnOnce(&mut Location)) {
        let Some(location) = self.locations.get_mut(&mac) else { return };
        let before = location.poll_timeout();
        change(location);
        let after = location.poll_timeout();
        if location.count() > 0 && !std::mem::replace(&mut location.listed, true) {
            self.turns.push_back(mac);
        }
        self.retime(mac, before, after);
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Outgoing> {
        let frame = self.others.pop_front().or_else(|| self.next_packet(now))?;
        self.counters.frames_out += 1;
        Some(frame)
    }

    fn next_packet(&mut self, now: Instant) -> Option<Outgoing> {
        while let Some(mac) = self.turns.pop_front() {
            let location = self.locations.get_mut(&mac).expect("listed stations are known");
            let before = location.poll_timeout();
            let packet = location.pop(now, self.config.patience);
            let after = location.poll_timeout();
            location.listed = packet.is_some() && location.count() > 0;
            if location.listed {
                self.turns.push_back(mac);
            }
            let credits = if packet.is_some() { location.take_owed() } else { 0 };
            self.retime(mac, before, after);
            if let Some(packet) = packet {
                self.queued_size -= packet.len();
                return Some(Outgoing { head: self.data(mac, credits), packet: Some(packet) });
            }
        }
        None
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, mac)) = self.asks.first().filter(|(at, _)| *at <= now) {
            let location = self.locations.get_mut(&mac).expect("stations that starve are known");
            match location.starved(now, self.config.patience) {
                Starved::Wait => unreachable!("it is time"),
                Starved::Ask => {
                    let after = location.poll_timeout();
                    self.retime(mac, Some(at), after);
                    self.counters.starved += 1;
                    self.say(mac, Content::Reqcredit);
                }
                Starved::Lost => {
                    self.counters.dropped += location.count() as u64;
                    self.forget(mac);
                    self.events.push_back(Event::Lost(mac));
                }
            }
        }
        if self.sweep.is_some_and(|sweep| sweep <= now) {
            self.sweep = None;
            let idle =
                |location: &Location| location.count() == 0 && now.since(location.used) >= LOCATION_LIFE;
            let idle: Vec<Mac> =
                self.locations.iter().filter(|(_, location)| idle(location)).map(|(mac, _)| *mac).collect();
            idle.into_iter().for_each(|mac| self.forget(mac));
            self.sweep = (!self.locations.is_empty()).then(|| now + SWEEP_INTERVAL);
        }
        self.heard.expire(now, &mut self.events);
    }

    /// When [`Ethernet::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ask = self.asks.first().map(|(at, _)| *at);
        [ask, self.sweep, self.heard.poll_timeout()].into_iter().flatten().min()
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Each station that is remembered, and how many packets wait for it.
    pub fn stations(&self) -> impl Iterator<Item = (Mac, usize)> {
        self.locations.iter().map(|(mac, location)| (*mac, location.count()))
    }

    fn data(&self, to: Mac, credits: u8) -> Head {
        Frame { to, from: self.config.mac, content: Content::Data { credits, packet: &[] } }.head()
    }

    fn say(&mut self, to: Mac, content: Content<'_>) {
        self.send_other(Frame { to, from: self.config.mac, content }.head(), None);
    }

    fn send_other(&mut self, head: Head, packet: Option<Packet>) {
        if self.others.len() >= OTHERS_MAX {
            self.counters.dropped += 1;
        } else {
            self.others.push_back(Outgoing { head, packet });
        }
    }

    /// What is known of a station from now on; `None` when there is no room.
    fn location(&mut self, now: Instant, mac: Mac) -> Option<&mut Location> {
        if mac.is_group() {
            return None;
        }
        if !self.locations.contains_key(&mac) {
            if self.locations.len() >= LOCATIONS_MAX {
                let idle = self.locations.iter().filter(|(_, location)| location.count() == 0);
                let oldest = idle.min_by_key(|(_, location)| location.used).map(|(mac, _)| *mac)?;
                self.forget(oldest);
            }
            self.locations.insert(mac, Location::new(now));
            self.sweep.get_or_insert(now + SWEEP_INTERVAL);
        }
        let location = self.locations.get_mut(&mac)?;
        location.used = now;
        Some(location)
    }

    fn forget(&mut self, mac: Mac) {
        let Some(location) = self.locations.remove(&mac) else { return };
        self.queued_size -= location.size;
        self.retime(mac, location.poll_timeout(), None);
        if location.listed {
            self.turns.retain(|listed| *listed != mac);
        }
    }

    fn retime(&mut self, mac: Mac, before: Option<Instant>, after: Option<Instant>) {
        if before != after {
            before.map(|at| self.asks.remove(&(at, mac)));
            after.map(|at| self.asks.insert((at, mac)));
        }
    }

    /// The invariants that every step must leave true.
    #[cfg(test)]
    fn check(&self) {
        assert_eq!(self.queued_size, self.locations.values().map(|location| location.size).sum::<usize>());
        assert!(self.queued_size <= QUEUED_SIZE_MAX && self.others.len() <= OTHERS_MAX);
        assert!(self.locations.len() <= LOCATIONS_MAX);
        let listed: BTreeSet<Mac> = self.turns.iter().copied().collect();
        assert_eq!(listed.len(), self.turns.len(), "each takes one turn");
        for (mac, location) in &self.locations {
            assert_eq!(location.listed, listed.contains(mac));
            let waits = location.count() > 0 && !location.listed;
            assert!(!waits || location.poll_timeout().is_some(), "who waits asks for credits");
            let ask = location.poll_timeout();
            assert!(ask.is_none_or(|at| self.asks.contains(&(at, *mac))));
        }
        let asking = self.locations.values().filter(|location| location.poll_timeout().is_some());
        assert_eq!(self.asks.len(), asking.count());
    }
}

/// The most bytes of a FLIP packet where frames may have `mtu` bytes behind their Ethernet header.
pub fn packet_size_max(mtu: usize) -> usize {
    mtu.saturating_sub(FRAME_HEAD_SIZE - frame::ETHERNET_HEADER_SIZE)
}

#[cfg(test)]
mod tests;
