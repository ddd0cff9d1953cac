//! The packets of FLIP and of RPC over FLIP, byte for byte as Amoeba 5.3 sends them on an Ethernet.
//!
//! Integers are in the sender's order, told by a flag; we send big-endian and read both.
//!
//! # Source
//! Amoeba 5.3, FLIP version 1; Kaashoek et al., FLIP, ACM TOCS 11(1), 1993.

use amoeba_cap::PutPort;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::header::integers;

/// Bytes of a FLIP header.
pub const FLIP_HEADER_SIZE: usize = 40;
/// Bytes of an RPC protocol header.
pub const RPC_HEADER_SIZE: usize = 24;
/// The version that we speak.
pub const FLIP_VERSION: u8 = 1;
/// FLIP payload of one classic Ethernet frame.
pub const ETHERNET_PAYLOAD_MAX: usize = 1458;

/// Integers of this packet are big-endian (FLIP and RPC headers alike use bit 0).
pub const BIG_ENDIAN: u8 = 0x01;

/// Flags of a FLIP header.
pub mod flip_flag {
    /// Use only trusted networks; set by the sender.
    pub const SECURITY: u8 = 0x04;
    /// Cannot be routed over trusted networks.
    pub const UNREACHABLE: u8 = 0x10;
    /// Passed over at least one untrusted network; set by switches.
    pub const UNSAFE: u8 = 0x20;
    /// NOTHERE from a host where the message was not to end yet: the way is lost, the address may still be somewhere.
    /// Ours; the original has no use for the bit.
    pub const NO_ROUTE: u8 = 0x40;
    /// The sender keeps this message until it has arrived, and takes REPORTs about it. Ours; set only towards who has
    /// announced that it sends them.
    pub const KEPT: u8 = 0x80;
}

/// A FLIP address: 7 random bytes and the space byte. Location independent; the null address means everybody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub [u8; 8]);

impl Address {
    /// The broadcast address.
    pub const NULL: Address = Address([0; 8]);

    /// Whether this is the broadcast address.
    pub fn is_null(&self) -> bool {
        *self == Address::NULL
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g, h, i] = self.0;
        write!(f, "{a:x}:{b:x}:{c:x}:{d:x}:{e:x}:{g:x}:{h:x}:{i:x}")
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// What a FLIP packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PacketKind {
    /// Where is this address?
    Locate = 1,
    /// The address is this far.
    Hereis = 2,
    /// A fragment for one address.
    Unidata = 3,
    /// A fragment for everybody, or for a group.
    Multidata = 4,
    /// A fragment comes back: the address is not there.
    Nothere = 5,
    /// A fragment comes back: only untrusted networks lead there.
    Untrusted = 6,
}

