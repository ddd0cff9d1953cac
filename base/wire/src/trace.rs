//! What a kernel tells whoever traces it: transactions and FLIP packets as they pass.
//!
//! A record holds no check field and no get-port: they are zero before it is made ([`without_secrets`], [`abridged`]).
//! Data are left out, unless the viewer asked for them; only then may a record hold capabilities, as data.
//!
//! Records stand one after the other, each as a length (u32) and that many bytes: the time, the number of its kind and
//! its fields, as the codec writes them.
//!
//! # Source
//! Ours.

use std::time::Duration;

use crate::packet::{Address, FLIP_HEADER_SIZE, FlipHeader, PacketKind, RPC_HEADER_SIZE, RpcHeader, RpcKind};
use crate::{HEADER_SIZE, Header, Malformed, Reader, Writer};

/// Bytes of data that a record holds at most, of those that passed.
pub const SEEN_SIZE_MAX: usize = 1024;
/// Bytes of a packet that a record holds at most.
pub const PACKET_SEEN_MAX: usize = 2048;
/// Bytes of the name of a link, or of a peer on it.
pub const NAME_SIZE_MAX: usize = 255;
/// What a FLIP broadcast of RPC begins with.
const RPC_BROADCAST: [u8; 4] = [0, 0, 0, 1];
/// What a datagram begins with, and the size of its header.
const DATAGRAM: [u8; 4] = *b"\0\0DG";
const DATAGRAM_HEADER_SIZE: usize = 16;
/// Where the check field lies in a transaction header.
const CHECK: std::ops::Range<usize> = 16..22;

/// Something that passed the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When, since 1970.
    pub time: Duration,
    /// What.
    pub event: Event,
}

/// What passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A thread of a process of this host began a transaction.
    Request {
        /// The client, as the operating system numbers it.
        pid: u32,
        /// Which of its connections.
        slot: u16,
        /// What it asks.
        message: Seen,
    },
    /// A process of this host was given a request.
    Delivered {
        /// The server.
        pid: u32,
        /// Tells the request from others.
        request: u64,
        /// The client process.
        client: Address,
        /// What it asks.
        message: Seen,
    },
    /// A process of this host has answered a request, or given it up.
    Answered {
        /// The server.
        pid: u32,
        /// Which request.
        request: u64,
        /// Its answer.
        reply: Option<Seen>,
    },
    /// The transaction of a thread of this host has ended.
    Ended {
        /// The client.
        pid: u32,
        /// Which of its connections.
        slot: u16,
        /// How long it took, if its beginning was seen.
        elapsed: Option<Duration>,
        /// How it ended.
        outcome: Outcome,
    },
    /// A FLIP packet crossed a link.
    Packet {
        /// Whether it came in.
        inward: bool,
        /// Over which link.
        link: u16,
        /// From or to whom on it; empty for everybody.
        peer: Vec<u8>,
        /// Bytes of the packet.
        size: u32,
        /// As many of them as are shown.
        bytes: Vec<u8>,
    },
}

/// How a transaction ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With a reply.
    Reply(Seen),
    /// Certainly not executed, with this status.
    NotSent(i16),
    /// Perhaps executed, with this status.
    MaybeExecuted(i16),
}

/// A request or a reply, without what is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its header, with zeros for the check field.
    pub header: Header,
    /// Bytes of data.
    pub size: u32,
    /// As many of them as are shown.
    pub data: Vec<u8>,
}

impl Seen {
    /// What may be shown of a message; with `data` the beginning of them.
    pub fn of(header: &Header, data: &[u8], with_data: bool) -> Seen {
        let shown = if with_data { &data[..data.len().min(SEEN_SIZE_MAX)] } else { &[] };
        Seen {
            header: without_secrets(header),
            size: u32::try_from(data.len()).unwrap_or(u32::MAX),
            data: shown.to_vec(),
        }
    }

    fn put(&self, writer: &mut Writer) {
        writer.raw(&self.header.to_bytes(false)).put_u32(self.size).put_bytes(&self.data);
    }

