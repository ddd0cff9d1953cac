//! How two hosts come to have a session: see `amoeba_seal` for the datagrams.
//!
//! ```text
//! the host with the smaller key              the other
//!                                            KNOCK, with a cookie        it has no session
//! CALL, without anything            ─────►
//!                                   ◄─────   COOKIE
//! CALL, with the cookie             ─────►   a fresh session
//!                                   ◄─────   ANSWER
//! a contact; HELLO, sealed          ─────►   a contact
//! ```
//! All of it is begun anew each second while there is no contact. Nothing is remembered for a host that has not shown,
//! by a cookie, that it receives where it says it is; no Diffie-Hellman is computed for a host that is not there. A host that
//! was removed knows the system's secret, and can knock and give cookies in the name of another, but not answer a CALL: so
//! where the list says that a host is, it is called before any other place, and never waits for one.

use std::net::SocketAddr;
use std::time::Duration;

use amoeba_seal::{
    ANSWER_KIND, Answer, CALL_KIND, COOKIE_KIND, Call, Challenge, Cookie, Handshake, Hosts, KNOCK_KIND,
    Knock, Lead, NO_COOKIE, REMOVED_KIND, Removed, Session, Suite,
};
use amoeba_threads::Instant;

use super::contact::Contact;
use super::peers::{ADDRESSES_MAX, Asking, COPY_LIFE, Changes, Copied, Peers, TRIAL, TRIAL_GRACE, Trial};

/// An ANSWER is waited for so long before the next CALL.
const ANSWER_TIME: Duration = Duration::from_millis(500);

impl Peers {
    /// Asks for a contact with a peer: at `to`, or at all its addresses.
    pub(super) fn ask(&mut self, now: Instant, slot: u16, to: Option<SocketAddr>, changes: &mut Changes) {
        let peer = self.peer_mut(slot);
        let better = to.is_none_or(|to| peer.member.addresses.contains(&to));
        let waits = |asking: &Asking| {
            let waiting = asking.call.as_ref().filter(|(_, since, _)| now.since(*since) < ANSWER_TIME);
            waiting.is_some_and(|(_, _, at)| !better || peer.member.addresses.contains(at))
        };
        if peer.asking.as_ref().is_some_and(waits) {
            return;
        }
        let number = match &self.peer_mut(slot).asking {
            Some(asking) => asking.number,
            None => self.new_number(slot),
        };
        let peer = self.peer_mut(slot);
        peer.asking = Some(Asking { number, call: None });
        let (lead, addresses) = (peer.lead, to.map_or_else(|| peer.member.addresses.clone(), |to| vec![to]));
        let datagram = match lead {
            Lead::Calls => Call { caller: number, noise: &[], cookie: NO_COOKIE }.emit(&self.gate),
            Lead::Knocks => self.knock(number, NO_COOKIE),
        };
        let addresses = addresses.into_iter().take(ADDRESSES_MAX);
        changes.datagrams.extend(addresses.map(|address| (address, datagram.clone())));
    }

    fn knock(&mut self, asker: u32, cookie: Cookie) -> Vec<u8> {
        let (life, stamp) = (self.life, self.new_stamp());
        Knock { asker, tag: self.own_tag, life, stamp, cookie }.emit(&self.gate)
    }

    /// What we say of ourselves in a handshake.
    fn hosts(&mut self) -> Hosts {
        let window = u32::try_from(self.config.window).unwrap_or(u32::MAX);
        Hosts { stamp: self.new_stamp(), life: self.life, window, suites: self.config.suites }
    }

    /// A datagram of a greeting arrived, or what claims to be one.
    pub(crate) fn handle_greeting(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
        changes: &mut Changes,
    ) {
        let handled = match bytes.first().copied() {
            Some(CALL_KIND) => self.handle_call(now, from, bytes, changes),
            Some(ANSWER_KIND) => self.handle_answer(now, from, bytes, changes),
            Some(COOKIE_KIND) => self.handle_cookie(now, from, bytes, changes),
            Some(KNOCK_KIND) => self.handle_knock(now, from, bytes, changes),
            Some(REMOVED_KIND) => self.handle_removed(now, from, bytes),
            _ => None,
        };
        if handled.is_none() {
            self.counters.refused += 1;
        }
    }

