//! Bytes of messages and packets that are shared, not copied.
//!
//! The headers that the layers above put in front of their data (at most [`HEAD_SIZE_MAX`] bytes) are kept apart from
//! them, on the way out and on the way in. So nobody moves a megabyte to add or to take off a header, a packet refers to
//! its part of the message until the link copies it out, and a message without data allocates nothing.

use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use amoeba_wire::packet::{FLIP_HEADER_SIZE, FlipHeader};

/// Bytes that are kept apart at the front of every message: the headers of RPC and of the transaction.
pub const HEAD_SIZE_MAX: usize = 56;

/// The front of a message.
#[derive(Clone, Copy)]
pub struct Head {
    size: u8,
    bytes: [u8; HEAD_SIZE_MAX],
}

impl Head {
    /// No bytes.
    pub const EMPTY: Head = Head { size: 0, bytes: [0; HEAD_SIZE_MAX] };

    /// These bytes.
    ///
    /// # Panics
    /// When they are more than [`HEAD_SIZE_MAX`].
    pub fn new(bytes: &[u8]) -> Head {
        let mut head = Head::EMPTY;
        head.push(bytes);
        head
    }

    /// Adds bytes.
    ///
    /// # Panics
    /// When that makes more than [`HEAD_SIZE_MAX`].
    pub fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.size);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        self.size += bytes.len() as u8;
    }

    /// Puts bytes where they belong, zeros where nothing was.
    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        let end = at + bytes.len();
        self.bytes[at..end].copy_from_slice(bytes);
        self.size = self.size.max(end as u8);
    }
}

impl Deref for Head {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.size)]
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Head({} bytes)", self.size)
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Head) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Head {}

/// A message to be sent: headers, and data that it shares with whoever keeps them to send them again.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    head: Head,
    data: Option<Arc<Vec<u8>>>,
}

impl Payload {
    /// Headers in front of shared data.
    pub fn new(head: Head, data: &Arc<Vec<u8>>) -> Payload {
        Payload { head, data: (!data.is_empty()).then(|| data.clone()) }
    }

    /// A message that is all header.
    pub fn bare(head: Head) -> Payload {
        Payload { head, data: None }
    }

    /// What it begins with: all headers.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Bytes of the whole message.
    pub fn len(&self) -> usize {
        self.head.len() + self.data().len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        [&self.head[..], self.data()].concat()
    }

    fn data(&self) -> &[u8] {
        self.data.as_ref().map_or(&[], |data| data)
    }

    /// Both parts, apart: the data copied only if somebody else keeps them.
    pub(crate) fn into_parts(self) -> (Head, Vec<u8>) {
        let data = self.data.map(|data| Arc::try_unwrap(data).unwrap_or_else(|shared| (*shared).clone()));
        (self.head, data.unwrap_or_default())
    }

    /// The packet with this header and these bytes of the message.
    pub(crate) fn packet(&self, header: &FlipHeader, range: Range<usize>) -> Packet {
        let mut packet = Packet::header(header);
        let split = self.head.len();
        packet.push(&self.head[range.start.min(split)..range.end.min(split)]);
        if range.end > split {
            packet.body = self.data.clone();
            packet.range = range.start.max(split) - split..range.end - split;
        }
        packet
    }
}

impl From<Vec<u8>> for Payload {
    fn from(mut bytes: Vec<u8>) -> Payload {
        let split = bytes.len().min(HEAD_SIZE_MAX);
        let head = Head::new(&bytes[..split]);
        bytes.drain(..split);
        Payload::new(head, &Arc::new(bytes))
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.len())
    }
}

/// A whole FLIP packet in two parts: headers, and a part of a message that it refers to.
#[derive(Clone)]
pub struct Packet {
    size: u8,
    front: [u8; FLIP_HEADER_SIZE + HEAD_SIZE_MAX],
    body: Option<Arc<Vec<u8>>>,
    range: Range<usize>,
}

impl Packet {
    fn header(header: &FlipHeader) -> Packet {
        let mut front = [0; FLIP_HEADER_SIZE + HEAD_SIZE_MAX];
        front[..FLIP_HEADER_SIZE].copy_from_slice(&header.to_bytes());
        Packet { size: FLIP_HEADER_SIZE as u8, front, body: None, range: 0..0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        let start = usize::from(self.size);
        self.front[start..start + bytes.len()].copy_from_slice(bytes);
        self.size += bytes.len() as u8;
    }

    /// A packet with a copy of these bytes.
    pub fn copied(header: &FlipHeader, payload: &[u8]) -> Packet {
        let mut packet = Packet::header(header);
        if payload.len() <= HEAD_SIZE_MAX {
            packet.push(payload);
        } else {
            packet.range = 0..payload.len();
            packet.body = Some(Arc::new(payload.to_vec()));
        }
        packet
    }

    /// The FLIP header and what of the headers above is in this packet.
    pub fn front(&self) -> &[u8] {
        &self.front[..usize::from(self.size)]
    }

    /// What follows it.
    pub fn body(&self) -> &[u8] {
        self.body.as_ref().map_or(&[], |body| &body[self.range.clone()])
    }

    /// Bytes of the whole packet.
    pub fn len(&self) -> usize {
        usize::from(self.size) + self.range.len()
    }

    /// Never: a packet has at least its header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// A copy in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        [self.front(), self.body()].concat()
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Packet) -> bool {
        let bytes = |packet: &Packet| packet.to_vec();
        self.len() == other.len() && bytes(self) == bytes(other)
    }
}

impl Eq for Packet {}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Packet({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use amoeba_wire::packet::{Address, PacketKind};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_packet_of_a_part_has_exactly_its_bytes(size in 0usize..300, cut in 0usize..300, end in 0usize..300) {
            let bytes: Vec<u8> = (0..size).map(|byte| byte as u8).collect();
            let (start, end) = (cut.min(end).min(size), end.max(cut).min(size));
            let header = FlipHeader {
                kind: PacketKind::Unidata,
                flags: 0,
                hops: 1,
                hops_max: 2,
                to: Address([1; 8]),
                from: Address([2; 8]),
                message_id: 3,
                length: (end - start) as u32,
                offset: start as u32,
                total: size as u32,
            };
            let payload = Payload::from(bytes.clone());
            prop_assert_eq!(payload.to_vec(), bytes.clone());
            let packet = payload.packet(&header, start..end);
            prop_assert_eq!(packet.to_vec(), [&header.to_bytes()[..], &bytes[start..end]].concat());
            prop_assert_eq!(packet.len(), packet.to_vec().len());
            prop_assert_eq!(&packet, &Packet::copied(&header, &bytes[start..end]));
        }
    }
}