impl PacketKind {
    fn from_byte(byte: u8) -> Option<PacketKind> {
        use PacketKind::*;
        [Locate, Hereis, Unidata, Multidata, Nothere, Untrusted].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A FLIP header as it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlipHeader {
    /// What the packet is for.
    pub kind: PacketKind,
    /// [`flip_flag`]s, without the byte order.
    pub flags: u8,
    /// Weight of the networks passed so far.
    pub hops: u16,
    /// Weight it may pass in all.
    pub hops_max: u16,
    /// Destination; stays the located address in HEREIS and NOTHERE.
    pub to: Address,
    /// Source.
    pub from: Address,
    /// Message, counted by the sending interface.
    pub message_id: u32,
    /// Bytes of payload in this packet.
    pub length: u32,
    /// Where in the message they belong.
    pub offset: u32,
    /// Bytes of the whole message.
    pub total: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFlip {
    version: u8,
    kind: u8,
    flags: u8,
    /// Not set reliably by the original: ignored.
    reserved: u8,
    hops: [u8; 2],
    hops_max: [u8; 2],
    to: [u8; 8],
    from: [u8; 8],
    message_id: [u8; 4],
    length: [u8; 4],
    offset: [u8; 4],
    total: [u8; 4],
}
const _: () = assert!(size_of::<RawFlip>() == FLIP_HEADER_SIZE);

impl FlipHeader {
    /// The 40 bytes, big-endian.
    pub fn to_bytes(&self) -> [u8; FLIP_HEADER_SIZE] {
        let raw = RawFlip {
            version: FLIP_VERSION,
            kind: self.kind as u8,
            flags: self.flags | BIG_ENDIAN,
            reserved: 0,
            hops: self.hops.to_be_bytes(),
            hops_max: self.hops_max.to_be_bytes(),
            to: self.to.0,
            from: self.from.0,
            message_id: self.message_id.to_be_bytes(),
            length: self.length.to_be_bytes(),
            offset: self.offset.to_be_bytes(),
            total: self.total.to_be_bytes(),
        };
        let mut bytes = [0; FLIP_HEADER_SIZE];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// The header and the payload of a packet. `None` when it is not a whole FLIP version 1 packet, or its fragment
    /// lies outside its message. What follows the payload (Ethernet pads) is ignored. The flag tells whether the
    /// sender is big-endian, which matters for the payload of HEREIS.
    pub fn parse(packet: &[u8]) -> Option<(FlipHeader, &[u8], bool)> {
        let (raw, rest) = RawFlip::ref_from_prefix(packet).ok()?;
        if raw.version != FLIP_VERSION {
            return None;
        }
        let big_endian = raw.flags & BIG_ENDIAN != 0;
        let (two, four) = integers(big_endian);
        let header = FlipHeader {
            kind: PacketKind::from_byte(raw.kind)?,
            flags: raw.flags & !BIG_ENDIAN,
            hops: two.1(raw.hops),
            hops_max: two.1(raw.hops_max),
            to: Address(raw.to),
            from: Address(raw.from),
            message_id: four.1(raw.message_id),
            length: four.1(raw.length),
            offset: four.1(raw.offset),
            total: four.1(raw.total),
        };
        let end = header.offset.checked_add(header.length)?;
        let payload = rest.get(..usize::try_from(header.length).ok()?)?;
        if end > header.total { None } else { Some((header, payload, big_endian)) }
    }
}

/// What an RPC packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum RpcKind {
    /// Who listens on this port? (a FLIP broadcast)
    Locate = 1,
    /// I do.
    Hereis = 2,
    /// A request, with header and data.
    Request = 3,
    /// A reply, with header and data.
    Reply = 4,
    /// I have it.
    Ack = 5,
    /// I do not have it, or cannot take it.
    Nak = 6,
    /// Are you still working on it?
    Enquire = 7,
    /// I am.
    Alive = 8,
    /// Did you get it?
    Received = 9,
    /// Ask this server instead.
    Forward = 10,
    /// It was started and will never be answered.
    Fail = 11,
    /// Of a large message this has arrived. Ours, and sent only to who has announced [`rpc_flag::REPORTS`].
    Report = 12,
}

impl RpcKind {
    fn from_byte(byte: u8) -> Option<RpcKind> {
        use RpcKind::*;
        [Locate, Hereis, Request, Reply, Ack, Nak, Enquire, Alive, Received, Forward, Fail, Report]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// Flags of an RPC header.
pub mod rpc_flag {
    /// An earlier copy may have arrived.
    pub const RETRANS: u8 = 0x2;
    /// RECEIVED, ACK, NAK: about the request.
    pub const REQUEST: u8 = 0x4;
    /// RECEIVED, ACK, NAK: about the reply.
    pub const REPLY: u8 = 0x8;
    /// ENQUIRE: the client was signalled.
    pub const SIGTRANS: u8 = 0x10;
    /// LOCATE, HEREIS, REQUEST: whoever sent this understands [`RpcKind::Report`](super::RpcKind::Report). Ours; the
    /// original ignores it.
    pub const REPORTS: u8 = 0x20;
}

/// The protocol header of RPC over FLIP, as it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcHeader {
    /// Kernel identifier of the client process: 64 random bits.
    pub kid: [u8; 8],
    /// Put-port, in LOCATE, HEREIS and REQUEST.
    pub port: PutPort,
    /// What the packet says.
    pub kind: RpcKind,
    /// [`rpc_flag`]s, without the byte order.
    pub flags: u8,
    /// Transaction identifier; in LOCATE and HEREIS a time stamp in milliseconds, echoed.
    pub tid: u32,
    /// Destination slot; in REQUEST the measured round-trip time in milliseconds.
    pub dest: u16,
    /// Source slot.
    pub from: u16,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRpc {
    kid: [u8; 8],
    port: [u8; 6],
    kind: u8,
    flags: u8,
    tid: [u8; 4],
    dest: [u8; 2],
    from: [u8; 2],
}
const _: () = assert!(size_of::<RawRpc>() == RPC_HEADER_SIZE);

impl RpcHeader {
    /// The 24 bytes, big-endian.
    pub fn to_bytes(&self) -> [u8; RPC_HEADER_SIZE] {
        let raw = RawRpc {
            kid: self.kid,
            port: self.port.to_bytes(),
            kind: self.kind as u8,
            flags: self.flags | BIG_ENDIAN,
            tid: self.tid.to_be_bytes(),
            dest: self.dest.to_be_bytes(),
            from: self.from.to_be_bytes(),
        };
        let mut bytes = [0; RPC_HEADER_SIZE];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// The header and what follows it; `None` when it is not an RPC packet. The flag tells whether the sender is
    /// big-endian, which also holds for the transaction header that follows.
    pub fn parse(packet: &[u8]) -> Option<(RpcHeader, &[u8], bool)> {
        let (raw, rest) = RawRpc::ref_from_prefix(packet).ok()?;
        let big_endian = raw.flags & BIG_ENDIAN != 0;
        let (two, four) = integers(big_endian);
        let header = RpcHeader {
            kid: raw.kid,
            port: PutPort::from_bytes(raw.port),
            kind: RpcKind::from_byte(raw.kind)?,
            flags: raw.flags & !BIG_ENDIAN,
            tid: four.1(raw.tid),
            dest: two.1(raw.dest),
            from: two.1(raw.from),
        };
        Some((header, rest, big_endian))
    }
}

/// Ranges that one report may name.
pub const REPORT_RANGES_MAX: usize = 32;

/// What a REPORT says, behind its protocol header: what of a FLIP message has arrived. All integers have four bytes.
///
/// ```text
///  0            4       8       12        16     20      24
///  +------------+-------+-------+---------+------+-------+-----+----
///  | message id | total | front | arrived | lost | start | end | …
///  +------------+-------+-------+---------+------+-------+-----+----
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcReport {
    /// Which message, by its identifier in the FLIP header.
    pub message_id: u32,
    /// Bytes of the whole message.
    pub total: u32,
    /// Everything below has arrived.
    pub front: u32,
    /// Bytes that have arrived.
    pub arrived: u32,
    /// Bytes that are missing and should be sent again: more than the ranges have when there are too many of them.
    pub lost: u32,
    /// The first of what is missing: where it begins and ends, at most [`REPORT_RANGES_MAX`].
    pub missing: Vec<(u32, u32)>,
}

impl RpcReport {
    /// The bytes behind the protocol header, big-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        let ranges = self.missing.iter().take(REPORT_RANGES_MAX).flat_map(|&(start, end)| [start, end]);
        let head = [self.message_id, self.total, self.front, self.arrived, self.lost];
        head.into_iter().chain(ranges).flat_map(u32::to_be_bytes).collect()
    }

    /// The report in these bytes; `None` when it is none.
    pub fn parse(bytes: &[u8], big_endian: bool) -> Option<RpcReport> {
        let (_, four) = integers(big_endian);
        let (words, rest) = bytes.as_chunks::<4>();
        let &[message_id, total, front, arrived, lost, ref ranges @ ..] = words else { return None };
        let (ranges, odd) = ranges.as_chunks::<2>();
        if !rest.is_empty() || !odd.is_empty() || ranges.len() > REPORT_RANGES_MAX {
            return None;
        }
        let missing = ranges.iter().map(|&[start, end]| (four.1(start), four.1(end))).collect();
        let [message_id, total, front, arrived, lost] = [message_id, total, front, arrived, lost].map(four.1);
        Some(RpcReport { message_id, total, front, arrived, lost, missing })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_parse_come_back_and_nothing_panics() {
        bolero::check!().for_each(|packet: &[u8]| {
            if let Some((header, payload, _)) = FlipHeader::parse(packet) {
                assert!(header.offset as usize + payload.len() <= header.total as usize);
                let mut again = header.to_bytes().to_vec();
                again.extend_from_slice(payload);
                let (parsed, same, big_endian) = FlipHeader::parse(&again).expect("what we emit parses");
                assert_eq!((parsed, same, big_endian), (header, payload, true));
            }
            if let Some((header, _, _)) = RpcHeader::parse(packet) {
                assert_eq!(RpcHeader::parse(&header.to_bytes()).map(|parsed| parsed.0), Some(header));
            }
            if let Some(report) = RpcReport::parse(packet, true) {
                assert_eq!(report.to_bytes(), packet);
            }
            let swapped: Vec<u8> = packet.chunks(4).flat_map(|word| word.iter().rev().copied()).collect();
            assert_eq!(RpcReport::parse(packet, true), RpcReport::parse(&swapped, false));
        });
    }
}
