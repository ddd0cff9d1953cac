//! The datagrams of a flow, as they are before they are sealed. `docs/flows.md` has the picture.

use amoeba_rpc::HEADERS_SIZE;
use amoeba_wire::packet::{RPC_HEADER_SIZE, RpcHeader};
use amoeba_wire::{DATA_SIZE_MAX, HEADER_SIZE, Header, Malformed, Reader};

use amoeba_seal::{SEALED_OVERHEAD, burst_size};

use crate::bulk::Ack;

/// Bytes before the part of the message in a PIECE.
pub(crate) const PIECE_HEAD_SIZE: usize = 17;
/// Bytes before the part of the message in a BURST.
pub(crate) const BURST_HEAD_SIZE: usize = PIECE_HEAD_SIZE + 2;

const PACKET: u8 = 1;
const PIECE: u8 = 2;
const ACK: u8 = 3;
const PING: u8 = 4;
const PONG: u8 = 5;
const BURST: u8 = 6;

/// A datagram as it means.
#[derive(Debug, PartialEq)]
pub(crate) enum Datagram<'a> {
    /// An RPC packet; a request or reply is whole in it.
    Packet { header: RpcHeader, inner: Option<Header>, data: &'a [u8] },
    /// A part of a large request or reply.
    Pieces(Pieces<'a>),
    /// Which pieces of a message have arrived.
    Ack { tid: u32, ack: Ack<'a> },
    /// Is the flow open?
    Ping { nonce: u64 },
    /// It is.
    Pong { nonce: u64 },
}

/// One piece of a large message, or several that follow each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Pieces<'a> {
    /// Of the first; the others have the next ones.
    pub(crate) number: u64,
    pub(crate) tid: u32,
    /// Where they begin in the message.
    pub(crate) offset: usize,
    /// Bytes of the whole message.
    pub(crate) total: usize,
    /// Bytes of each piece but the last.
    pub(crate) size: usize,
    pub(crate) bytes: &'a [u8],
}

/// What was read at once, as datagrams of `segment` bytes, the last perhaps shorter, and bursts, which are all there.
pub fn cut(read: &mut [u8], segment: usize) -> impl Iterator<Item = &mut [u8]> {
    let mut rest = read;
    std::iter::from_fn(move || {
        let bytes = std::mem::take(&mut rest);
        if bytes.is_empty() {
            return None;
        }
        let burst = burst_size(bytes).filter(|size| (SEALED_OVERHEAD..=bytes.len()).contains(size));
        let (first, others) = bytes.split_at_mut(burst.unwrap_or(segment.clamp(1, bytes.len())));
        rest = others;
        Some(first)
    })
}

impl<'a> Datagram<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Datagram<'a>, Malformed> {
        let mut reader = Reader::new(bytes);
        match reader.get_u8()? {
            PACKET => {
                let (header, rest, big_endian) = RpcHeader::parse(reader.rest()).ok_or(Malformed)?;
                let Some((inner, data)) = rest.split_first_chunk::<HEADER_SIZE>() else {
                    return if rest.is_empty() {
                        Ok(Datagram::Packet { header, inner: None, data: &[] })
                    } else {
                        Err(Malformed)
                    };
                };
                Ok(Datagram::Packet { header, inner: Some(Header::from_bytes(inner, big_endian)), data })
            }
            kind @ (PIECE | BURST) => {
                let number = reader.get_u32()?.into();
                let (tid, offset, total) = (reader.get_u32()?, size(&mut reader)?, size(&mut reader)?);
                let size =
                    if kind == BURST { usize::from(u16::from_le_bytes(reader.array()?)) } else { usize::MAX };
                let bytes = reader.rest();
                let fits = offset.checked_add(bytes.len()).is_some_and(|end| end <= total);
                let whole_headers =
                    if offset == 0 { bytes.len() >= HEADERS_SIZE } else { offset >= HEADERS_SIZE };
                let too_large = total > HEADERS_SIZE + DATA_SIZE_MAX;
                if !fits || bytes.is_empty() || !whole_headers || size < HEADERS_SIZE || too_large {
                    return Err(Malformed);
                }
                Ok(Datagram::Pieces(Pieces {
                    number,
                    tid,
                    offset,
                    total,
                    size: size.min(bytes.len()),
                    bytes,
                }))
            }
            ACK => Ok(Datagram::Ack { tid: reader.get_u32()?, ack: Ack::parse(reader.rest())? }),
            PING => Ok(Datagram::Ping { nonce: nonce(reader)? }),
            PONG => Ok(Datagram::Pong { nonce: nonce(reader)? }),
            _ => Err(Malformed),
        }
    }
}