    /// Whether the sender of this datagram has shown that it is at `from`; else it is sent a cookie. A copy, and one too
    /// many, are not let through either.
    fn let_in(
        &mut self,
        now: Instant,
        from: SocketAddr,
        (asker, cookie): (u32, &Cookie),
        bytes: &[u8],
        changes: &mut Changes,
    ) -> bool {
        let (source, entropy) = (source(from), &*self.config.entropy);
        if !self.gate.is_fresh(now, &source, cookie, entropy) {
            let cookie = self.gate.cookie(now, &source, entropy);
            changes.datagrams.push((from, Challenge { asker, cookie }.emit(&self.gate)));
            self.counters.challenged += 1;
            return false;
        }
        let expected = self.iter().any(|(_, peer)| peer.is_expected_at(from.ip()));
        let admitted = self.gate.admit(now, &source[..source.len() - 2], expected, bytes); // not the port
        self.counters.overflowed += u64::from(!admitted);
        admitted
    }

    fn handle_call(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
        changes: &mut Changes,
    ) -> Option<()> {
        let call = Call::parse(&self.gate, bytes).ok()?;
        if !self.let_in(now, from, (call.caller, &call.cookie), bytes, changes) {
            return Some(());
        }
        self.counters.handshakes += 1;
        let mut handshake = Handshake::answer(&self.config.identity, &self.psk, &self.config.entropy);
        let hosts = Hosts::parse(&handshake.read(call.noise).ok()?).ok()?;
        let key = handshake.peer()?;
        if key == self.config.identity.public() {
            self.own_double(now, from);
            return Some(());
        }
        let Some(slot) = self.by_key.get(&key).copied() else {
            if let Some(times) = self.turned_away.count(now, from) {
                let key = key.fingerprint();
                tracing::warn!(key, address = %from, times, "a host that is not a member was turned away");
            }
            changes.datagrams.push((from, Removed { asker: call.caller }.emit(&self.gate)));
            return Some(());
        };
        let peer = self.peer_mut(slot);
        let newer = |contact: &Contact| hosts.life != contact.life || hosts.stamp > contact.stamp;
        if peer.lead != Lead::Knocks || ![&peer.contact, &peer.fresh].into_iter().flatten().all(newer) {
            return None;
        }
        if peer.is_known_copy(now, from) {
            return Some(());
        }
        let number = self.new_number(slot);
        let (location, own) = (self.new_location(slot), self.hosts());
        let mut noise = Vec::new();
        handshake.write(&own.emit(), &mut noise).ok()?;
        let keys = handshake.finish(Suite::agreed(own.suites, hosts.suites)).ok()?;
        let session = Session::new(now, &keys, call.caller);
        let fresh = Contact::new(now, number, location, session, &hosts, from);
        if let Some(last) = self.peer_mut(slot).fresh.replace(fresh) {
            self.release(last.number);
        }
        let answer = Answer { answerer: number, caller: call.caller, noise: &noise };
        changes.datagrams.push((from, answer.emit(&self.gate)));
        Some(())
    }

