//! The datagrams of the UDP link, byte for byte.
//!
//! ```text
//! PACKET   | 1 | session 8 | a FLIP packet                                            unreliable, never queued
//! BULK     | 2 | session 8 | number 8 | a FLIP packet                                 acknowledged, sent again
//! ACK      | 3 | session 8 | next 8 | bits, at most 1024 bytes                        about BULK
//! HELLO    | 4 | "AMOE" | version 1 | tag 16 | body                                    each second to every peer
//!   body = | incarnation 8 | contact 8 | echo 8 | window 4 | name, NUL | count 1 | addresses |
//! JOIN     | 5 | "AMOE" | version 1 | nonce 8 | name, NUL
//! JOINED   | 6 | "AMOE" | version 1 | nonce 8 | secret 32 | root capability, NUL | count 1 | addresses |
//! REFUSED  | 7 | "AMOE" | version 1 | nonce 8 | reason, NUL
//! address  | 4 or 6 | port 2 | 4 or 16 bytes | for IPv6 scope 4 |
//! ```
//!
//! Integers are little-endian; ports of addresses too. `session` names one direction of one contact between two
//! daemons: both compute it from the contacts of their HELLOs and the system's secret, so a datagram of an earlier life,
//! of another system or of a stranger is dropped without a look at its rest. `next`: every BULK below it has arrived;
//! bit `i` of `bits` (least significant first) stands for `next + 1 + i`. `tag` is made with the system's secret over
//! the body.
//!
//! # Source
//! Ours.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use amoeba_cap::SystemSecret;
use amoeba_kernel::Location;
use amoeba_wire::{Malformed, Reader, Writer};

/// The version of these formats.
pub const VERSION: u8 = 1;
/// Bytes before the FLIP packet in a PACKET.
pub const PACKET_HEAD_SIZE: usize = 9;
/// Bytes before the FLIP packet in a BULK.
pub const BULK_HEAD_SIZE: usize = 17;
/// Bytes of an ACK's bits: BULKs that may be under way beyond the first that is missing.
pub const ACK_BITS_SIZE: usize = amoeba_flow::bulk::ACK_BITS_SIZE;
/// Bytes of a host's name.
pub const NAME_SIZE_MAX: usize = 64;
/// Addresses that one datagram tells.
pub const ADDRESSES_MAX: usize = 24;
/// Bytes of a capability as text, and of a reason.
pub const TEXT_SIZE_MAX: usize = 400;

const MAGIC: [u8; 4] = *b"AMOE";
const PACKET: u8 = 1;
const BULK: u8 = 2;
const ACK: u8 = 3;
const HELLO: u8 = 4;
const JOIN: u8 = 5;
const JOINED: u8 = 6;
const REFUSED: u8 = 7;

/// One direction of a contact between two daemons.
pub type Session = [u8; 8];

/// A datagram as it means.
#[derive(Debug, PartialEq)]
pub enum Datagram<'a> {
    /// A FLIP packet that may be lost.
    Packet {
        /// Which contact it belongs to.
        session: Session,
        /// The FLIP packet.
        packet: &'a [u8],
    },
    /// A FLIP packet that is sent until it is acknowledged.
    Bulk {
        /// Which contact it belongs to.
        session: Session,
        /// Counts the BULKs of the session, from 0.
        number: u64,
        /// The FLIP packet.
        packet: &'a [u8],
    },
    /// Which BULKs have arrived.
    Ack {
        /// The contact whose BULKs are meant: the session of the ACK's own direction.
        session: Session,
        /// What has arrived.
        ack: Ack,
    },
    /// A peer is there; [`Hello::parse`] reads it.
    Hello {
        /// Proof that the sender belongs to the system.
        tag: [u8; 16],
        /// What the tag is over.
        body: &'a [u8],
    },
    /// A host wants to be taken in.
    Join(Join),
    /// It is.
    Joined(Welcome),
    /// It is not.
    Refused {
        /// The nonce of the JOIN.
        nonce: u64,
        /// Why, and what to do.
        reason: String,
    },
}