    fn get(reader: &mut Reader<'_>) -> Result<Seen, Malformed> {
        let header = Header::from_bytes(&reader.array::<HEADER_SIZE>()?, false);
        Ok(Seen { header, size: reader.get_u32()?, data: reader.get_bytes(SEEN_SIZE_MAX)?.to_vec() })
    }
}

impl Record {
    /// Appends the record, with its length before it.
    pub fn put(&self, writer: &mut Writer) {
        let mut body = Writer::new();
        body.put_u64(self.time.as_secs()).put_u32(self.time.subsec_nanos());
        match &self.event {
            Event::Request { pid, slot, message } => {
                body.put_u8(1).put_u32(*pid).put_u16(*slot);
                message.put(&mut body);
            }
            Event::Delivered { pid, request, client, message } => {
                body.put_u8(2).put_u32(*pid).put_u64(*request).raw(&client.0);
                message.put(&mut body);
            }
            Event::Answered { pid, request, reply } => {
                body.put_u8(3).put_u32(*pid).put_u64(*request).put_bool(reply.is_some());
                if let Some(reply) = reply {
                    reply.put(&mut body);
                }
            }
            Event::Ended { pid, slot, elapsed, outcome } => {
                let nanos =
                    elapsed.map_or(u64::MAX, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
                body.put_u8(4).put_u32(*pid).put_u16(*slot).put_u64(nanos);
                match outcome {
                    Outcome::Reply(reply) => reply.put(body.put_u8(0)),
                    Outcome::NotSent(status) => drop(body.put_u8(1).put_i16(*status)),
                    Outcome::MaybeExecuted(status) => drop(body.put_u8(2).put_i16(*status)),
                }
            }
            Event::Packet { inward, link, peer, size, bytes } => {
                body.put_u8(5)
                    .put_bool(*inward)
                    .put_u16(*link)
                    .put_bytes(peer)
                    .put_u32(*size)
                    .put_bytes(bytes);
            }
        }
        writer.put_bytes(&body.finish());
    }

    /// Takes a record and its length.
    ///
    /// # Errors
    /// Its fields are none, or there is more in it than they are.
    pub fn get(reader: &mut Reader<'_>) -> Result<Record, Malformed> {
        let mut body = Reader::new(reader.get_bytes(2 * PACKET_SEEN_MAX)?);
        let seconds = body.get_u64()?;
        let nanos = body.get_u32()?;
        if nanos >= 1_000_000_000 {
            return Err(Malformed);
        }
        let event = match body.get_u8()? {
            1 => {
                Event::Request { pid: body.get_u32()?, slot: body.get_u16()?, message: Seen::get(&mut body)? }
            }
            2 => Event::Delivered {
                pid: body.get_u32()?,
                request: body.get_u64()?,
                client: Address(body.array()?),
                message: Seen::get(&mut body)?,
            },
            3 => Event::Answered {
                pid: body.get_u32()?,
                request: body.get_u64()?,
                reply: if body.get_bool()? { Some(Seen::get(&mut body)?) } else { None },
            },
            4 => Event::Ended {
                pid: body.get_u32()?,
                slot: body.get_u16()?,
                elapsed: Some(body.get_u64()?).filter(|nanos| *nanos != u64::MAX).map(Duration::from_nanos),
                outcome: match body.get_u8()? {
                    0 => Outcome::Reply(Seen::get(&mut body)?),
                    1 => Outcome::NotSent(body.get_i16()?),
                    2 => Outcome::MaybeExecuted(body.get_i16()?),
                    _ => return Err(Malformed),
                },
            },
            5 => Event::Packet {
                inward: body.get_bool()?,
                link: body.get_u16()?,
                peer: body.get_bytes(NAME_SIZE_MAX)?.to_vec(),
                size: body.get_u32()?,
                bytes: body.get_bytes(PACKET_SEEN_MAX)?.to_vec(),
            },
            _ => return Err(Malformed),
        };
        body.end()?;
        Ok(Record { time: Duration::new(seconds, nanos), event })
    }
}

/// A header with zeros for its check field.
pub fn without_secrets(header: &Header) -> Header {
    let mut bytes = header.to_bytes(false);
    bytes[CHECK].fill(0);
    Header::from_bytes(&bytes, false)
}

/// The part of a FLIP packet that may be shown: its headers, with zeros for check fields; with `data` what follows them
/// too, up to [`PACKET_SEEN_MAX`]. What is no FLIP packet is not shown at all.
pub fn abridged(packet: &[u8], with_data: bool) -> Vec<u8> {
    let Some((flip, payload, _)) = FlipHeader::parse(packet) else { return Vec::new() };
    let headers = FLIP_HEADER_SIZE + payload_headers(&flip, payload);
    let size = if with_data { FLIP_HEADER_SIZE + payload.len() } else { headers };
    let mut shown = packet[..size.min(PACKET_SEEN_MAX)].to_vec();
    if let Some(at) = transaction_header(&flip, payload) {
        let check = FLIP_HEADER_SIZE + at + CHECK.start..FLIP_HEADER_SIZE + at + CHECK.end;
        if let Some(check) = shown.get_mut(check) {
            check.fill(0);
        }
    }
    shown
}

/// The RPC header of a packet that begins a message, and where it ends in the payload.
pub fn rpc_header(flip: &FlipHeader, payload: &[u8]) -> Option<(RpcHeader, usize)> {
    let carries = matches!(
        flip.kind,
        PacketKind::Unidata | PacketKind::Multidata | PacketKind::Nothere | PacketKind::Untrusted
    );
    if !carries || flip.offset != 0 {
        return None;
    }
    let skipped = if flip.to.is_null() { RPC_BROADCAST.len() } else { 0 };
    if skipped > 0 && !payload.starts_with(&RPC_BROADCAST) {
        return None;
    }
    let (header, ..) = RpcHeader::parse(payload.get(skipped..)?)?;
    Some((header, skipped + RPC_HEADER_SIZE))
}

/// Where the transaction header of a request or reply begins in the payload.
fn transaction_header(flip: &FlipHeader, payload: &[u8]) -> Option<usize> {
    let (header, end) = rpc_header(flip, payload)?;
    matches!(header.kind, RpcKind::Request | RpcKind::Reply).then_some(end)
}

/// Bytes of headers that the payload begins with.
fn payload_headers(flip: &FlipHeader, payload: &[u8]) -> usize {
    let size = match (flip.kind, rpc_header(flip, payload)) {
        (PacketKind::Locate | PacketKind::Hereis, _) => payload.len(),
        (_, Some((header, end))) => match header.kind {
            RpcKind::Request | RpcKind::Reply => end + HEADER_SIZE,
            _ => end,
        },
        _ if flip.offset == 0 && payload.starts_with(&DATAGRAM) => DATAGRAM_HEADER_SIZE,
        _ => 0,
    };
    size.min(payload.len())
}

#[cfg(test)]
mod tests {
    use amoeba_cap::{Capability, PutPort};