fn size(reader: &mut Reader<'_>) -> Result<usize, Malformed> {
    usize::try_from(reader.get_u32()?).map_err(|_| Malformed)
}

fn nonce(mut reader: Reader<'_>) -> Result<u64, Malformed> {
    let nonce = reader.get_u64()?;
    if reader.rest().is_empty() { Ok(nonce) } else { Err(Malformed) }
}

/// What a message begins with: both headers.
pub(crate) fn headers(header: &RpcHeader, inner: &Header) -> [u8; HEADERS_SIZE] {
    let mut bytes = [0; HEADERS_SIZE];
    bytes[..RPC_HEADER_SIZE].copy_from_slice(&header.to_bytes());
    bytes[RPC_HEADER_SIZE..].copy_from_slice(&inner.to_bytes(true));
    bytes
}

/// Both headers of a message.
pub(crate) fn parse_headers(bytes: &[u8; HEADERS_SIZE]) -> Option<(RpcHeader, Header)> {
    let (header, rest, big_endian) = RpcHeader::parse(bytes)?;
    Some((header, Header::from_bytes(rest.first_chunk()?, big_endian)))
}

/// Whether a message with so much data fits into one datagram of `size` bytes.
pub(crate) fn is_small(data_size: usize, size: usize) -> bool {
    1 + HEADERS_SIZE + data_size <= size
}

/// What a datagram with a message, or with the RPC packet of these bytes, begins with.
pub(crate) const PACKET_KIND: [u8; 1] = [PACKET];

pub(crate) fn piece_head(number: u64, tid: u32, offset: usize, total: usize) -> [u8; PIECE_HEAD_SIZE] {
    let mut head = [PIECE; PIECE_HEAD_SIZE];
    let four = |value: usize| u32::try_from(value).expect("messages are below 2^32 bytes").to_le_bytes();
    head[1..5].copy_from_slice(&four(number as usize));
    head[5..9].copy_from_slice(&tid.to_le_bytes());
    head[9..13].copy_from_slice(&four(offset));
    head[13..].copy_from_slice(&four(total));
    head
}

/// The head of pieces of `size` bytes each.
pub(crate) fn burst_head(
    number: u64,
    tid: u32,
    offset: usize,
    total: usize,
    size: usize,
) -> [u8; BURST_HEAD_SIZE] {
    let mut head = [BURST; BURST_HEAD_SIZE];
    head[1..PIECE_HEAD_SIZE].copy_from_slice(&piece_head(number, tid, offset, total)[1..]);
    let size = u16::try_from(size).expect("datagrams are below 2^16 bytes");
    head[PIECE_HEAD_SIZE..].copy_from_slice(&size.to_le_bytes());
    head
}

pub(crate) fn ack_head(tid: u32) -> [u8; 5] {
    let [a, b, c, d] = tid.to_le_bytes();
    [ACK, a, b, c, d]
}

