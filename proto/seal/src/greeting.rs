//! The datagrams by which two hosts of a system come to have a session.
//!
//! ```text
//! CALL    | 0x11 | 0 | 0 | 0 | caller 4            | Noise message 1 | cookie 16 | mac 16 |
//! ANSWER  | 0x12 | 0 | 0 | 0 | answerer 4 | caller 4 | Noise message 2           | mac 16 |
//! COOKIE  | 0x13 | 0 | 0 | 0 | asker 4             | cookie 16                   | mac 16 |
//! KNOCK   | 0x14 | 0 | 0 | 0 | asker 4 | tag 16 | life 8 | stamp 8 | cookie 16    | mac 16 |
//! REMOVED | 0x15 | 0 | 0 | 0 | asker 4                                          | mac 16 |
//! ```
//!
//! Of two hosts the one with the smaller public key calls ([`Lead`]): so two greetings never cross and there is one
//! session. The other knocks, to be called. Who is asked without a fresh cookie answers with one and does nothing else;
//! a CALL that only asks for one carries no Noise message. Who is asked by a host that is not on its list says REMOVED:
//! that is a hint for people, and nothing else follows from it.
//! `caller`, `answerer`, `asker` are the numbers by which the sender finds what a datagram to it belongs to; a session's
//! datagrams carry them. `tag` names the host that knocks to those who know its key, and to nobody else. `life` is drawn
//! by each daemon when it starts; `stamp` grows with every greeting of a host, and is compared with earlier ones of the
//! same host only. The MAC is over everything before it, under a key that the hosts of the system have.
//!
//! Both Noise messages carry a [`Hosts`]: `| stamp 8 | life 8 | window 4 | suites 1 |`; later versions may add to it.

use amoeba_cap::SystemSecret;
use amoeba_wire::{Malformed, Reader, Writer};
use zeroize::Zeroize;

use crate::gate::{COOKIE_SIZE, Cookie, Gate, MAC_SIZE};
use crate::handshake::HANDSHAKE_SIZE_MAX;
use crate::identity::{PublicKey, derive};
use crate::session::Suites;

/// The first byte of a CALL.
pub const CALL_KIND: u8 = 0x11;
/// The first byte of an ANSWER.
pub const ANSWER_KIND: u8 = 0x12;
/// The first byte of a COOKIE.
pub const COOKIE_KIND: u8 = 0x13;
/// The first byte of a KNOCK.
pub const KNOCK_KIND: u8 = 0x14;
/// The first byte of a REMOVED.
pub const REMOVED_KIND: u8 = 0x15;
/// The first byte of datagrams of hosts that join, up to [`STRANGER_KIND_MAX`]: the link hands them on unread.
pub const STRANGER_KIND: u8 = 0x20;
/// See [`STRANGER_KIND`].
pub const STRANGER_KIND_MAX: u8 = 0x2F;
/// Bytes that any of these datagrams may have.
pub const GREETING_SIZE_MAX: usize = 12 + HANDSHAKE_SIZE_MAX + COOKIE_SIZE + MAC_SIZE;

/// Names a host to those who know its key.
pub type Tag = [u8; 16];

/// Which of two hosts calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lead {
    /// This one: it calls, and answers no calls of the other.
    Calls,
    /// The other: this one knocks.
    Knocks,
}

impl Lead {
    /// Who calls, seen from `own`.
    pub fn between(own: &PublicKey, other: &PublicKey) -> Lead {
        if own < other { Lead::Calls } else { Lead::Knocks }
    }
}

/// What each end of a greeting says of itself, inside the Noise messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// Larger than in every earlier greeting of this host.
    pub stamp: u64,
    /// Random per life of the daemon.
    pub life: u64,
    /// Bytes of numbered packets that the sender can take at once.
    pub window: u32,
    /// What it is fast with.
    pub suites: Suites,
}

impl Hosts {
    /// The bytes.
    pub fn emit(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.put_u64(self.stamp).put_u64(self.life).put_u32(self.window).put_u8(self.suites.bits());
        writer.finish()
    }

    /// The meaning of these bytes.
    pub fn parse(bytes: &[u8]) -> Result<Hosts, Malformed> {
        let mut reader = Reader::new(bytes);
        Ok(Hosts {
            stamp: reader.get_u64()?,
            life: reader.get_u64()?,
            window: reader.get_u32()?,
            suites: Suites::from_bits_retain(reader.get_u8()?),
        })
    }
}

/// A host greets another: the first Noise message.
#[derive(Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// How the caller finds what comes back.
    pub caller: u32,
    /// The Noise message.
    pub noise: &'a [u8],
    /// What the other's COOKIE said, or [`crate::NO_COOKIE`].
    pub cookie: Cookie,
}

/// The second Noise message.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// How the answerer finds the session.
    pub answerer: u32,
    /// How the caller finds what was called.
    pub caller: u32,
    /// The Noise message.
    pub noise: &'a [u8],
}

/// A cookie, for who has none: the COOKIE datagram.
#[derive(Debug, PartialEq, Eq)]
pub struct Challenge {
    /// The number that the asker's datagram had.
    pub asker: u32,
    /// To be sent with the next.
    pub cookie: Cookie,
}