    use super::*;
    use crate::Command;

    fn capability() -> Capability {
        "1:2:3:4:5:6/7(FF)/A:B:C:D:E:F".parse().expect("a capability")
    }

    fn request(data: &[u8]) -> Vec<u8> {
        let header = Header::request(&capability(), Command(1004));
        let rpc = RpcHeader {
            kid: [3; 8],
            port: capability().port,
            kind: RpcKind::Request,
            flags: 0,
            tid: 5,
            dest: 0,
            from: 1,
        };
        let payload = [&rpc.to_bytes()[..], &header.to_bytes(true), data].concat();
        let size = u32::try_from(payload.len()).expect("small");
        let flip = FlipHeader {
            kind: PacketKind::Unidata,
            flags: 0,
            hops: 3,
            hops_max: 3,
            to: Address([1; 8]),
            from: Address([2; 8]),
            message_id: 9,
            length: size,
            offset: 0,
            total: size,
        };
        [&flip.to_bytes()[..], &payload].concat()
    }

    fn has_check(bytes: &[u8]) -> bool {
        bytes.windows(6).any(|six| six == [0xA, 0xB, 0xC, 0xD, 0xE, 0xF])
    }

    #[test]
    fn a_packet_is_shown_without_check_field_and_without_data() {
        let packet = request(b"secret words");
        assert!(has_check(&packet));
        let shown = abridged(&packet, false);
        assert_eq!(shown.len(), FLIP_HEADER_SIZE + RPC_HEADER_SIZE + HEADER_SIZE);
        assert!(!has_check(&shown));
        let whole = abridged(&packet, true);
        assert!(whole.ends_with(b"secret words") && !has_check(&whole));
        assert_eq!(abridged(b"no packet", true), b"");
    }