    fn handle_answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
        changes: &mut Changes,
    ) -> Option<()> {
        let answer = Answer::parse(&self.gate, bytes).ok()?;
        let slot = self.owner(answer.caller)?;
        let asking = self.peer_mut(slot).asking.as_mut().filter(|asking| asking.number == answer.caller)?;
        let (handshake, _, _) = asking.call.as_mut()?;
        let hosts = Hosts::parse(&handshake.read(answer.noise).ok()?).ok()?;
        let asking = self.peer_mut(slot).asking.take().expect("it was there just now");
        let (handshake, _, _) = asking.call.expect("it was read just now");
        let keys = handshake.finish(Suite::agreed(self.config.suites, hosts.suites)).ok()?;
        let session = Session::new(now, &keys, answer.answerer);
        let location = self.new_location(slot);
        let contact = Contact::new(now, asking.number, location, session, &hosts, from);
        self.peer_mut(slot).trial = None;
        self.establish(now, slot, contact, changes);
        Some(())
    }

    fn handle_cookie(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
        changes: &mut Changes,
    ) -> Option<()> {
        let Challenge { asker, cookie } = Challenge::parse(&self.gate, bytes).ok()?;
        let slot = self.owner(asker)?;
        let peer = self.peer_mut(slot);
        let (lead, key) = (peer.lead, peer.member.key);
        let asking = peer.asking.as_ref().filter(|asking| asking.number == asker)?;
        let listed = |address| peer.member.addresses.contains(address);
        if asking.call.as_ref().is_some_and(|(_, _, at)| listed(at) || !listed(&from)) {
            return Some(()); // it is there at another address, too
        }
        let datagram = match lead {
            Lead::Knocks => self.knock(asker, cookie),
            Lead::Calls => {
                self.counters.handshakes += 1;
                let mut handshake =
                    Handshake::call(&self.config.identity, &key, &self.psk, &self.config.entropy);
                let (mut noise, own) = (Vec::new(), self.hosts());
                handshake.write(&own.emit(), &mut noise).ok()?;
                self.peer_mut(slot).asking =
                    Some(Asking { number: asker, call: Some((handshake, now, from)) });
                Call { caller: asker, noise: &noise, cookie }.emit(&self.gate)
            }
        };
        changes.datagrams.push((from, datagram));
        Some(())
    }

    fn handle_knock(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
        changes: &mut Changes,
    ) -> Option<()> {
        let knock = Knock::parse(&self.gate, bytes).ok()?;
        if !self.let_in(now, from, (knock.asker, &knock.cookie), bytes, changes) {
            return Some(());
        }
        if knock.tag == self.own_tag {
            self.own_double(now, from);
            return Some(());
        }
        let Some(slot) = self.by_tag.get(&knock.tag).copied() else {
            if let Some(times) = self.turned_away.count(now, from) {
                tracing::warn!(address = %from, times, "a host that is not a member was turned away");
            }
            changes.datagrams.push((from, Removed { asker: knock.asker }.emit(&self.gate)));
            return Some(());
        };
        let peer = self.peer_mut(slot);
        if peer.lead != Lead::Calls {
            return None;
        }
        let Some(contact) = &peer.contact else {
            self.ask(now, slot, Some(from), changes);
            return Some(());
        };
        let same_life = contact.life == knock.life;
        if same_life && knock.stamp <= contact.stamp {
            return Some(()); // it was overtaken by the greeting that it had asked for
        }
        if !same_life && contact.address != from {
            if !peer.is_known_copy(now, from) {
                self.begin_trial(now, slot, from);
            }
            return Some(());
        }
        self.ask(now, slot, Some(from), changes);
        Some(())
    }

    fn handle_removed(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> Option<()> {
        let Removed { asker } = Removed::parse(&self.gate, bytes).ok()?;
        let slot = self.owner(asker)?;
        self.peer_mut(slot).asking.as_ref().filter(|asking| asking.number == asker)?;
        if self.removed.replace((now, from)).is_none() {
            tracing::warn!(address = %from, "a host says that this one is not a member of the system any more");
        }
        Some(())
    }

    /// The peer has sealed something with its fresh session. Whether that is the contact from now on.
    pub(super) fn confirm(&mut self, now: Instant, slot: u16, changes: &mut Changes) -> bool {
        let peer = self.peer_mut(slot);
        let fresh = peer.fresh.as_ref().expect("a datagram was just opened with it");
        let elsewhere = |contact: &Contact| contact.life != fresh.life && contact.address != fresh.address;
        if peer.contact.as_ref().is_some_and(elsewhere) {
            let from = fresh.address;
            self.begin_trial(now, slot, from);
            return false;
        }
        self.promote(now, slot, changes);
        true
    }

    /// Another life of a peer, at another address, wants the place of a contact that was heard lately: is that one dead,
    /// or are there two?
    fn begin_trial(&mut self, now: Instant, slot: u16, from: SocketAddr) {
        let peer = self.peer_mut(slot);
        if peer.trial.is_none() {
            peer.trial = Some(Trial { since: now, from });
            self.hurry(now + TRIAL);
        }
    }

    /// Decides a trial whose time is over.
    pub(super) fn end_trial(&mut self, now: Instant, slot: u16, changes: &mut Changes) {
        let Some(peer) = self.peer_if(slot) else { return };
        let Some(trial) = peer.trial.take_if(|trial| trial.since + TRIAL <= now) else { return };
        let alive = peer.contact.as_ref().filter(|contact| contact.heard > trial.since + TRIAL_GRACE);
        if let Some(contact) = alive {
            let (host, kept, other) = (&peer.member.name, contact.address, trial.from);
            tracing::warn!(host, %kept, %other, "identity copied: two hosts have the identity of this one");
            peer.copied = Some(Copied { kept, other, seen: now });
            if let Some(fresh) = peer.fresh.take() {
                self.release(fresh.number);
            }
        } else if peer.fresh.as_ref().is_some_and(Contact::is_used) {
            self.promote(now, slot, changes);
        } else {
            self.ask(now, slot, Some(trial.from), changes);
        }
    }

    fn own_double(&mut self, now: Instant, from: SocketAddr) {
        if self.doubled.replace((now, from)).is_none_or(|(seen, _)| now.since(seen) >= COPY_LIFE) {
            tracing::warn!(address = %from, "identity copied: another host has the identity of this one");
        }
    }
}

/// The bytes of an address for which cookies are made.
fn source(address: SocketAddr) -> Vec<u8> {
    let mut bytes = match address {
        SocketAddr::V4(address) => address.ip().octets().to_vec(),
        SocketAddr::V6(address) => address.ip().octets().to_vec(),
    };
    bytes.extend_from_slice(&address.port().to_le_bytes());
    bytes
}