/// A host wants to be called.
#[derive(Debug, PartialEq, Eq)]
pub struct Knock {
    /// How the asker finds what comes back.
    pub asker: u32,
    /// Which host it is.
    pub tag: Tag,
    /// Random per life of its daemon.
    pub life: u64,
    /// As in [`Hosts::stamp`].
    pub stamp: u64,
    /// What the other's COOKIE said, or [`crate::NO_COOKIE`].
    pub cookie: Cookie,
}

/// The asker is not on the list of hosts: the REMOVED datagram.
#[derive(Debug, PartialEq, Eq)]
pub struct Removed {
    /// The number that the asker's datagram had.
    pub asker: u32,
}

impl Knock {
    /// How a host is named in knocks of this system.
    pub fn tag_of(secret: &SystemSecret, host: &PublicKey) -> Tag {
        let mut bytes = secret.to_bytes();
        let mut key = derive("amoeba 1 tags of hosts that knock", &bytes);
        bytes.zeroize();
        let hash = blake3::keyed_hash(&key, host.as_bytes());
        key.zeroize();
        *hash.as_bytes().first_chunk().expect("a hash has 32 bytes")
    }

    /// The datagram.
    pub fn emit(&self, gate: &Gate) -> Vec<u8> {
        let mut writer = head(KNOCK_KIND, self.asker);
        writer.raw(&self.tag).put_u64(self.life).put_u64(self.stamp).raw(&self.cookie);
        seal(gate, writer)
    }

    /// The meaning of a datagram whose MAC is right.
    pub fn parse(gate: &Gate, datagram: &[u8]) -> Result<Knock, Malformed> {
        let mut reader = open(gate, KNOCK_KIND, datagram)?;
        let knock = Knock {
            asker: reader.get_u32()?,
            tag: reader.array()?,
            life: reader.get_u64()?,
            stamp: reader.get_u64()?,
            cookie: reader.array()?,
        };
        reader.end()?;
        Ok(knock)
    }
}

impl<'a> Call<'a> {
    /// The datagram.
    pub fn emit(&self, gate: &Gate) -> Vec<u8> {
        let mut writer = head(CALL_KIND, self.caller);
        writer.raw(self.noise).raw(&self.cookie);
        seal(gate, writer)
    }

    /// The meaning of a datagram whose MAC is right.
    pub fn parse(gate: &Gate, datagram: &'a [u8]) -> Result<Call<'a>, Malformed> {
        let mut reader = open(gate, CALL_KIND, datagram)?;
        let caller = reader.get_u32()?;
        let (noise, cookie) = reader.rest().split_last_chunk().ok_or(Malformed)?;
        Ok(Call { caller, noise, cookie: *cookie })
    }
}

impl<'a> Answer<'a> {
    /// The datagram.
    pub fn emit(&self, gate: &Gate) -> Vec<u8> {
        let mut writer = head(ANSWER_KIND, self.answerer);
        writer.put_u32(self.caller).raw(self.noise);
        seal(gate, writer)
    }

    /// The meaning of a datagram whose MAC is right.
    pub fn parse(gate: &Gate, datagram: &'a [u8]) -> Result<Answer<'a>, Malformed> {
        let mut reader = open(gate, ANSWER_KIND, datagram)?;
        Ok(Answer { answerer: reader.get_u32()?, caller: reader.get_u32()?, noise: reader.rest() })
    }
}

impl Challenge {
    /// The datagram.
    pub fn emit(&self, gate: &Gate) -> Vec<u8> {
        let mut writer = head(COOKIE_KIND, self.asker);
        writer.raw(&self.cookie);
        seal(gate, writer)
    }

    /// The meaning of a datagram whose MAC is right.
    pub fn parse(gate: &Gate, datagram: &[u8]) -> Result<Challenge, Malformed> {
        let mut reader = open(gate, COOKIE_KIND, datagram)?;
        let challenge = Challenge { asker: reader.get_u32()?, cookie: reader.array()? };
        reader.end()?;
        Ok(challenge)
    }
}

impl Removed {
    /// The datagram.
    pub fn emit(&self, gate: &Gate) -> Vec<u8> {
        seal(gate, head(REMOVED_KIND, self.asker))
    }

    /// The meaning of a datagram whose MAC is right.
    pub fn parse(gate: &Gate, datagram: &[u8]) -> Result<Removed, Malformed> {
        let mut reader = open(gate, REMOVED_KIND, datagram)?;
        let removed = Removed { asker: reader.get_u32()? };
        reader.end()?;
        Ok(removed)
    }
}

fn head(kind: u8, number: u32) -> Writer {
    let mut writer = Writer::new();
    writer.raw(&[kind, 0, 0, 0]).put_u32(number);
    writer
}

fn seal(gate: &Gate, writer: Writer) -> Vec<u8> {
    let mut datagram = writer.finish();
    let mac = gate.mac(&datagram);
    datagram.extend_from_slice(&mac);
    datagram
}

/// What follows the kind in a datagram whose MAC is right.
fn open<'a>(gate: &Gate, kind: u8, datagram: &'a [u8]) -> Result<Reader<'a>, Malformed> {
    if datagram.len() > GREETING_SIZE_MAX || datagram.first() != Some(&kind) {
        return Err(Malformed);
    }
    let mut reader = Reader::new(gate.verify(datagram).ok_or(Malformed)?);
    if reader.array()? != [kind, 0, 0, 0] {
        return Err(Malformed);
    }
    Ok(reader)
}