    #[test]
    fn a_later_fragment_is_all_data() {
        let mut flip = FlipHeader::parse(&request(b"")).expect("it is one").0;
        (flip.offset, flip.length, flip.total) = (1458, 4, 1462);
        let packet = [&flip.to_bytes()[..], b"data"].concat();
        assert_eq!(abridged(&packet, false), &packet[..FLIP_HEADER_SIZE]);
    }

    #[test]
    fn a_message_is_shown_without_check_field() {
        let header = Header::request(&capability(), Command(1004));
        let seen = Seen::of(&header, b"abc", false);
        assert!(!has_check(&seen.header.to_bytes(false)));
        assert_eq!((seen.header.port, seen.size, seen.data.len()), (capability().port, 3, 0));
        assert_eq!(seen.header.private.object, capability().private.object);
    }

    #[test]
    fn records_come_back() {
        let seen = Seen::of(&Header::request(&capability(), Command(1)), b"abc", true);
        let events = [
            Event::Request { pid: 1, slot: 2, message: seen.clone() },
            Event::Delivered { pid: 1, request: 4, client: Address([5; 8]), message: seen.clone() },
            Event::Answered { pid: 1, request: 4, reply: Some(seen.clone()) },
            Event::Answered { pid: 1, request: 4, reply: None },
            Event::Ended { pid: 1, slot: 2, elapsed: None, outcome: Outcome::NotSent(-2) },
            Event::Ended {
                pid: 1,
                slot: 2,
                elapsed: Some(Duration::from_micros(3)),
                outcome: Outcome::Reply(seen),
            },
            Event::Ended { pid: 1, slot: 2, elapsed: None, outcome: Outcome::MaybeExecuted(-1) },
            Event::Packet { inward: true, link: 0, peer: b"x".to_vec(), size: 99, bytes: request(b"") },
        ];
        let mut writer = Writer::new();
        let records = events.map(|event| Record { time: Duration::new(7, 8), event });
        records.iter().for_each(|record| record.put(&mut writer));
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        for record in &records {
            assert_eq!(Record::get(&mut reader).as_ref(), Ok(record));
        }
        assert_eq!(reader.remaining(), 0);
    }

    #[test]
    fn nothing_panics_and_what_is_shown_of_a_packet_is_short() {
        bolero::check!().for_each(|bytes: &[u8]| {
            assert!(abridged(bytes, true).len() <= PACKET_SEEN_MAX);
            assert!(abridged(bytes, false).len() <= bytes.len());
            if let Ok(record) = Record::get(&mut Reader::new(bytes)) {
                let mut writer = Writer::new();
                record.put(&mut writer);
                assert_eq!(Record::get(&mut Reader::new(&writer.finish())), Ok(record));
            }
        });
    }

    #[test]
    fn a_broadcast_search_is_decoded() {
        let rpc = RpcHeader {
            kid: [0; 8],
            port: PutPort::from_bytes([1; 6]),
            kind: RpcKind::Locate,
            flags: 0,
            tid: 1,
            dest: 0,
            from: 0,
        };
        let payload = [&RPC_BROADCAST[..], &rpc.to_bytes()].concat();
        let mut flip = FlipHeader::parse(&request(b"")).expect("it is one").0;
        (flip.kind, flip.to) = (PacketKind::Multidata, Address::NULL);
        assert_eq!(rpc_header(&flip, &payload), Some((rpc, payload.len())));
        assert_eq!(rpc_header(&flip, &payload[1..]), None);
    }
}