/// See [`Datagram::Ack`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// Everything below has arrived.
    pub next: u64,
    /// Bit `i` stands for `next + 1 + i`; at most [`ACK_BITS_SIZE`] bytes.
    pub bits: Vec<u8>,
}

/// What a daemon says of itself to one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Random per life of the daemon.
    pub incarnation: u64,
    /// Drawn anew, larger, whenever the sender loses sight of this peer.
    pub contact: u64,
    /// The peer's contact as the sender knows it; 0 when it does not.
    pub echo: u64,
    /// Bytes of BULKs that the sender can take at once.
    pub window: u32,
    /// The sender's host, at most [`NAME_SIZE_MAX`] bytes.
    pub name: String,
    /// Other peers that are there.
    pub peers: Vec<SocketAddr>,
}

/// The question of a host that wants to be taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Names the answer.
    pub nonce: u64,
    /// What the host wants to be called.
    pub name: String,
}

/// What a host needs that is taken in. All of it is secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The nonce of the JOIN.
    pub nonce: u64,
    /// The system's secret.
    pub secret: [u8; 32],
    /// The root capability, as text.
    pub root: String,
    /// Who else is there.
    pub peers: Vec<SocketAddr>,
}

impl std::fmt::Debug for Welcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Welcome").field("peers", &self.peers).finish_non_exhaustive()
    }
}

impl<'a> Datagram<'a> {
    /// The datagram in these bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Datagram<'a>, Malformed> {
        let mut reader = Reader::new(bytes);
        let kind = reader.get_u8()?;
        match kind {
            PACKET => Ok(Datagram::Packet { session: reader.array()?, packet: reader.rest() }),
            BULK => Ok(Datagram::Bulk {
                session: reader.array()?,
                number: reader.get_u64()?,
                packet: reader.rest(),
            }),
            ACK => {
                let (session, next, bits) = (reader.array()?, reader.get_u64()?, reader.rest());
                if bits.len() > ACK_BITS_SIZE {
                    return Err(Malformed);
                }
                Ok(Datagram::Ack { session, ack: Ack { next, bits: bits.to_vec() } })
            }
            HELLO..=REFUSED => {
                if reader.array()? != MAGIC || reader.get_u8()? != VERSION {
                    return Err(Malformed);
                }
                let datagram = Datagram::parse_control(kind, &mut reader)?;
                reader.end()?;
                Ok(datagram)
            }
            _ => Err(Malformed),
        }
    }

    fn parse_control(kind: u8, reader: &mut Reader<'a>) -> Result<Datagram<'a>, Malformed> {
        match kind {
            HELLO => Ok(Datagram::Hello { tag: reader.array()?, body: reader.rest() }),
            JOIN => {
                Ok(Datagram::Join(Join { nonce: reader.get_u64()?, name: get_text(reader, NAME_SIZE_MAX)? }))
            }
            JOINED => Ok(Datagram::Joined(Welcome {
                nonce: reader.get_u64()?,
                secret: reader.array()?,
                root: get_text(reader, TEXT_SIZE_MAX)?,
                peers: get_addresses(reader)?,
            })),
            _ => Ok(Datagram::Refused { nonce: reader.get_u64()?, reason: get_text(reader, TEXT_SIZE_MAX)? }),
        }
    }
}

/// What comes before the FLIP packet in a PACKET.
pub fn packet_head(session: &Session) -> Vec<u8> {
    head(PACKET, session)
}

/// What comes before the FLIP packet in a BULK.
pub fn bulk_head(session: &Session, number: u64) -> Vec<u8> {
    let mut bytes = head(BULK, session);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes
}

fn head(kind: u8, session: &Session) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BULK_HEAD_SIZE);
    bytes.push(kind);
    bytes.extend_from_slice(session);
    bytes
}

impl Ack {
    /// The ACK datagram.
    pub fn emit(&self, session: &Session) -> Vec<u8> {
        let mut bytes = head(ACK, session);
        bytes.extend_from_slice(&self.next.to_le_bytes());
        bytes.extend_from_slice(&self.bits);
        bytes
    }