pub(crate) fn ping(nonce: u64, answer: bool) -> [u8; 9] {
    let mut bytes = [if answer { PONG } else { PING }; 9];
    bytes[1..].copy_from_slice(&nonce.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use amoeba_cap::PutPort;
    use amoeba_wire::packet::RpcKind;

    use super::*;

    #[test]
    fn datagrams_are_these_bytes() {
        let bytes = [&piece_head(2, 3, 1000, 2000)[..], b"data"].concat();
        assert_eq!(bytes, b"\x02\x02\0\0\0\x03\0\0\0\xe8\x03\0\0\xd0\x07\0\0data");
        let piece = Pieces { number: 2, tid: 3, offset: 1000, total: 2000, size: 4, bytes: b"data" };
        assert_eq!(Datagram::parse(&bytes), Ok(Datagram::Pieces(piece)));
        let data = [b'x'; 100];
        let bytes = [&burst_head(2, 3, 1000, 2000, 60)[..], &data].concat();
        assert_eq!(bytes[..20], *b"\x06\x02\0\0\0\x03\0\0\0\xe8\x03\0\0\xd0\x07\0\0\x3c\0x");
        let pieces = Pieces { size: 60, bytes: &data, ..piece };
        assert_eq!(Datagram::parse(&bytes), Ok(Datagram::Pieces(pieces)));
        let bytes = [&burst_head(2, 3, 1000, 2000, HEADERS_SIZE - 1)[..], &data].concat();
        assert_eq!(Datagram::parse(&bytes), Err(Malformed), "headers are in one piece");
        assert_eq!(Datagram::parse(&ping(7, false)), Ok(Datagram::Ping { nonce: 7 }));
        assert_eq!(ping(7, true), *b"\x05\x07\0\0\0\0\0\0\0");
        let ack = [&ack_head(9)[..], b"\x02\x01\0\0", &5u64.to_le_bytes(), b"\x01"].concat();
        let said = Ack { held: Duration::from_micros(258), next: 5, bits: b"\x01" };
        assert_eq!(Datagram::parse(&ack), Ok(Datagram::Ack { tid: 9, ack: said }));
        let header = RpcHeader {
            kid: [0; 8],
            port: PutPort::from_bytes([1; 6]),
            kind: RpcKind::Request,
            flags: 0,
            tid: 4,
            dest: 0,
            from: 0,
        };
        let bytes = [&PACKET_KIND[..], &headers(&header, &Header::NULL), b"x"].concat();
        let packet = Datagram::Packet { header, inner: Some(Header::NULL), data: b"x" };
        assert_eq!(Datagram::parse(&bytes), Ok(packet));
    }

    #[test]
    fn what_was_read_at_once_is_cut_into_datagrams_and_bursts() {
        bolero::check!().for_each(|bytes: &[u8]| {
            let (segment, mut read) = (bytes.first().map_or(0, |byte| usize::from(*byte)), bytes.to_vec());
            let parts: Vec<Vec<u8>> = cut(&mut read, segment).map(|part| part.to_vec()).collect();
            assert_eq!(parts.concat(), bytes);
            assert!(parts.iter().all(|part| !part.is_empty()));
        });
        let burst = [&b"\x18\0\x22\0"[..], &[5; 30]].concat();
        let mut read = [&[1; 9][..], &burst, &[2; 9], &[3; 3], &burst[..15]].concat();
        let sizes: Vec<usize> = cut(&mut read, 9).map(|part| part.len()).collect();
        assert_eq!(sizes, [9, 34, 9, 9, 9], "the last burst is not all there");
        let mut read = b"\x18\0\x04\0".repeat(100);
        assert_eq!(cut(&mut read, 200).count(), 2, "what is too short for a burst is none");
    }

    #[test]
    fn anything_is_parsed_or_refused() {
        bolero::check!().for_each(|bytes: &[u8]| {
            if let Ok(Datagram::Pieces(Pieces { offset, total, size, bytes, .. })) = Datagram::parse(bytes) {
                assert!(offset + bytes.len() <= total && total <= HEADERS_SIZE + DATA_SIZE_MAX);
                assert!(size > 0 && size <= bytes.len());
            }
        });
    }
}