    /// Whether this says that a BULK has arrived.
    pub fn has(&self, number: u64) -> bool {
        if number <= self.next {
            return number < self.next;
        }
        let bit = number - self.next - 1;
        let byte = usize::try_from(bit / 8).ok().and_then(|index| self.bits.get(index));
        byte.is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
    }
}

impl Hello {
    /// The HELLO datagram.
    pub fn emit(&self, secret: &SystemSecret) -> Vec<u8> {
        let mut body = Writer::new();
        body.put_u64(self.incarnation).put_u64(self.contact).put_u64(self.echo).put_u32(self.window);
        body.put_string(self.name.as_bytes());
        put_addresses(&mut body, &self.peers);
        let body = body.finish();
        let mut datagram = control(HELLO);
        datagram.raw(&secret.tag(b"link-hi ", &body)).raw(&body);
        datagram.finish()
    }

    /// The meaning of a HELLO whose tag is right.
    pub fn parse(secret: &SystemSecret, tag: &[u8; 16], body: &[u8]) -> Result<Hello, Malformed> {
        if secret.tag(b"link-hi ", body) != *tag {
            return Err(Malformed);
        }
        let mut reader = Reader::new(body);
        let hello = Hello {
            incarnation: reader.get_u64()?,
            contact: reader.get_u64()?,
            echo: reader.get_u64()?,
            window: reader.get_u32()?,
            name: get_text(&mut reader, NAME_SIZE_MAX)?,
            peers: get_addresses(&mut reader)?,
        };
        reader.end()?;
        Ok(hello)
    }
}

impl Join {
    /// The JOIN datagram.
    pub fn emit(&self) -> Vec<u8> {
        let mut datagram = control(JOIN);
        datagram.put_u64(self.nonce).put_string(self.name.as_bytes());
        datagram.finish()
    }
}

impl Welcome {
    /// The JOINED datagram.
    pub fn emit(&self) -> Vec<u8> {
        let mut datagram = control(JOINED);
        datagram.put_u64(self.nonce).raw(&self.secret).put_string(self.root.as_bytes());
        put_addresses(&mut datagram, &self.peers);
        datagram.finish()
    }
}

/// The REFUSED datagram.
pub fn refused(nonce: u64, reason: &str) -> Vec<u8> {
    let mut datagram = control(REFUSED);
    datagram.put_u64(nonce).put_string(reason.as_bytes());
    datagram.finish()
}

/// Whether a host may be called so: 1 to [`NAME_SIZE_MAX`] bytes that can be a name in a directory.
pub fn is_name(name: &str) -> bool {
    let bad = |char: char| char.is_control() || char == '/';
    !name.is_empty() && name.len() <= NAME_SIZE_MAX && !name.contains(bad) && name != "." && name != ".."
}

/// The session of what `from` sends to `to`, by their contacts.
pub fn session(secret: &SystemSecret, from: u64, to: u64) -> Session {
    let tag = secret.tag(b"link-ses", &[from.to_le_bytes(), to.to_le_bytes()].concat());
    *tag.first_chunk().expect("a tag has 16 bytes")
}

/// The location that stands for an address.
pub fn location_of(address: SocketAddr) -> Location {
    let mut writer = Writer::new();
    put_address(&mut writer, address);
    Location::new(&writer.finish())
}

/// The address that a location stands for.
pub fn address_of(location: &Location) -> Option<SocketAddr> {
    let mut reader = Reader::new(location.as_bytes());
    get_address(&mut reader).ok().filter(|_| reader.remaining() == 0)
}

fn control(kind: u8) -> Writer {
    let mut writer = Writer::new();
    writer.put_u8(kind).raw(&MAGIC).put_u8(VERSION);
    writer
}

fn get_text(reader: &mut Reader<'_>, max: usize) -> Result<String, Malformed> {
    let bytes = reader.get_string(max)?;
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed)?;
    if text.contains(char::is_control) { Err(Malformed) } else { Ok(text.to_owned()) }
}

fn put_addresses(writer: &mut Writer, addresses: &[SocketAddr]) {
    let told = &addresses[..addresses.len().min(ADDRESSES_MAX)];
    writer.put_u8(told.len() as u8);
    for &address in told {
        put_address(writer, address);
    }
}

fn get_addresses(reader: &mut Reader<'_>) -> Result<Vec<SocketAddr>, Malformed> {
    let count = usize::from(reader.get_u8()?);
    if count > ADDRESSES_MAX {
        return Err(Malformed);
    }
    (0..count).map(|_| get_address(reader)).collect()
}

fn put_address(writer: &mut Writer, address: SocketAddr) {
    match address {
        SocketAddr::V4(address) => {
            writer.put_u8(4).put_u16(address.port()).raw(&address.ip().octets());
        }
        SocketAddr::V6(address) => {
            writer.put_u8(6).put_u16(address.port()).raw(&address.ip().octets());
            writer.put_u32(address.scope_id());
        }
    }
}

fn get_address(reader: &mut Reader<'_>) -> Result<SocketAddr, Malformed> {
    let (family, port) = (reader.get_u8()?, reader.get_u16()?);
    match family {
        4 => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(reader.array::<4>()?)), port)),
        6 => {
            let ip = Ipv6Addr::from(reader.array::<16>()?);
            Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, reader.get_u32()?)))
        }
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> SystemSecret {
        SystemSecret::from_bytes([9; 32])
    }

    fn hello() -> Hello {
        let peers = vec!["127.0.0.2:5321".parse().unwrap(), "[::1]:9".parse().unwrap()];
        Hello { incarnation: 1, contact: 2, echo: 3, window: 4, name: "anvil".into(), peers }
    }

    #[test]
    fn what_is_emitted_is_parsed() {
        let bytes = hello().emit(&secret());
        let Ok(Datagram::Hello { tag, body }) = Datagram::parse(&bytes) else { panic!("no HELLO") };
        assert_eq!(Hello::parse(&secret(), &tag, body), Ok(hello()));
        assert!(Hello::parse(&SystemSecret::from_bytes([8; 32]), &tag, body).is_err());
        let join = Join { nonce: 7, name: "bolt".into() };
        assert_eq!(Datagram::parse(&join.emit()), Ok(Datagram::Join(join.clone())));
        let welcome = Welcome { nonce: 7, secret: [1; 32], root: "text".into(), peers: hello().peers };
        assert_eq!(Datagram::parse(&welcome.emit()), Ok(Datagram::Joined(welcome.clone())));
        let no = refused(7, "because");
        assert_eq!(Datagram::parse(&no), Ok(Datagram::Refused { nonce: 7, reason: "because".into() }));
        let ack = Ack { next: 5, bits: vec![0b10, 1] };
        assert_eq!(
            Datagram::parse(&ack.emit(&[3; 8])),
            Ok(Datagram::Ack { session: [3; 8], ack: ack.clone() })
        );
        let arrived: Vec<u64> = (0..30).filter(|number| ack.has(*number)).collect();
        assert_eq!(arrived, [0, 1, 2, 3, 4, 7, 14]);
    }

    #[test]
    fn no_bytes_panic_and_a_forged_hello_is_nothing() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let mut control = vec![HELLO + bytes.first().copied().unwrap_or(0) % 4];
            control.extend_from_slice(&MAGIC);
            control.push(VERSION);
            control.extend_from_slice(bytes);
            for datagram in [bytes, &control] {
                match Datagram::parse(datagram) {
                    Ok(Datagram::Hello { tag, body }) => {
                        assert!(Hello::parse(&secret(), &tag, body).is_err())
                    }
                    Ok(Datagram::Joined(welcome)) => assert_eq!(welcome.emit(), datagram),
                    Ok(Datagram::Join(join)) => assert_eq!(join.emit(), datagram),
                    _ => {}
                }
            }
            let tag = secret().tag(b"link-hi ", bytes);
            if let Ok(hello) = Hello::parse(&secret(), &tag, bytes) {
                assert_eq!(hello.emit(&secret())[22..], *bytes);
            }
            if let Some(address) = bytes.get(..32.min(bytes.len())).and_then(|bytes| address_of(&Location::new(bytes))) {
                assert_eq!(location_of(address).as_bytes(), bytes);
            }
        });
    }
}
